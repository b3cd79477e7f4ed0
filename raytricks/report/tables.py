"""The tables and sections of a run's page; every text is escaped here."""

from collections.abc import Sequence
from html import escape


def section(title: str, body: str) -> str:
    """Return a section under a title; the body is markup."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def table(head: str, rows: Sequence[str]) -> str:
    """Return a table of rows that are markup."""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def sortable(heads: Sequence[str], rows: Sequence[str]) -> str:
    """Return a table that sorts at a click on a heading; its first column is a name, the others are numbers."""
    head = "".join(
        f'<th class="{"number" if place else ""}"><button type="button">{escape(text)}</button></th>'
        for place, text in enumerate(heads)
    )
    body = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="wide tall">{body}</div>'


def cell(order: str | float | None, text: str, kind: str = "") -> str:
    """Return a cell that sorts by `order`, not by its text; None sorts last."""
    key = "" if order is None else order if isinstance(order, str) else repr(order)
    return f'<td class="{kind}" data-sort="{escape(key)}">{escape(text)}</td>'


def number_cell(count: int) -> str:
    """Return a cell of a count."""
    return cell(count, f"{count:,}", "number")
