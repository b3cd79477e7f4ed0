"""`predict`: a row an image, in order, whatever dies; bad images are rows; promises hold."""

import io
import json
import os
from pathlib import Path
import signal
import subprocess
import sys

import numpy as np
from PIL import Image
import pyarrow as pa
from pyarrow import csv, parquet
import pytest

import raytricks
from raytricks.errors import ConfigError, DataError
from raytricks.inference.images import find_images
from raytricks.use import parts, predicting
from raytricks.use.predicting import predict


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 16 rows."""
    monkeypatch.setattr(parts, "PART_ROWS", 16)


def bad_files(folder: Path, photo: Path) -> int:
    """Write files that are no images, or not whole; returns how many."""
    whole = photo.read_bytes()
    file = io.BytesIO()
    Image.open(io.BytesIO(whole)).save(file, "PNG")
    png = file.getvalue()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    contents = {
        "empty.jpg": b"",
        "text.jpg": b"hello",
        "html.png": b"<!DOCTYPE html><html></html>",
        "truncated.jpg": whole[: len(whole) // 2],
        "header_only.jpg": whole[:30],
        "truncated.png": png[:-400],
        "crc.png": png[:600] + bytes([png[600] ^ 255]) + png[601:],
        "header_only.png": png[:16],
        "pickle.jpg": b"\x80\x04\x95\x10\x00\x00\x00",
        "zip.jpg": b"PK\x03\x04" + bytes(40),
        "pdf.png": b"%PDF-1.4\n",
        "svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "zeros.jpg": bytes(500),
        "jpeg_marker.jpg": b"\xff\xd8\xff\xe0" + bytes(100),
        "gif_header.gif.png": b"GIF89a",
        "webp_header.webp": b"RIFF\x00\x00\x00\x00WEBP",
        "tiff_header.tif": b"II*\x00",
        "bmp_header.bmp": b"BM" + bytes(30),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    frames[0].save(folder / "animation.webp", save_all=True, append_images=frames[1:])
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    return len(contents) + 2


def test_predict_writes_what_the_model_answers(run_dir, photos, tmp_path, small_parts):
    result = predict(run_dir, photos, tmp_path / "out.parquet", embeddings=True, top=2)
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    model, listed = raytricks.load(run_dir), find_images(photos)
    expected = model.predict(photos)
    assert result.num_images == len(rows) == 120 and result.num_errors == 0
    for index, (row, prediction) in enumerate(zip(rows, expected, strict=True)):
        assert (row["image"], row["label"]) == (listed.name(index), prediction.label)
        assert row["score"] == pytest.approx(prediction.score, rel=1e-6)
        assert row["top_labels"] == [name for name, _ in prediction.top(2)]
        assert len(row["embedding"]) == 32 and row["error"] is None
    weight = model.model.state_dict()
    head = next(name for name in weight if weight[name].ndim == 2)
    logits = np.array([row["embedding"] for row in rows]) @ weight[head].numpy().T
    bias = weight[head.replace("weight", "bias")].numpy()
    assert np.allclose(logits + bias, [p.logits for p in expected], atol=1e-4)
    assert list(tmp_path.iterdir()) == [tmp_path / "out.parquet"]


def test_predict_gives_bad_images_a_row_with_their_error(run_dir, photos, tmp_path, small_parts):
    folder = tmp_path / "mixed"
    folder.mkdir()
    count = bad_files(folder, photos / "red" / "000.jpg")
    for number in range(5):
        (folder / f"good{number}.jpg").write_bytes((photos / "green" / f"{number:03d}.jpg").read_bytes())
    assert count == 20
    result = predict(run_dir, folder, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [Path(row["image"]).name for row in rows] == sorted(path.name for path in folder.iterdir())
    assert result.num_errors == count and result.num_images == count + 5
    for row in rows:
        is_good = "good" in row["image"]
        assert (row["error"] is None) == is_good and (row["label"] == "green") == is_good, row
        assert is_good or ("\n" not in row["error"] and row["image"] in row["error"] and row["top_labels"] is None)


def test_predict_formats_hold_the_same(run_dir, photos, tmp_path, small_parts):
    for suffix in ("parquet", "csv", "jsonl"):
        predict(run_dir, photos / "red", tmp_path / f"out.{suffix}", top=2)
    of_parquet = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == of_parquet
    of_csv = csv.read_csv(tmp_path / "out.csv").to_pylist()
    assert [row["label_2"] for row in of_csv] == [row["top_labels"][1] for row in of_parquet]
    assert [row["score_1"] for row in of_csv] == [row["score"] for row in of_parquet]


def test_predict_takes_lists_patterns_and_parquet(run_dir, photos, tmp_path):
    files = sorted((photos / "red").iterdir())[:6]
    (tmp_path / "list.txt").write_text("\n".join(str(file) for file in files) + "\n\n")
    table = pa.table({"image": [{"bytes": file.read_bytes(), "path": file.name} for file in files]})
    parquet.write_table(table, tmp_path / "images.parquet", row_group_size=4)
    found = {}
    for place in (tmp_path / "list.txt", str(photos / "red" / "00[0-5].jpg"), tmp_path / "images.parquet"):
        predict(run_dir, place, tmp_path / "out.parquet", overwrite=True)
        found[str(place)] = parquet.read_table(tmp_path / "out.parquet", columns=["score"]).to_pydict()
    first = next(iter(found.values()))
    assert len(first["score"]) == 6 and all(scores == first for scores in found.values())
    assert find_images(tmp_path / "images.parquet").name(5) == f"{tmp_path / 'images.parquet'}: row 5"


PREDICT = """
import sys
from raytricks.use import parts
parts.PART_ROWS = 8
from raytricks.use import predicting
if len(sys.argv) > 4:
    write = parts.Parts.write
    import os, signal
    def slow(self, part, content, count=[0]):
        write(self, part, content)
        count[0] += 1
        if count[0] == int(sys.argv[4]):
            os.kill(os.getpid(), getattr(signal, sys.argv[5]))
    parts.Parts.write = slow
print(predicting.predict(sys.argv[1], sys.argv[2], sys.argv[3]).num_answered)
"""


def test_predict_killed_twice_goes_on_and_loses_no_row(run_dir, photos, tmp_path):
    whole, killed = tmp_path / "whole.parquet", tmp_path / "killed.parquet"
    command = [sys.executable, "-c", PREDICT, str(run_dir), str(photos)]
    subprocess.run([*command, str(whole)], check=True, capture_output=True, timeout=120)
    for name, code in (("SIGKILL", -signal.SIGKILL), ("SIGKILL", -signal.SIGKILL), ("SIGTERM", 1)):
        ended = subprocess.run([*command, str(killed), "3", name], capture_output=True, text=True, timeout=120)
        assert ended.returncode == code and not killed.exists()
    assert "InterruptedRun: stopped: 72 of 120 images are answered; the same command goes on" in ended.stderr
    last = subprocess.run([*command, str(killed)], check=True, capture_output=True, text=True, timeout=120)
    assert int(last.stdout) == 48
    assert parquet.read_table(killed).equals(parquet.read_table(whole))
    assert not (tmp_path / "killed.parquet.parts").exists()


def test_predict_stopped_within_a_part_ends_at_the_next_image(run_dir, photos, tmp_path):
    script = """
import os, signal, sys
from raytricks.inference import rows
from raytricks.use import predicting
table, count = rows.RowMaker._table, [0]
def stopping(self, batch):
    os.kill(os.getpid(), signal.SIGINT)
    count[0] += len(batch)
    print(count[0], flush=True)
    return table(self, batch)
rows.RowMaker._table = stopping
predicting.predict(*sys.argv[1:], batch_size=4)
"""
    out = tmp_path / "out.csv"
    command = [sys.executable, "-c", script, str(run_dir), str(photos), str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "InterruptedRun: stopped: 0 of 120 images are answered" in ended.stderr
    assert ended.stdout.split() == ["4"] and not out.exists()


def test_predict_refuses_to_go_on_with_other_settings(run_dir, photos, tmp_path, small_parts, monkeypatch):
    out = tmp_path / "out.csv"
    monkeypatch.setattr(parts.Parts, "finish", lambda self: None)
    predict(run_dir, photos, out)
    for options, what in (({"top": 1}, "settings"), ({"weights": "average"}, "model")):
        with pytest.raises(ConfigError, match=f"the begun prediction of another {what}; remove it"):
            predict(run_dir, photos, out, **options)
    with pytest.raises(ConfigError, match="another images and num_rows"):
        predict(run_dir, photos / "red", out)


def test_predict_refuses_before_any_work(run_dir, photos, tmp_path):
    (tmp_path / "there.csv").write_text("mine")
    for out, fault in (
        ("there.csv", "is there already"),
        ("out.xlsx", "must end with .parquet, .csv, .jsonl"),
        ("no/out.csv", "is no directory"),
    ):
        with pytest.raises(ConfigError, match=fault):
            predict(run_dir, photos, tmp_path / out)
    with pytest.raises(DataError, match="no image files there"):
        predict(run_dir, tmp_path, tmp_path / "out.csv")
    with pytest.raises(ConfigError, match="both set the threshold"):
        predict(run_dir, photos, tmp_path / "out.csv", threshold=0.5, precision=0.9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.csv"]


def test_predict_is_unsure_below_the_threshold(run_dir, photos, tmp_path):
    result = predict(run_dir, photos, tmp_path / "out.parquet", threshold=0.9)
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert all((row["label"] == "unsure") == (row["score"] < 0.9) for row in rows)
    assert result.num_unsure == sum(row["label"] == "unsure" for row in rows)


def test_predict_promises_a_precision_only_with_enough_evidence(run_dir, photos, tmp_path):
    with pytest.raises(DataError, match=r"--precision 0.99: no threshold keeps it .* 30 images .* 299 sure answers"):
        predict(run_dir, photos, tmp_path / "out.csv", precision=0.99)
    with pytest.raises(ConfigError, match="neither trained nor chose"):
        predict(run_dir, photos, tmp_path / "out.csv", precision=0.9, weights="best")
    result = predict(run_dir, photos, tmp_path / "out.csv", precision=0.9, precision_data=str(photos))
    assert result.guarantee.lower_bound >= 0.9 and result.guarantee.num_accepted >= 29
    assert "with 95% confidence" in "\n".join(predicting.result_lines(result))


@pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning")  # of Ray Data's own context
@pytest.mark.ray
def test_predict_on_two_ray_workers_gives_the_same_rows(run_dir, photos, tmp_path, small_parts):
    folder = tmp_path / "mixed"
    folder.mkdir()
    bad_files(folder, photos / "red" / "000.jpg")
    for file in (photos / "blue").iterdir():
        os.link(file, folder / file.name)
    predict(run_dir, folder, tmp_path / "one.parquet")
    predict(run_dir, folder, tmp_path / "two.parquet", workers=2)
    assert parquet.read_table(tmp_path / "one.parquet").equals(parquet.read_table(tmp_path / "two.parquet"))
