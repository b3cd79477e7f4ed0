"""Parquet files of encoded images, in the forms that Hugging Face's datasets have."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
import pyarrow as pa
from pyarrow import parquet
import pytest

import raytricks
from raytricks.config.schema import DataConfig
from raytricks.data.loading import detect_source, find_data, find_splits
from raytricks.data.prepared import prepare_data
from raytricks.errors import DataError


def png(index: int, side: int) -> bytes:
    pixels = np.random.default_rng(index).integers(0, 80, (side, side + index % 3, 3)).astype(np.uint8)
    pixels[..., index % 3] += 120
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(
    path: Path, count: int, *, as_struct: bool, labels: list, features: dict | None = None, side: int = 10
) -> None:
    content = [png(index, side) for index in range(count)]
    images: list = [{"bytes": one, "path": f"{i}.png"} for i, one in enumerate(content)] if as_struct else content
    table = pa.table({"image": images, "label": labels})
    if features is not None:
        info = json.dumps({"info": {"features": {"label": features}}})
        table = table.replace_schema_metadata({"huggingface": info})
    parquet.write_table(table, path)


NAMES = {"names": ["red", "green", "blue"], "_type": "ClassLabel"}


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_directory_has_its_splits_names_and_pixels(tmp_path, as_struct):
    for name, count in (("train-00000-of-00001", 30), ("validation-00000-of-00001", 6), ("test-0", 3)):
        labels = [i % 3 for i in range(count)]
        write(tmp_path / f"{name}.parquet", count, as_struct=as_struct, labels=labels, features=NAMES)
    assert detect_source(str(tmp_path)) == "parquet"
    found = find_splits(DataConfig(path=str(tmp_path)))
    assert found.class_names == ("red", "green", "blue")
    assert (len(found.train), len(found.evaluation or ()), len(found.test or ())) == (30, 6, 3)
    config = DataConfig(path=str(tmp_path), image_size=10, channels=3, augmentation="none", shift_pixels=0)
    data = prepare_data(find_data(config, 0), config)
    read = data.train.images.read(np.arange(30))
    brightest = read.pixels.float().mean(dim=(2, 3)).argmax(dim=1).numpy()
    assert (brightest == data.train.labels).all()  # every image is the one of its label


def test_parquet_file_with_text_labels_is_trained_on(tmp_path):
    labels = [("red", "green", "blue")[i % 3] for i in range(90)]
    write(tmp_path / "colours.parquet", 90, as_struct=False, labels=labels)
    assert detect_source(str(tmp_path / "colours.parquet")) == "parquet"
    settings = {"data.path": str(tmp_path / "colours.parquet"), "data.image_size": 8, "model.name": "resnet8"}
    settings |= {"model.width": 8, "recipe.epochs": 2, "recipe.global_batch_size": 16, "tricks.warmup.epochs": 0.2}
    result = raytricks.train(None, settings | {"output_dir": str(tmp_path / "runs")})
    assert result is not None and result.last["val_num_images"] == 18  # a fifth is held out
    assert raytricks.load(result.run_dir).class_names == ("blue", "green", "red")


def test_parquet_holds_out_whole_groups_of_a_column(tmp_path):
    content = {"image": [png(i, 8) for i in range(40)], "label": [i % 2 for i in range(40)]}
    parquet.write_table(pa.table(content | {"patient": [i // 4 for i in range(40)]}), tmp_path / "x.parquet")
    found = find_data(DataConfig(path=str(tmp_path / "x.parquet"), group="patient"), 0)
    assert found.evaluation.origin == "20% held out of train, 2 of 10 groups by patient"
    assert not set(found.train.groups or ()) & set(found.evaluation.groups or ())
    with pytest.raises(DataError, match="data.group is 'doctor', and x has no paths or columns to group"):
        find_data(DataConfig(path=str(tmp_path / "x.parquet"), group="doctor"), 0)


def test_parquet_says_what_is_wrong_with_it(tmp_path):
    def refused(match: str) -> None:
        with pytest.raises(DataError, match=match):
            find_splits(DataConfig(source="parquet", path=str(tmp_path)))

    write(tmp_path / "test-0.parquet", 3, as_struct=True, labels=[0, 1, 2])
    refused("holds no Parquet file of training images")
    write(tmp_path / "train-0.parquet", 3, as_struct=True, labels=[0, None, 2])
    refused("row 1 has no label")
    write(tmp_path / "train-0.parquet", 4, as_struct=True, labels=[0, 1, 0, 1])
    refused("test has the label 2, which train has not")
    parquet.write_table(pa.table({"image": [b"no image", b""], "label": [0, 1]}), tmp_path / "train-0.parquet")
    (tmp_path / "test-0.parquet").unlink()
    refused("train: row 0")
    parquet.write_table(pa.table({"picture": [b""], "kind": [0]}), tmp_path / "train-0.parquet")
    refused("has the columns picture, kind; one of image, img")
