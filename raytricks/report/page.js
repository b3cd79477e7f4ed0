const figures = JSON.parse(document.getElementById("figure-data").textContent);
const inPage = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
for (const [name, figure] of Object.entries(figures)) {
  figure.layout.font = { color: inPage("--ink"), family: "system-ui, sans-serif", size: 13 };
  figure.layout.hoverlabel = { bgcolor: inPage("--panel"), bordercolor: inPage("--rule"), align: "left",
    font: { color: inPage("--ink") } };
  Plotly.newPlot(name, figure.data, figure.layout, { responsive: true, displaylogo: false,
    showSendToCloud: false, plotlyServerURL: "",  // on by default since plotly.js 4
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const name of Object.keys(figures)) {
    Plotly.relayout(name, { "font.color": inPage("--ink"), "hoverlabel.bgcolor": inPage("--panel"),
      "hoverlabel.bordercolor": inPage("--rule"), "hoverlabel.font.color": inPage("--ink") });
  }
});
function compareCells(left, right) {
  const [a, b] = [left.dataset.sort, right.dataset.sort];
  return isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
}
for (const header of document.querySelectorAll("table.sortable th")) {
  header.addEventListener("click", () => {
    const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction);
    const body = header.closest("table").tBodies[0], column = header.cellIndex;
    const rows = [...body.rows], isEmpty = row => row.cells[column].dataset.sort === "";
    const filled = rows.filter(row => !isEmpty(row));
    filled.sort((a, b) => compareCells(a.cells[column], b.cells[column]) * (direction === "ascending" ? 1 : -1));
    body.append(...filled, ...rows.filter(isEmpty));
  });
}
