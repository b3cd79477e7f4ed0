"""Print what `raytricks check` found: coloured in a terminal, plain elsewhere, or one JSON document."""

from collections.abc import Iterable
import json
import sys
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from raytricks.cluster.checks.result import CheckResult

_STYLES = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}
_SUBJECT_WIDTH = 24


def print_results(results: Iterable[CheckResult], stream: TextIO | None = None) -> bool:
    """Print a line a check as soon as it is made, then a summary; returns whether none failed."""
    console = Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)
    counts = dict.fromkeys(_STYLES, 0)
    for result in results:
        counts[result.status] += 1
        console.print(Text.assemble((f"{result.status:<5}", _STYLES[result.status]), result_text(result)))
    failed, warned = counts["FAIL"], counts["warn"]
    console.print(f"{sum(counts.values())} checks: {counts['ok']} ok, {warned} to look at, {failed} failed")
    return failed == 0


def print_json(results: Iterable[CheckResult], stream: TextIO | None = None) -> bool:
    """Print one JSON document; returns whether none failed."""
    checks: list[dict[str, Any]] = [result.as_dict() for result in results]
    is_ok = all(check["status"] != "FAIL" for check in checks)
    print(json.dumps({"ok": is_ok, "checks": checks}, indent=1), file=stream or sys.stdout)
    return is_ok


def result_text(result: CheckResult) -> str:
    """Return subject, finding and remedy as one line."""
    line = f"{result.subject:<{_SUBJECT_WIDTH}} {result.found}"
    return f"{line}; {result.remedy}" if result.remedy else line
