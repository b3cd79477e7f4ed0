"""Load a run, a checkpoint or a file; every entrance of a picture gives the same model input."""

import io
import json

import numpy as np
from PIL import Image, ImageOps
import pytest
import torch

import raytricks
from raytricks.data.augmentation import Transform
from raytricks.data.batches import evaluation_reader
from raytricks.data.decoding_store import FileStore
from raytricks.data.evaluation_input import EvaluationInput
from raytricks.errors import CheckpointError, ConfigError, DataError
from raytricks.training.checkpoint import newest_path


def opened(path) -> Image.Image:
    """A picture whose pixels are not decoded yet."""
    return Image.open(io.BytesIO(path.read_bytes()))


def pictures_of(path) -> dict:
    """The same picture in every form."""
    loaded = opened(path)
    loaded.load()
    array = np.asarray(loaded)
    return {
        "path": path,
        "text": str(path),
        "bytes": path.read_bytes(),
        "PIL, just opened": opened(path),
        "PIL, loaded": loaded,
        "array": array,
        "uint8 tensor": torch.from_numpy(array.transpose(2, 0, 1).copy()),
        "float tensor": torch.from_numpy(array.transpose(2, 0, 1) / np.float32(255)),
    }


@pytest.mark.parametrize("kind", ["none", "random_resized_crop"])
def test_every_entrance_of_a_picture_gives_the_input_that_evaluation_reads(photos, kind):
    transform = Transform(kind=kind, image_size=28, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.2))
    preprocess = EvaluationInput(transform, 3)
    path = photos / "red" / "000.jpg"
    store = FileStore([str(path)], preprocess.spec())
    expected = transform.evaluate(evaluation_reader(store, transform)(np.array([0])), torch.device("cpu"))[0]
    for name, picture in pictures_of(path).items():
        assert torch.equal(preprocess(picture), expected), name


@pytest.mark.parametrize("kind", ["none", "random_resized_crop"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_obeyed_at_every_entrance(tmp_path, orientation, kind):
    row, column = np.indices((32, 45))
    image = Image.fromarray(np.stack([8 * row, 5 * column, row + column], axis=2).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    image.save(path, exif=exif)
    preprocess = EvaluationInput(Transform(kind=kind, image_size=28, mean=(0.5,) * 3, std=(0.2,) * 3), 3)
    loaded = opened(path)
    loaded.load()
    expected = preprocess(path)
    for picture in (path.read_bytes(), opened(path), loaded):
        assert torch.equal(preprocess(picture), expected)
    seen = preprocess(np.asarray(ImageOps.exif_transpose(loaded)))
    assert float((seen - expected).abs().mean()) < 0.35  # a centre between two pixels may be the one or the other
    assert orientation == 1 or float((preprocess(np.asarray(image)) - expected).abs().mean()) > 0.35


def test_load_takes_last_best_average_and_kept_epochs(run_dir):
    last = raytricks.load(run_dir)
    of = {name: raytricks.load(run_dir, weights=name) for name in ("last", "best", "average", 3, 2)}
    weights = {name: next(iter(model.model.parameters())).detach() for name, model in of.items()}
    assert torch.equal(weights["last"], weights[3]) and not torch.equal(weights["last"], weights[2])
    assert not torch.equal(weights["last"], weights["average"])
    newest = newest_path(run_dir / "checkpoints")
    from_checkpoint = raytricks.load(newest)
    assert torch.equal(next(iter(from_checkpoint.model.parameters())), weights["last"])
    averaged = raytricks.load(newest, weights="average")
    assert torch.equal(next(iter(averaged.model.parameters())), weights["average"])
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    epochs = [record for record in records if record["kind"] == "epoch"]
    assert of["best"].metrics["val_top1"] == max(record["val_top1"] for record in epochs)
    assert last.metrics["val_top1"] == epochs[-1]["val_top1"]
    with pytest.raises(CheckpointError, match="epoch 1 are not kept; kept: 2, 3"):
        raytricks.load(run_dir, weights=1)
    with pytest.raises(ConfigError, match="weights must be last, best"):
        raytricks.load(run_dir, weights="first")


def test_load_of_an_unfinished_run_takes_its_newest_checkpoint(run_dir, tmp_path):
    unfinished = tmp_path / "unfinished"
    (unfinished / "checkpoints").mkdir(parents=True)
    (unfinished / "model.json").write_bytes((run_dir / "model.json").read_bytes())
    newest = newest_path(run_dir / "checkpoints")
    newest_copy = unfinished / "checkpoints" / newest.name
    newest_copy.mkdir()
    for file in newest.iterdir():
        (newest_copy / file.name).write_bytes(file.read_bytes())
    one, other = raytricks.load(unfinished), raytricks.load(run_dir)
    picture = np.zeros((32, 32, 3), np.uint8)
    assert np.array_equal(one.predict(picture).logits, other.predict(picture).logits)


def test_predict_takes_one_or_many(run_dir, photos):
    model = raytricks.load(run_dir)
    folder = photos / "green"
    many = model.predict(folder)
    assert [p.label for p in many] == ["green"] * 40
    assert model.predict(folder / "000.jpg").label == "green"
    files = sorted(folder.iterdir())
    again = model.predict([opened(file) for file in files])
    assert all(np.array_equal(a.logits, b.logits) for a, b in zip(many, again, strict=True))
    arrays = np.stack([np.asarray(opened(file)) for file in files])
    assert [p.label for p in model.predict(arrays)] == ["green"] * 40
    one = many[0]
    assert one.probabilities.sum() == pytest.approx(1) and one.score == max(one.probabilities)
    assert one.top(9) == sorted(zip(model.class_names, one.probabilities, strict=True), key=lambda pair: -pair[1])
    assert str(one).startswith("green (")
    assert model.transform is model.preprocess and model.transform(arrays[0]).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("picture", "fault"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"must be \(H, W\), \(H, W, 1\) or \(H, W, 3\), got \(3, 8, 8\)"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"must be \(1, H, W\) or \(3, H, W\), got \(8, 8, 3\)"),
        (torch.full((3, 8, 8), 255.0), "floats must lie in 0..1, got 255 to 255"),
        (torch.full((3, 8, 8), float("nan")), "floats must lie in 0..1"),
        (np.zeros((8, 8), np.int64), "must be uint8, or floats in 0..1"),
        (b"no image", "is no image of a supported kind"),
        ("missing.jpg", "missing.jpg: cannot be read"),
        ([object()], "picture 0: must be a path, bytes, a PIL image"),
    ],
)
def test_predict_refuses_what_is_no_picture_in_one_line(run_dir, picture, fault):
    with pytest.raises(DataError, match=fault) as caught:
        raytricks.load(run_dir).predict(picture)
    assert "\n" not in str(caught.value)


def test_gray_and_transparent_pictures_become_what_the_model_takes(run_dir):
    model = raytricks.load(run_dir)
    gray = np.full((20, 20), 90, np.uint8)
    colour = np.repeat(gray[:, :, None], 3, axis=2)
    assert torch.equal(model.preprocess(gray), model.preprocess(colour))
    file = io.BytesIO()
    Image.new("RGBA", (20, 20), (10, 20, 30, 0)).save(file, "PNG")
    assert torch.equal(model.preprocess(file.getvalue()), model.preprocess(np.full((20, 20, 3), 255, np.uint8)))


def test_load_computes_in_the_precision_that_is_asked_for(run_dir):
    model = raytricks.load(run_dir, dtype="bfloat16")
    assert model.execution.precision == "bf16"
    with pytest.raises(ConfigError, match="dtype must be fp32, fp16, bf16"):
        raytricks.load(run_dir, dtype="int8")
    with pytest.raises(ConfigError, match="device must be auto, cpu or cuda"):
        raytricks.load(run_dir, device="abacus")
