"""metrics.jsonl: whole lines, valid JSON, nothing lost at a restart."""

import json
import math

import pytest

from raytricks.training.records import METRICS_FILE, RecordWriter, drop_records_after, read_records


def writer(folder, **options) -> RecordWriter:
    return RecordWriter(folder, **({"tensorboard": False, "purge_step": 0} | options))


def write_steps(folder, *steps: int) -> None:
    records = writer(folder)
    for step in steps:
        records.write("step", step=step, epoch=1, objective=0.1 * step)
    records.close()


def steps_of(folder) -> list[int]:
    return [r["step"] for r in read_records(folder / METRICS_FILE)]


def test_records_round_trip_exactly(tmp_path):
    heard = []
    records = writer(tmp_path, listener=heard.append)
    records.write("epoch", step=3, epoch=1, val_top1=0.1 + 0.2, name="x")
    records.close()
    expected = {"kind": "epoch", "step": 3, "epoch": 1, "val_top1": 0.1 + 0.2, "name": "x"}
    assert read_records(tmp_path / METRICS_FILE) == heard == [expected]


def test_records_of_no_file_are_none(tmp_path):
    assert read_records(tmp_path / METRICS_FILE) == []
    drop_records_after(tmp_path / METRICS_FILE, 3)
    assert not (tmp_path / METRICS_FILE).exists()


@pytest.mark.parametrize("cut", ['{"kind": "st', "{", "x" * 5000, '{"kind": "step"}'])
def test_records_cut_off_line_is_ignored_and_swallows_nothing(tmp_path, cut):
    write_steps(tmp_path, 1, 2)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write(cut)
    assert steps_of(tmp_path) == [1, 2]
    drop_records_after(tmp_path / METRICS_FILE, 2)  # what a resume does first
    write_steps(tmp_path, 3)
    assert steps_of(tmp_path) == [1, 2, 3]


def test_records_after_a_step_are_dropped(tmp_path):
    write_steps(tmp_path, 1, 2, 3, 4)
    drop_records_after(tmp_path / METRICS_FILE, 2)
    assert steps_of(tmp_path) == [1, 2]
    drop_records_after(tmp_path / METRICS_FILE, 0)
    assert steps_of(tmp_path) == []


def test_records_of_the_test_split_are_dropped_for_it_is_scored_again(tmp_path):
    records = writer(tmp_path)
    records.write("epoch", step=4, epoch=1)
    records.write("test", step=4, epoch=1, test_top1=0.5)
    records.close()
    drop_records_after(tmp_path / METRICS_FILE, 4)
    assert [r["kind"] for r in read_records(tmp_path / METRICS_FILE)] == ["epoch"]


def test_records_are_json_even_when_a_value_is_not_finite(tmp_path):
    records = writer(tmp_path)
    records.write("step", step=1, epoch=1, objective=math.nan, grad_norm=math.inf, lr=0.5, text="nan")
    records.close()

    def refuse(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    line = json.loads((tmp_path / METRICS_FILE).read_text(), parse_constant=refuse)
    assert (line["objective"], line["grad_norm"], line["lr"], line["text"]) == (None, None, 0.5, "nan")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboardX's and protobuf's own
def test_records_go_to_tensorboard_too(tmp_path):
    records = writer(tmp_path, tensorboard=True)
    records.write("step", step=1, epoch=1, objective=1.5, grad_norm=math.inf, text="no number")
    records.close()
    events = next((tmp_path / "tb").iterdir()).read_bytes()
    assert b"step/objective" in events and b"step/text" not in events and b"grad_norm" not in events
