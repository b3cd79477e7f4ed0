"""Following a metrics file without Ray."""

import json

from raytricks.cluster.follower import Follower
from raytricks.training.records import drop_records_after


def line(step: int, kind: str = "step", **more) -> str:
    return json.dumps({"kind": kind, "step": step, "epoch": 1, **more}) + "\n"


def test_follower_hands_out_each_whole_line_once(tmp_path):
    path, seen = tmp_path / "metrics.jsonl", []
    path.write_text(line(1))
    follower = Follower(path, seen.append)
    with path.open("a") as file:
        file.write(line(2) + line(3)[:9])
        file.flush()
        follower.poll()
        assert [r["step"] for r in seen] == [2]
        file.write(line(3)[9:])
    follower.poll()
    follower.poll()
    assert [r["step"] for r in seen] == [2, 3]


def test_follower_waits_for_a_file_that_is_not_there(tmp_path):
    path, seen = tmp_path / "metrics.jsonl", []
    follower = Follower(path, seen.append)
    follower.poll()
    path.write_text(line(1))
    follower.poll()
    assert [r["step"] for r in seen] == [1]


def test_follower_hands_out_what_a_restart_writes_though_the_file_is_longer_by_then(tmp_path):
    path, seen = tmp_path / "metrics.jsonl", []
    follower = Follower(path, seen.append)
    path.write_text("".join(line(step) for step in range(1, 9)))
    follower.poll()
    drop_records_after(path, 4)
    with path.open("a") as file:
        file.write(line(4, "note", text="resumed") + "".join(line(step, again=True) for step in range(5, 20)))
    follower.poll()
    assert [(r["kind"], r["step"]) for r in seen[8:]] == [("note", 4), *(("step", s) for s in range(5, 20))]
