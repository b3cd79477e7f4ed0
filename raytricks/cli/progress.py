"""A bar on the terminal for what takes a while; nothing where there is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import sys
import time

Progress = Callable[[int, int], None]
"""Called with what is done, and all."""


@contextmanager
def progress_bar(verb: str) -> Iterator[Progress]:
    """Give a function of (done, total) that draws a bar with the images/s and the time left."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich import console, progress  # drawn on a terminal only

    columns = (*progress.Progress.get_default_columns(), progress.TextColumn("{task.fields[rate]}"))
    begun: list[tuple[float, int]] = []  # a job that goes on has not done all of it now
    with progress.Progress(*columns, console=console.Console(stderr=True), transient=True) as bar:
        task = bar.add_task(verb, rate="")

        def show(done: int, total: int) -> None:
            begun[:] = begun or [(time.monotonic(), done)]
            seconds, before = time.monotonic() - begun[0][0], begun[0][1]
            rate = f"{(done - before) / seconds:,.0f} images/s" if seconds > 0.5 else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield show
