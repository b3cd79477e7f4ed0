"""`evaluate`: what training logged, to the digit; classes by name; two models."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import classification_report, confusion_matrix
from use_photos import CLASSES

from raytricks.errors import ConfigError, DataError
from raytricks.report.evaluation_lines import evaluation_csv, evaluation_lines
from raytricks.use.evaluating import evaluate


def last_epoch(run_dir) -> dict:
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "epoch"][-1]


def test_evaluate_repeats_what_training_logged_to_the_digit(run_dir):
    logged = last_epoch(run_dir)
    for weights, prefix in (("last", "val"), ("average", "val_ema")):
        found = evaluate(run_dir, weights=weights)
        assert found.figures.top1.value == logged[f"{prefix}_top1"]
        assert found.figures.cross_entropy.value == logged[f"{prefix}_cross_entropy"]
        assert found.figures.num_images == logged["val_num_images"] == 30


@pytest.mark.ray
def test_evaluate_on_workers_gives_the_same_figures(run_dir, photos):
    logged = last_epoch(run_dir)
    for workers in (1, 2):
        found = evaluate(run_dir, workers=workers)
        assert found.figures.top1.value == logged["val_top1"]
        assert found.figures.cross_entropy.value == logged["val_cross_entropy"]


def test_evaluate_figures_by_class_are_scikit_learns(run_dir, photos):
    found = evaluate(run_dir, photos)
    predicted = found.logits.argmax(axis=1)
    expected = classification_report(found.labels, predicted, output_dict=True, zero_division=0)
    for number, row in enumerate(found.figures.classes):
        theirs = expected[str(number)]
        assert row.support == theirs["support"]
        for ours, name in ((row.precision, "precision"), (row.recall, "recall"), (row.f1, "f1-score")):
            assert ours.value == pytest.approx(theirs[name], abs=1e-12)
    assert np.array_equal(found.figures.confusion, confusion_matrix(found.labels, predicted))
    assert found.figures.macro_f1.value == pytest.approx(expected["macro avg"]["f1-score"])


def test_evaluate_maps_classes_by_name(run_dir, photos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos / "red", data / "red")
    shutil.copytree(photos / "green", data / "violet")
    found = evaluate(run_dir, data)
    assert found.figures.num_images == 40 and set(found.labels) == {CLASSES.index("red")}
    assert any("40 images are left out" in note and "violet" in note for note in found.notes)
    assert any("no image of blue, green" in note for note in found.notes)
    assert "undefined" in "\n".join(evaluation_lines(found))
    shutil.move(data / "red", data / "crimson")
    with pytest.raises(DataError, match="no image is of a class that the model knows"):
        evaluate(run_dir, data)


def test_evaluate_compares_two_models_on_the_same_images(run_dir, photos):
    found = evaluate(run_dir, photos, against=run_dir / "model_ema.safetensors")
    pair = found.comparison
    assert pair is not None and pair.num_images == 120
    assert pair.accuracy_a == found.figures.top1.value
    assert f"McNemar's exact p = {pair.p_value:.3g}" in "\n".join(evaluation_lines(found))


def test_evaluate_options_change_what_is_seen(run_dir, photos):
    plain, mirrored = evaluate(run_dir, photos), evaluate(run_dir, photos, flip=True)
    small = evaluate(run_dir, photos, eval_size=24)
    assert not np.array_equal(plain.logits, mirrored.logits) and not np.array_equal(plain.logits, small.logits)
    with pytest.raises(ConfigError, match="eval_size must be from 1 to 4096"):
        evaluate(run_dir, photos, eval_size=0)


def test_evaluate_writes_json_and_a_table(run_dir, photos):
    found = evaluate(run_dir, photos)
    told = json.loads(json.dumps(found.as_dict()))
    assert told["top1"]["low"] <= told["top1"]["value"] <= told["top1"]["high"]
    assert told["calibrated"]["temperature"] == found.calibrated.temperature
    rows = list(csv.DictReader(io.StringIO(evaluation_csv(found))))
    assert [row["class"] for row in rows] == list(CLASSES) and {row["images"] for row in rows} == {"40"}


def test_evaluate_refuses_a_run_whose_data_has_changed(run_dir, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    config = (copy / "config.yaml").read_text()
    other = tmp_path / "other"
    shutil.copytree(next(iter(run_dir.parents[1].glob("data"))), other)
    next(iter((other / "red").iterdir())).unlink()
    (copy / "config.yaml").write_text(config.replace(str(run_dir.parents[1] / "data"), str(other)))
    with pytest.raises(DataError):
        evaluate(copy)


def test_evaluate_of_a_file_without_a_run_asks_for_data(run_dir, tmp_path):
    alone = tmp_path / "model.safetensors"
    shutil.copy(run_dir / "model.safetensors", alone)
    with pytest.raises(ConfigError, match="no data: the model lies in no run"):
        evaluate(alone)
