"""The finished model: read back as it was, or refused in one line."""

import json
import os
from pathlib import Path
import pickle

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file
import torch

import raytricks
from raytricks.errors import CheckpointError
from raytricks.inference.model_file import load_model
from raytricks.training.loop import run_epochs
from raytricks.training.run_files import MODEL_FILE
from raytricks.training.worker import Worker


@pytest.fixture
def trained(make_job):
    """A finished job."""
    job = make_job(recipe__epochs=2)
    list(run_epochs(job, Worker()))
    return job


def description_in(path) -> dict:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["raytricks"])


def rewrite(path, description) -> None:
    """Change what a file says of itself, not its weights."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, {"raytricks": json.dumps(description)})


def test_model_file_round_trip(trained):
    model = load_model(trained.run_dir / MODEL_FILE)
    assert model.class_names == tuple("0123456789")
    assert (model.channels, model.preprocess.transform) == (1, trained.data.transform)
    assert not model.model.training
    images = trained.data.evaluation.images.pixels
    labels = torch.from_numpy(trained.data.evaluation.labels)
    inputs = model.preprocess.transform.normalize(torch.from_numpy(images))
    with torch.no_grad():
        logits = model.model(inputs)
    correct = float((logits.argmax(1) == labels).double().mean())
    assert correct == pytest.approx(model.metrics["val_top1"])
    assert float(torch.nn.functional.cross_entropy(logits, labels)) == pytest.approx(
        model.metrics["val_cross_entropy"], rel=1e-4
    )


def test_model_file_is_found_by_its_run_directory(trained):
    by_directory = raytricks.load(str(trained.run_dir))
    by_file = raytricks.load(trained.run_dir / MODEL_FILE)
    for name, value in by_file.model.state_dict().items():
        assert torch.equal(by_directory.model.state_dict()[name], value)


TIED = """
from torch import nn


class Tied(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.encode = nn.Linear(64, 32, bias=False)
        self.again = nn.Linear(64, 32, bias=False)
        self.again.weight = self.encode.weight
        self.head = nn.Linear(32, num_classes)

    def forward(self, images):
        flat = images.flatten(1)
        return self.head((self.encode(flat) + self.again(flat.flip(1))).relu())


def tied(num_classes):
    return Tied(num_classes)
"""


def test_model_file_of_tied_weights_round_trip(make_job, tmp_path):
    (tmp_path / "mynets.py").write_text(TIED)
    name = f"{tmp_path / 'mynets.py'}:tied"
    job = make_job(model__name=name, model__width=None, tricks__ema__decay=0.9)
    last = list(run_epochs(job, Worker()))[-1]
    read = load_model(job.run_dir, trust_code=True)
    assert read.model.encode.weight is read.model.again.weight
    inputs = read.preprocess.transform.normalize(torch.from_numpy(job.data.evaluation.images.pixels))
    labels = torch.from_numpy(job.data.evaluation.labels)
    with torch.no_grad():
        assert float((read.model(inputs).argmax(1) == labels).double().mean()) == pytest.approx(last["val_top1"])
    assert load_model(job.run_dir / "model_ema.safetensors", trust_code=True).model.head.weight.isfinite().all()


def test_model_file_is_written_whole(trained):
    assert not list(trained.run_dir.glob(".tmp-*"))


@pytest.mark.parametrize("kind", ["emptied", "truncated", "text", "pickle", "torch", "foreign"])
def test_model_file_that_is_none_is_refused(trained, tmp_path, kind):
    path, canary = trained.run_dir / MODEL_FILE, tmp_path / "canary"

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    whole = path.read_bytes()
    if kind == "torch":
        torch.save({"weight": torch.zeros(3)}, path)
    elif kind == "foreign":
        save_file({"weight": torch.zeros(3)}, path)
    else:
        contents = {"emptied": b"", "truncated": whole[:-9], "text": b"<html>", "pickle": pickle.dumps(Bomb())}
        path.write_bytes(contents[kind])
    with pytest.raises(CheckpointError, match="model.safetensors: not a") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


def test_model_file_missing_says_what_has_one(tmp_path):
    with pytest.raises(CheckpointError, match="no such model file; a finished run has a model.safetensors"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": ["a", "b"]},
        {"class_names": None},
        {"transform": {}},
        {"channels": "three"},
        {"channels": 3},
        {"model": {"name": "resnet5d"}},
        {"model": {"name": "resnet8", "width": 16}},
        {"model": []},
    ],
)
def test_model_file_whose_description_is_wrong_is_refused(trained, change):
    path = trained.run_dir / MODEL_FILE
    rewrite(path, description_in(path) | change)
    with pytest.raises(CheckpointError, match="do not belong together") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_model_file_metadata_is_plain_json(trained):
    described = description_in(trained.run_dir / MODEL_FILE)
    assert described["format_version"] == "2.0"
    assert described["model"]["name"] == "resnet8"
    assert described["metrics"]["val_num_images"] == 50
    assert described["calibration"]["num_images"] == 50


def test_model_file_of_which_a_weight_was_changed_is_refused(trained):
    path = trained.run_dir / MODEL_FILE
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError, match="its content differs from what was written"):
        load_model(path)


def test_model_file_of_a_newer_format_names_what_reads_it(trained):
    path = trained.run_dir / MODEL_FILE
    rewrite(path, description_in(path) | {"format_version": "3.0", "raytricks_version": "9.1"})
    with pytest.raises(CheckpointError, match=r"format 3.0 is newer .* raytricks 9.1: pip install -U raytricks"):
        load_model(path)


def test_model_file_of_a_newer_minor_format_is_read(trained):
    path = trained.run_dir / MODEL_FILE
    described = description_in(path) | {"format_version": "2.9", "mood": "good"}
    described["transform"]["sharpness"] = 3
    del described["digest"]
    rewrite(path, described)
    assert load_model(path).class_names == tuple("0123456789")


def test_model_file_of_version_1_is_read():
    read = load_model(Path(__file__).parents[1] / "inference/files/model_v1.safetensors")
    assert (read.class_names, read.channels, read.temperature) == (tuple("0123456789"), 1, 1.0)
    assert read.metrics["val_num_images"] == 359
    prediction = read.predict(np.zeros((8, 8), np.uint8))
    assert prediction.probabilities.sum() == pytest.approx(1)


def test_model_file_with_an_enormous_header_is_refused_unread(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="its header would take"):
        load_model(path)
