"""Progress of a run: a live line in a terminal, one plain line an epoch elsewhere.

Fed with the records of metrics.jsonl, whether they come from this process or from workers.
"""

from collections.abc import Callable, Sequence
import json
from pathlib import Path
import sys
import time
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

Record = dict[str, Any]


_SHOWN = ("val_top1", "val_top5", "val_cross_entropy", "val_num_images", "val_s")
_OF_SUMMARY = ("val_lowest_recall", "val_lowest_recall_class")


class Reporter:
    """Prints lines to a stream and to a run's log file.

    Args:
        mode: "text", "json" (records as JSON lines, nothing else) or "quiet".
    """

    def __init__(self, mode: str = "text", stream: TextIO | None = None) -> None:
        self.mode = mode
        self._stream = stream or sys.stdout
        self._log: TextIO | None = None
        self._held: list[str] = []
        self._live: Progress | Live | None = None
        self._task: Any = None
        self._epoch_ends: Sequence[int] = ()
        self._started_s = time.monotonic()
        self._first_step: int | None = None
        self._listeners: list[Callable[[Record], None]] = []

    def also(self, listener: Callable[[Record], None]) -> None:
        """Hand each record to a listener of the caller's too."""
        self._listeners.append(listener)

    def line(self, text: str) -> None:
        """Print a line now; it also goes to the log file, once that is open."""
        self._to_log(text)
        if self.mode == "text":
            if self._live is not None:
                self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                print(text, file=self._stream, flush=True)

    def open_log(self, path: Path) -> None:
        """Also write to this file from here on, and what was printed before."""
        self._log = path.open("a", buffering=1)
        for text in self._held:
            self._log.write(text + "\n")
        self._held = []

    def start(self, epoch_ends: Sequence[int]) -> None:
        """Begin to show progress.

        Args:
            epoch_ends: steps made at the end of each epoch.
        """
        self._epoch_ends = epoch_ends
        self._started_s = time.monotonic()
        if self.mode == "text" and self._stream.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[text]}"))
            console = Console(file=self._stream)
            self._live = Progress(*columns, console=console, transient=True, refresh_per_second=4)
            self._task = self._live.add_task("starting", total=None, text="")
            self._live.start()

    def show_live(self, make_table: Callable[[], Table]) -> None:
        """Show a table in the terminal, drawn anew four times a second until `stop`; elsewhere nothing."""
        if self.mode == "text" and self._stream.isatty():
            console = Console(file=self._stream)
            self._live = Live(console=console, transient=True, refresh_per_second=4, get_renderable=make_table)
            self._live.start()

    def as_json(self, content: Record) -> None:
        """Print a JSON line, in the mode that prints nothing else."""
        if self.mode == "json":
            print(json.dumps(content), file=self._stream, flush=True)

    def stop(self) -> None:
        """Remove the live line."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def close(self) -> None:
        """Remove the live line and close the log file."""
        self.stop()
        if self._log is not None:
            self._log.close()
            self._log = None

    def record(self, record: Record) -> None:
        """Show one record."""
        for listener in self._listeners:
            listener(dict(record))
        self.as_json(record)
        handler = {"step": self._step, "epoch": self._epoch, "test": self._test, "note": self._note}[record["kind"]]
        handler(record)

    def _step(self, record: Record) -> None:
        if self._first_step is None:
            self._first_step = record["step"]
            self._started_s = time.monotonic()
        if not isinstance(self._live, Progress):
            return
        start, end = [0, *self._epoch_ends][record["epoch"] - 1 : record["epoch"] + 1]
        done, total = record["step"] - start, end - start
        text = f"{done}/{total} loss {_loss(record['objective'])} {record['images_per_second']:,.0f} img/s"
        self._live.update(
            self._task,
            description=f"epoch {record['epoch']}/{len(self._epoch_ends)}",
            completed=done,
            total=total,
            text=f"{text} ETA {self._remaining(record['step'])}",
        )

    def _epoch(self, record: Record) -> None:
        self.line(epoch_line(record, len(self._epoch_ends), self._remaining(record["step"])))

    def _test(self, record: Record) -> None:
        average = f" (EMA {record['test_ema_top1']:.2%})" if "test_ema_top1" in record else ""
        self.line(
            f"test  top-1 {record['test_top1']:.2%}{average} of {record['test_num_images']:,} images, scored once"
        )

    def _note(self, record: Record) -> None:
        self.line(f"note  {record['text']}")

    def _remaining(self, step: int) -> str:
        done = step - (self._first_step if self._first_step is not None else step)
        if done <= 0:
            return "?"
        return duration((time.monotonic() - self._started_s) / done * (self._epoch_ends[-1] - step))

    def _to_log(self, text: str) -> None:
        if self._log is None:
            self._held.append(text)
        else:
            self._log.write(text + "\n")


def epoch_line(record: Record, num_epochs: int, remaining: str) -> str:
    """Return the one line of an epoch."""
    width = len(str(num_epochs))
    top5 = f" top-5 {record['val_top5']:.2%}" if "val_top5" in record else ""
    average = f" ema {record['val_ema_top1']:.2%}" if "val_ema_top1" in record else ""
    evaluated = "not evaluated"
    if "val_top1" in record:
        evaluated = f"val top-1 {record['val_top1']:.2%}{average}{top5} loss {record['val_cross_entropy']:.4f}"
        evaluated += "".join(f" {name} {value:.4f}" for name, value in _further_metrics(record).items())
    skipped = f"  skipped {record['skipped_steps']}" if record["skipped_steps"] else ""
    return (
        f"epoch {record['epoch']:>{width}}/{num_epochs}  loss {_loss(record['train_objective'])}  "
        f"train {_percent(record['train_top1'])}  {evaluated}  lr {record['lr']:.4f}  "
        f"{record['images_per_second']:,.0f} img/s  "
        f"{duration(record['train_s'] + record['val_s'])}{skipped}  left {remaining}"
    )


def _further_metrics(record: Record) -> dict[str, float]:
    """Return what `metrics` in the config adds to an evaluation, by name."""
    return {
        name.removeprefix("val_"): value
        for name, value in record.items()
        if name.startswith("val_")
        and name not in (*_SHOWN, *_OF_SUMMARY)
        and not name.startswith("val_ema_")
        and value is not None
    }


def _loss(value: float | None) -> str:
    """Format a loss; None is one that was not finite, or of no trained step."""
    return "-" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def duration(seconds: float) -> str:
    """Format a time for people: 45 s, 3 min 20 s, 2 h 05 min."""
    seconds = round(seconds)
    if seconds < 90:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 90:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
