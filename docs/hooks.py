"""What mkdocs does with our pages: tables of parts come from the rows, files beside docs/ are named, not linked."""

import re
from typing import Any

from raytricks.parts.registry import of_kind
from raytricks.report.parts_table import markdown_table

_TABLE = re.compile(r"<!-- parts: (\w+) -->")
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./((?:configs|examples)/[^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the table of a kind where `<!-- parts: KIND -->` stands."""
    markdown = _OUTSIDE.sub(lambda found: f"{found[1]} (`{found[2]}`)", markdown)
    return _TABLE.sub(lambda found: markdown_table(of_kind(found[1])), markdown)  # type: ignore[arg-type]
