"""What every test shares."""

from pathlib import Path
import signal

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors: a second thread only spins."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return REPOSITORY


def pytest_configure() -> None:
    """Have Ctrl-C mean what it means in a terminal: a shell starts background jobs with it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter) -> None:
    """Count what the TRICKS table has driven, and list what faults have cost."""
    for report in (r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")
    passed = [r.nodeid for r in terminalreporter.stats.get("passed", []) if "test_tricks_table.py::" in r.nodeid]
    if passed:
        from raytricks.parts.registry import BUILT_IN

        num_parts = sum(bool(row.on) and row.kind != "tracker" for row in BUILT_IN)
        num_pairs = num_parts * (num_parts - 1) // 2
        of_pairs = sum("::test_pair_" in nodeid for nodeid in passed)
        terminalreporter.write_line(
            f"TRICKS: {num_parts} parts, {num_pairs} pairs; {of_pairs} tests of pairs and "
            f"{len(passed) - of_pairs} others passed"
        )
