const runs = JSON.parse(document.getElementById("run-data").textContent);
const MOST_NUMBERS = 12;  // classes up to which each cell says its count

function pictureOf(run, index) {
  const [name, text] = runs[run].told[index], source = runs[run].pictures[index];
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  const picture = document.createElement(source ? "img" : "span");
  if (source) { picture.src = source; picture.alt = name; } else picture.className = "none";
  figure.title = name;
  caption.textContent = text;
  figure.append(picture, caption);
  return figure;
}

for (const box of document.querySelectorAll("[data-images]")) {
  box.append(...box.dataset.images.split(",").map(index => pictureOf(Number(box.dataset.run), index)));
}

function showCell(run, cell, count) {
  const place = document.getElementById("cell-" + run), images = runs[run].cells[cell] || [];
  const [isTrue, isTaken] = cell.split(",");
  for (const button of document.querySelectorAll("button.pair")) {
    button.setAttribute("aria-pressed", button.dataset.run === String(run) && button.dataset.cell === cell);
  }
  const pictured = images.filter(index => runs[run].pictures[index]);
  const named = images.filter(index => !runs[run].pictures[index]).map(index => runs[run].told[index][0]);
  place.replaceChildren(...pictured.map(index => pictureOf(run, index)));
  const text = document.createElement("p");
  const rest = count - images.length;
  if (named.length) text.textContent = (pictured.length ? "Also: " : "") + named.join(", ");
  if (named.length && rest > 0) text.textContent += `, and ${rest.toLocaleString("en")} more`;
  if (!images.length) {
    text.textContent = !count ? "No image." : isTrue === isTaken
      ? `${count.toLocaleString("en")} right answers; the page shows the least sure ones below.`
      : "The page names the images of the most confused pairs only.";
  }
  if (text.textContent) place.append(text);
}

function drawConfusion(run) {
  const name = "confusion-" + run, { classes, names, counts, totals, worst } = runs[run].confusion;
  const isOn = key => document.querySelector(`[data-confusion="${run}"][name=${key}]`).checked;
  const order = isOn("worst") ? worst : classes.map((_, place) => place);
  const shares = order.map(i => order.map(j => totals[i] ? 100 * counts[i][j] / totals[i] : 0));
  const number = (i, j) => counts[i][j].toLocaleString("en");
  // plotly reads these as markup
  const escaped = text => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const short = text => escaped(text.length > 24 ? text.slice(0, 23) + "…" : text);
  const hover = order.map((i, y) => order.map((j, x) => `${escaped(names[i])} taken for ${escaped(names[j])}: ` +
    `${number(i, j)} (${shares[y][x].toFixed(1)}%)`));
  const step = Math.ceil(order.length / 50), places = order.map((_, place) => place);
  const ticks = { tickvals: places.filter(place => place % step === 0),
    ticktext: order.filter((_, place) => place % step === 0).map(i => short(names[i])),
    tickfont: { size: 11 }, showgrid: false, zeroline: false, automargin: true };
  const isShare = isOn("share"), isNumbered = order.length <= MOST_NUMBERS;
  const map = { type: "heatmap", z: isShare ? shares : order.map(i => order.map(j => counts[i][j])),
    x: places, y: places, zmin: 0, zmax: isShare ? 100 : undefined, hovertext: hover, hoverinfo: "text",
    xgap: order.length > 30 ? 0 : 1, ygap: order.length > 30 ? 0 : 1,
    // see-through at 0, and never so strong that the page's own ink cannot be read on it, light or dark
    colorscale: [[0, "rgba(59,130,196,0)"], [0.001, "rgba(59,130,196,0.16)"],
      [1, isNumbered ? "rgba(59,130,196,0.8)" : "rgba(59,130,196,1)"]],
    colorbar: { ticksuffix: isShare ? "%" : "", thickness: 12, outlinewidth: 0, tickcolor: "#808080" } };
  if (isNumbered) Object.assign(map, { text: order.map(i => order.map(j => counts[i][j] ? number(i, j) : "")),
    texttemplate: "%{text}", textfont: { color: inPage("--ink") } });
  const layout = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: inPage("--ink"), family: "system-ui, sans-serif", size: 13 },
    hoverlabel: { bgcolor: inPage("--panel"), bordercolor: inPage("--rule"), align: "left",
      font: { color: inPage("--ink") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "#9097a3", activecolor: "#15a06e" },
    margin: { t: 28, l: 60, r: 16, b: 48 }, height: Math.min(900, Math.max(420, 24 * order.length + 160)),
    xaxis: { ...ticks, title: { text: "answer", standoff: 8 }, tickangle: order.length > 12 ? -45 : "auto" },
    yaxis: { ...ticks, title: { text: "true class", standoff: 8 }, autorange: "reversed" } };
  Plotly.react(name, [map], layout, { responsive: true, displaylogo: false, showSendToCloud: false,
    plotlyServerURL: "", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] });
  const place = document.getElementById(name);
  place.removeAllListeners("plotly_click");
  place.on("plotly_click", event => {
    const [i, j] = [order[event.points[0].y], order[event.points[0].x]];
    showCell(run, `${classes[i]},${classes[j]}`, counts[i][j]);
  });
}

runs.forEach((data, run) => { if (data) drawConfusion(run); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  runs.forEach((data, run) => { if (data) drawConfusion(run); });
});
for (const box of document.querySelectorAll("[data-confusion]")) {
  box.addEventListener("change", () => drawConfusion(Number(box.dataset.confusion)));
}
for (const choice of document.querySelectorAll("[data-recall]")) {
  choice.addEventListener("change", () =>
    Plotly.relayout("recall-" + choice.dataset.recall, { "xaxis.categoryorder": choice.value }));
}
for (const button of document.querySelectorAll("button.pair")) {
  const [run, cell] = [Number(button.dataset.run), button.dataset.cell];
  button.addEventListener("click", () => showCell(run, cell, Number(button.dataset.count)));
}
