"""Exported files answer as the model does, in a fresh process; those that do not are refused and not kept."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import raytricks
from raytricks.config.schema import ModelConfig
from raytricks.data.augmentation import Transform
from raytricks.data.evaluation_input import EvaluationInput
from raytricks.errors import ConfigError, RaytricksError
from raytricks.export import graph
from raytricks.export.exporting import export_model
from raytricks.export.int8 import quantise
from raytricks.inference.trained_model import TrainedModel
from raytricks.models.registry import build_model

NETS = {  # name: config, channels, image size, kind
    "ours, gray": ({"name": "resnet8", "width": 8}, 1, 20, "none"),
    "ours, crops": ({"name": "resnet18"}, 3, 40, "random_resized_crop"),
    "torchvision": ({"name": "torchvision:mobilenet_v3_small"}, 3, 64, "none"),
    "timm, convolutions": ({"name": "timm:efficientnet_lite0"}, 3, 64, "random_resized_crop"),
    "timm, transformer": ({"name": "timm:vit_tiny_patch16_224"}, 3, 64, "none"),
}


def trained_model(config: dict, channels: int, size: int, kind: str, num_classes: int = 7) -> TrainedModel:
    """A net with batch-norm statistics that are not those of a new one."""
    torch.manual_seed(0)
    transform = Transform(kind=kind, image_size=size, mean=(0.5, 0.4, 0.3)[:channels], std=(0.2, 0.25, 0.3)[:channels])
    model = build_model(ModelConfig(**config), num_classes=num_classes, in_channels=channels, image_size=size)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    model.train()(torch.randn(8, channels, size, size))
    names = tuple(f"class {number}" for number in range(num_classes))
    return TrainedModel(model.eval(), names, EvaluationInput(transform, channels), {}, {"temperature": 1.7})


def squares_for(trained: TrainedModel, count: int = 12) -> np.ndarray:
    side, rng = trained.preprocess.side, np.random.default_rng(0)
    return rng.integers(0, 256, (count, side, side, trained.channels), dtype=np.uint8)


@pytest.fixture(scope="module")
def small() -> TrainedModel:
    return trained_model({"name": "resnet8", "width": 8}, 3, 20, "random_resized_crop")


@pytest.mark.parametrize("name", NETS)
def test_export_to_onnx_answers_as_the_model_does(name, tmp_path):
    trained = trained_model(*NETS[name])
    result = export_model(trained, tmp_path / "model.onnx", squares=squares_for(trained))
    assert result.parity.pixels <= 1e-3 and result.parity.logits <= 1e-4 and result.parity.num_flips == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_export_to_onnx_tells_what_it_needs_and_runs_without_us(small, tmp_path):
    export_model(small, tmp_path / "model.onnx")
    script = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
told = session.get_modelmeta().custom_metadata_map
side = int(told["stored_side"])
for count in (1, 3):
    out = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"images": np.full((count, side, side, 3), 99, np.uint8)})))
    assert out["probabilities"].shape == (count, 7) and abs(out["probabilities"].sum(1) - 1).max() < 1e-5
    assert out["top_classes"].shape == (count, 5) and (out["top_classes"][:, 0] == out["logits"].argmax(1)).all()
print(json.loads(told["class_names"])[3], "raytricks" in sys.modules)
"""  # noqa: E501
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path / "model.onnx")], capture_output=True, text=True)
    assert ended.stdout.split("\n")[0] == "class 3 False", ended.stderr


def test_export_to_torch_answers_as_the_model_does(small, tmp_path):
    result = export_model(small, tmp_path / "model.pt2", format="torch-export", squares=squares_for(small))
    assert result.parity.pixels <= 1e-3 and result.parity.logits <= 1e-4


def test_export_of_the_net_alone_has_its_preprocessing_beside_it(small, tmp_path):
    result = export_model(small, tmp_path / "model.onnx", bare=True)
    told = json.loads(result.sidecar.read_text())
    assert told["class_names"][0] == "class 0" and told["image_size"] == 20 and told["stored_side"] == 23
    assert result.parity.pixels is None and result.parity.probabilities is None


def bgr(self, images):
    return plain(self, images.flip(3))


def without_255(self, images):
    return plain(self, images) * 255


def crop_off_by_one(self, images):
    return plain(self, images.roll(1, dims=2))


def swapped(self, images):
    a, b = self.margin, self.margin + self.image_size
    return (images.permute(0, 3, 1, 2)[:, :, a:b, a:b].float() - self.std) / self.mean


def blurred(self, images):
    return nn.functional.avg_pool2d(plain(self, images), 3, 1, 1)


plain = graph.ServedModel.normalized


@pytest.mark.parametrize(
    ("mutant", "suffix"),
    [(mutant, "onnx") for mutant in (bgr, without_255, crop_off_by_one, swapped, blurred)] + [(crop_off_by_one, "pt2")],
)
def test_export_of_a_mutant_is_refused_and_not_kept(small, tmp_path, monkeypatch, mutant, suffix):
    monkeypatch.setattr(graph.ServedModel, "normalized", mutant)
    kind = "onnx" if suffix == "onnx" else "torch-export"
    with pytest.raises(RaytricksError, match="its pixels differ by .*; nothing was kept"):
        export_model(small, tmp_path / f"model.{suffix}", format=kind, squares=squares_for(small))
    assert not list(tmp_path.iterdir())


def test_export_of_other_weights_is_refused(small, tmp_path, monkeypatch):
    def tampered(trained):
        net = copied(trained)
        next(net.parameters()).data.mul_(1.01)
        return net

    copied = graph.fp32_copy
    monkeypatch.setattr(graph, "fp32_copy", tampered)
    with pytest.raises(RaytricksError, match="its logits differ by"):
        export_model(small, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"format": "coreml"}, "coremltools 9.0 refuses programs of torch 2.9 and newer; export onnx"),
        ({"format": "pickle"}, "--format must be onnx or torch-export, got 'pickle'"),
        ({"format": "torch-export"}, "must end with .pt2"),
    ],
)
def test_export_that_cannot_be_had_is_one_honest_line(small, tmp_path, options, fault):
    with pytest.raises(ConfigError, match=fault) as caught:
        export_model(small, tmp_path / "model.onnx", **options)
    assert "\n" not in str(caught.value)


def test_export_does_not_replace_a_file_unasked(small, tmp_path):
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        export_model(small, tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match="is no directory"):
        export_model(small, tmp_path / "no" / "model.onnx")


def test_export_to_int8_is_smaller_and_says_what_it_costs(tmp_path):
    trained = trained_model({"name": "resnet8", "width": 32}, 3, 20, "none")
    file = export_model(trained, tmp_path / "model.onnx").path
    squares = squares_for(trained, 60)
    labels = np.array([raytricks_label(trained, square) for square in squares])
    found = quantise(file, tmp_path / "model.int8.onnx", squares[:20], squares[20:], labels[20:])
    assert found.num_bytes < 0.4 * found.num_bytes_before
    assert found.comparison.num_images == 40 and found.comparison.accuracy_b == 1
    assert found.comparison.accuracy_a > 0.7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.int8.onnx", "model.onnx"]


def raytricks_label(trained: TrainedModel, square: np.ndarray) -> int:
    prediction = trained.predict(square)
    assert isinstance(prediction, raytricks.Prediction)
    return prediction.index
