"""What the check of an exported file must not let through, and what a failed export must not leave or replace."""

from pathlib import Path

import pytest
from test_export_parity import trained_model

from raytricks.errors import ConfigError, RaytricksError
from raytricks.export import graph, onnx_file
from raytricks.export.exporting import export_model
from raytricks.inference.trained_model import TrainedModel


@pytest.fixture(scope="module")
def small() -> TrainedModel:
    return trained_model({"name": "resnet8", "width": 8}, 3, 20, "random_resized_crop")


@pytest.mark.parametrize("kind", ["least probable", "another order", "other values"])
def test_export_whose_top_classes_are_wrong_is_refused(small, tmp_path, monkeypatch, kind):
    def forward(self, images):
        logits, probabilities, classes, values, inputs = plain(self, images)
        if kind == "least probable":
            top = probabilities.topk(self.top, dim=1, largest=False)
            return logits, probabilities, top.indices, top.values, inputs
        return logits, probabilities, classes.flip(1) if kind == "another order" else classes, values / 2, inputs

    plain = graph.ServedModel.forward
    monkeypatch.setattr(graph.ServedModel, "forward", forward)
    with pytest.raises(RaytricksError, match="model.onnx: .*its top_classes are not the most probable"):
        export_model(small, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", [0, 1])
def test_export_without_an_output_that_is_compared_is_refused(small, tmp_path, monkeypatch, place):
    names = list(onnx_file.OUTPUTS)
    names[place] = "misnamed"
    monkeypatch.setattr(onnx_file, "OUTPUTS", tuple(names))
    with pytest.raises(RaytricksError, match=f"has no output named {graph.OUTPUTS[place]}"):
        export_model(small, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_export_does_not_replace_a_sidecar_unasked(small, tmp_path):
    (tmp_path / "model.onnx.json").write_text("mine")
    with pytest.raises(ConfigError, match=r"model\.onnx\.json is there already"):
        export_model(small, tmp_path / "model.onnx", bare=True)
    assert (tmp_path / "model.onnx.json").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_export_to_a_full_disk_is_one_line_and_leaves_nothing(small, tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RaytricksError, match="cannot be written .No space left on device.; nothing was kept"):
        export_model(small, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
