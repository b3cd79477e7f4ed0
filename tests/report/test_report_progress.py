"""What is printed, and where."""

import io
import json

import pytest

from raytricks.report.progress import Reporter, duration, epoch_line
from raytricks.report.summary import summary_lines

EPOCH = {
    "kind": "epoch",
    "step": 4,
    "epoch": 1,
    "train_objective": 1.5,
    "train_top1": 0.5,
    "val_top1": 0.75,
    "val_top5": 0.9,
    "val_cross_entropy": 0.6,
    "val_num_images": 359,
    "lr": 0.1,
    "images_per_second": 1234.0,
    "train_s": 3.0,
    "val_s": 1.0,
    "skipped_steps": 0,
}
STEP = {
    "kind": "step",
    "step": 2,
    "epoch": 1,
    "objective": 2.0,
    "images_per_second": 100.0,
    "grad_norm": None,
}
NOTE = {"kind": "note", "step": 0, "epoch": 0, "text": "resumed [from] step-3"}
CLASSES = ("good", "defect")
TEST = {"kind": "test", "step": 8, "epoch": 2, "test_top1": 0.5, "test_num_images": 1000}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(mode: str, stream: io.StringIO) -> str:
    reporter = Reporter(mode, stream)
    reporter.line("header")
    reporter.start([4, 8])
    for record in (NOTE, STEP, EPOCH, {**STEP, "step": 5, "epoch": 2}, {**EPOCH, "step": 8, "epoch": 2}, TEST):
        reporter.record(record)
    reporter.stop()
    reporter.line("summary")
    reporter.close()
    return stream.getvalue()


def test_report_to_a_file_is_one_plain_line_an_epoch():
    text = shown("text", io.StringIO())
    assert "\x1b" not in text and "\r" not in text
    lines = text.splitlines()
    assert [line.split()[0] for line in lines] == ["header", "note", "epoch", "epoch", "test", "summary"]
    assert lines[1] == "note  resumed [from] step-3"
    assert lines[2].startswith("epoch 1/2  loss 1.5000  train 50.00%  val top-1 75.00% top-5 90.00% loss 0.6000")
    assert "1,234 img/s  4 s  left" in lines[2]


def test_report_to_a_terminal_says_the_same_and_removes_its_live_line():
    text = shown("text", Terminal())
    assert "\x1b" in text
    for part in ("header", "note  resumed [from] step-3", "epoch 1/2  loss 1.5000", "test  top-1 50.00%", "summary"):
        assert part in text
    assert max(line.count("epoch 1/2  loss") for line in text.splitlines()) == 1  # not wrapped


def test_report_as_json_is_records_only():
    lines = [json.loads(line) for line in shown("json", io.StringIO()).splitlines()]
    assert [line["kind"] for line in lines] == ["note", "step", "epoch", "step", "epoch", "test"]
    assert lines[2] == EPOCH


def test_report_counts_the_steps_of_epochs_of_unequal_length():
    reporter = Reporter("text", Terminal())
    reporter.start([4, 6])
    for step, epoch, shown_steps in ((1, 1, (1, 4)), (4, 1, (4, 4)), (5, 2, (1, 2)), (6, 2, (2, 2))):
        reporter.record({**STEP, "step": step, "epoch": epoch})
        assert reporter._live is not None
        (task,) = reporter._live.tasks
        assert (task.completed, task.total) == shown_steps
        assert task.fields["text"].startswith(f"{shown_steps[0]}/{shown_steps[1]} ")
    reporter.close()


def test_report_quiet_prints_nothing():
    assert shown("quiet", io.StringIO()) == shown("quiet", Terminal()) == ""


@pytest.mark.parametrize("mode", ["text", "json", "quiet"])
def test_report_writes_the_log_in_every_mode(tmp_path, mode):
    reporter = Reporter(mode, io.StringIO())
    reporter.line("before")
    reporter.open_log(tmp_path / "log.txt")
    reporter.record(EPOCH)
    reporter.close()
    reporter.close()
    assert (tmp_path / "log.txt").read_text().splitlines()[0] == "before"
    assert "epoch 1/" in (tmp_path / "log.txt").read_text()


def test_report_goes_to_stdout_by_default(capsys):
    Reporter().line("hello")
    assert capsys.readouterr().out == "hello\n"


def test_report_shows_skipped_steps_and_losses_that_were_not_finite():
    record = EPOCH | {"skipped_steps": 2, "train_objective": None, "train_top1": None}
    line = epoch_line(record, 10, "?")
    assert "skipped 2" in line and "loss -  train -" in line
    reporter = Reporter("text", Terminal())
    reporter.start([4, 8])
    reporter.record({**STEP, "objective": None})
    reporter.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (45, "45 s"),
        (89.4, "89 s"),
        (90, "1 min 30 s"),
        (200, "3 min 20 s"),
        (5399, "89 min 59 s"),
        (5400, "1 h 30 min"),
        (7500, "2 h 05 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_duration_for_people(seconds, text):
    assert duration(seconds) == text


def test_summary_names_last_and_best(tmp_path):
    records = [EPOCH, {**EPOCH, "epoch": 2, "val_top1": 0.7}, TEST]
    text = "\n".join(summary_lines(tmp_path / "run", records, 100, "held out", CLASSES))
    assert "last      epoch 2: top-1 70.00% of 359 images (held out)" in text
    assert "best      epoch 1: top-1 75.00%" in text and "optimistic" in text
    assert "test      top-1 50.00%, scored once" in text
    assert f"raytricks train {tmp_path}/run/config.yaml name=again" in text


def test_epoch_line_shows_the_average_beside_the_weights():
    assert "val top-1 75.00% ema 80.00% top-5" in epoch_line(EPOCH | {"val_ema_top1": 0.8}, 2, "?")
    assert "ema" not in epoch_line(EPOCH, 2, "?")


def test_summary_names_the_average_and_its_file(tmp_path):
    average = {"val_ema_top1": 0.8, "val_ema_cross_entropy": 0.5}
    test = TEST | {"test_ema_top1": 0.6}
    text = "\n".join(summary_lines(tmp_path, [EPOCH | average, test], 5, "val", CLASSES))
    assert "average   of the weights: top-1 80.00%, loss 0.5000" in text
    assert "model_ema.safetensors" in text
    assert "top-1 50.00% (EMA 60.00%), scored once" in text
    assert "weakest" not in "\n".join(summary_lines(tmp_path, [EPOCH], 5, "val", CLASSES))  # of an early version
    weakest = {"val_lowest_recall": 0.25, "val_lowest_recall_class": 1}
    text = "\n".join(summary_lines(tmp_path, [EPOCH | weakest], 5, "val", CLASSES))
    assert "weakest   class defect: 25.00% of its images right" in text
    assert "recall" not in epoch_line(EPOCH | weakest, 2, "")
    assert "model_ema" not in "\n".join(summary_lines(tmp_path, [EPOCH], 5, "val", CLASSES))


@pytest.mark.parametrize(
    ("scales", "line"),
    [
        ([900.0, None, 1100.0], "gradient noise scale 1,000: linear scaling is safe up to about b = 512"),
        ([None, None], "how large cannot be told"),
        ([0.0], "gradient noise scale 0: linear scaling is safe up to about b = 1"),
    ],
)
def test_summary_advises_on_the_batch(tmp_path, scales, line):
    epochs = [EPOCH | {"noise_scale": scale} for scale in scales]
    assert line in "\n".join(summary_lines(tmp_path, epochs, 5, "val", CLASSES))


def test_summary_without_a_measured_noise_scale_gives_no_advice(tmp_path):
    assert "noise" not in "\n".join(summary_lines(tmp_path, [EPOCH], 5, "val", CLASSES))
