"""Reading weights: three formats, and nothing that runs code."""

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file
import torch

from raytricks.errors import ConfigError
from raytricks.models.weight_files import locate_weights, read_weights

TENSORS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.tensor([1.0, -1.0])}


class WritesAFile:
    """A pickle of it would create the file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def assert_holds_tensors(weights):
    assert weights.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(weights.tensors[name], tensor)


def problem_of(path):
    with pytest.raises(ConfigError) as raised:
        read_weights(str(path))
    (problem,) = raised.value.problems
    assert problem.startswith("model.init_from: ")
    assert "\n" not in problem
    return problem


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"state_dict": TENSORS, "epoch": 3},
        {"model": TENSORS, "optimizer": {"lr": 0.1}},
        {f"module.{name}": tensor for name, tensor in TENSORS.items()},
        {"state_dict": {f"module.{name}": tensor for name, tensor in TENSORS.items()}},
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_weight_files_read_state_dicts_and_their_wrappers(tmp_path, content, suffix):
    path = tmp_path / f"weights{suffix}"
    torch.save(content, path)
    weights = read_weights(str(path))
    assert_holds_tensors(weights)
    assert weights.class_names is None


def test_weight_files_read_a_run_and_its_classes(tmp_path):
    metadata = {"format": "raytricks-model-1", "class_names": json.dumps(["cat", "dog"])}
    save_file(TENSORS, tmp_path / "model.safetensors", metadata)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        weights = read_weights(str(path))
        assert_holds_tensors(weights)
        assert weights.class_names == ("cat", "dog")


def test_weight_files_of_others_name_no_classes(tmp_path):
    save_file(TENSORS, tmp_path / "theirs.safetensors", {"format": "pt", "class_names": "?"})
    weights = read_weights(str(tmp_path / "theirs.safetensors"))
    assert_holds_tensors(weights)
    assert weights.class_names is None


@pytest.mark.parametrize("wrap", [lambda bomb: bomb, lambda bomb: {**TENSORS, "bomb": bomb}])
def test_weight_files_never_run_a_pickle(tmp_path, wrap):
    target = tmp_path / "written"
    torch.save(wrap(WritesAFile(target)), tmp_path / "bomb.pth")
    assert "could run code; save it again" in problem_of(tmp_path / "bomb.pth")
    assert not target.exists()
    torch.load(tmp_path / "bomb.pth", weights_only=False)
    assert target.exists()  # the pickle was a live one


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**TENSORS, "epoch": 3}, "holds 1 entries that are no tensors (first epoch)"),
        ([1, 2], "holds no tensors by name but list"),
        ({}, "holds no tensors by name but dict"),
    ],
)
def test_weight_files_refuse_what_is_no_state_dict(tmp_path, content, message):
    torch.save(content, tmp_path / "weights.pth")
    assert message in problem_of(tmp_path / "weights.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 half a zip"])
def test_weight_files_refuse_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    problem_of(tmp_path / name)


def test_weight_files_refuse_half_a_file(tmp_path):
    torch.save(TENSORS, tmp_path / "whole.pth")
    save_file(TENSORS, tmp_path / "whole.safetensors")
    for suffix in (".pth", ".safetensors"):
        content = (tmp_path / f"whole{suffix}").read_bytes()
        (tmp_path / f"half{suffix}").write_bytes(content[: len(content) // 2])
        assert "copy the file again" in problem_of(tmp_path / f"half{suffix}")


def test_weight_files_refuse_a_model_of_ours_without_its_classes(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors", {"format": "raytricks-model-1"})
    assert "cannot be read" in problem_of(tmp_path)


def test_weight_files_are_located_without_being_read(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"not looked at")
    assert locate_weights(str(path)) == path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.pth", "does not exist"),
        ("weights.h5", "must be a run's directory or end in .safetensors, .pth, .pt"),
        ("empty", "has no model.safetensors; a run writes it when it has finished"),
    ],
)
def test_weight_files_refuse_other_paths(tmp_path, name, message):
    (tmp_path / "weights.h5").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=rf"^model.init_from: .*{name} {message}"):
        locate_weights(str(tmp_path / name))


@pytest.mark.parametrize("suffix", [".pth.tar", ".bin", ".ckpt"])
def test_state_dict_is_read_under_the_names_that_others_give_it(tmp_path, suffix):
    wrapped = {f"_orig_mod.module.{name}": tensor for name, tensor in TENSORS.items()}
    torch.save({"model_state_dict": wrapped, "epoch": 3}, tmp_path / f"weights{suffix}")
    assert read_weights(str(tmp_path / f"weights{suffix}")).tensors.keys() == TENSORS.keys()


def test_state_dict_with_numbers_for_names_is_refused(tmp_path):
    torch.save({0: torch.zeros(2), 1: torch.zeros(2)}, tmp_path / "weights.pth")
    assert "holds no tensors by name" in problem_of(tmp_path / "weights.pth")
