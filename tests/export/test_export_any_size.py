"""A file that resizes inside gives our pixels within two levels, whatever the size; another resize is refused."""

import numpy as np
import pytest
from test_export_parity import NETS, squares_for, trained_model
from torch.nn.functional import interpolate

from raytricks.errors import ConfigError, RaytricksError
from raytricks.export import any_size
from raytricks.export.any_size import AnySizeModel, adversarial_pictures
from raytricks.export.exporting import export_model
from raytricks.inference.trained_model import TrainedModel


@pytest.fixture(scope="module")
def small() -> TrainedModel:
    return trained_model({"name": "resnet8", "width": 8}, 3, 20, "random_resized_crop")


@pytest.mark.parametrize("name", ["ours, gray", "small", "timm, convolutions"])
def test_export_of_any_size_gives_our_pixels_within_two_levels(name, small, tmp_path, record_property):
    trained = small if name == "small" else trained_model(*NETS[name])
    parity = export_model(trained, tmp_path / "model.onnx", any_size=True, squares=squares_for(trained)).parity
    record_property(f"any size, {name}", str(parity))
    assert parity.pixels <= 2 and parity.mean_pixels <= 0.02 and parity.logits <= 1e-4
    assert parity.num_images > 150
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_export_of_any_size_to_torch(small, tmp_path):
    parity = export_model(small, tmp_path / "model.pt2", format="torch-export", any_size=True).parity
    assert parity.pixels <= 2 and parity.mean_pixels <= 0.02 and parity.logits <= 1e-4


def test_adversarial_pictures_have_odd_sides_strips_and_real_content(small):
    side = small.preprocess.side
    sizes = [values.shape[1:3] for values in adversarial_pictures(side, 3, squares_for(small)).values()]
    assert (side, 4 * side) in sizes and (4 * side, side) in sizes and (side, side) in sizes
    assert any(height % 2 and height > side for height, _ in sizes) and any(min(size) < side for size in sizes)
    assert len(sizes) == len(set(sizes)) == 8


def mutant(kind):
    class Mutant(AnySizeModel):
        def normalized(self, images):
            if kind == "bgr":
                return super().normalized(images.flip(3))
            if kind == "crop off by one":
                return super().normalized(images.roll(1, dims=2))
            result = super().normalized(images)
            return result * 255 if kind == "no /255" else (result * self.std + self.mean - self.std) / self.mean

    return Mutant


@pytest.mark.parametrize("kind", ["bgr", "crop off by one", "no /255", "swapped"])
def test_export_of_a_mutant_of_any_size_is_refused(small, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("raytricks.export.exporting.AnySizeModel", mutant(kind))
    with pytest.raises(RaytricksError, match="its pixels differ by .*; nothing was kept"):
        export_model(small, tmp_path / "model.onnx", any_size=True)
    assert not list(tmp_path.iterdir())


def test_export_without_antialias_is_refused(small, tmp_path, monkeypatch):
    def aliased(images, size, mode, antialias):
        return interpolate(images, size, mode=mode, antialias=False)

    monkeypatch.setattr(any_size, "interpolate", aliased)
    pictures = stretched(small)
    monkeypatch.setattr("raytricks.export.exporting.adversarial_pictures", lambda *_: pictures)
    with pytest.raises(RaytricksError, match="its pixels differ by .*; nothing was kept"):
        export_model(small, tmp_path / "model.onnx", any_size=True)
    assert not list(tmp_path.iterdir())


def stretched(trained: TrainedModel) -> dict[str, np.ndarray]:
    """Pictures that a resize without antialias shows itself on; made without the function that is replaced."""
    squares = squares_for(trained)
    return {f"{factor}": np.kron(squares, np.ones((1, factor, factor + 1, 1), np.uint8)) for factor in (2, 3)}


def test_export_of_any_size_and_bare_contradict_each_other(small, tmp_path):
    with pytest.raises(ConfigError, match="leave one of them out"):
        export_model(small, tmp_path / "model.onnx", any_size=True, bare=True)
