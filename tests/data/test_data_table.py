"""Tables of paths and labels as people export them: trained on and packed alike."""

from pathlib import Path
import unicodedata

import numpy as np
from PIL import Image
import pyarrow as pa
from pyarrow import parquet
import pytest

import raytricks
from raytricks.config.schema import DataConfig
from raytricks.data.listing import list_source
from raytricks.data.loading import find_data, find_splits
from raytricks.errors import DataError

CLASSES = ("Blatt", "Blüte", "Stängel")
ROWS = [(f"images/{k}_{i}.png", name) for k, name in enumerate(CLASSES) for i in range(8)]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images of three brightnesses, whose names begin with the number of their class."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for path, _ in ROWS:
        pixels = rng.integers(0, 60, (12, 12)) + 80 * int(path[7])
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / path)
    return tmp_path


def table(folder: Path, head: str, rows, *, sep: str = ",", encoding: str = "utf-8", eol: str = "\n") -> str:
    text = eol.join([head, *(sep.join(map(str, row)) for row in rows), ""])
    (folder / "labels.csv").write_bytes(text.encode(encoding))
    return str(folder / "labels.csv")


def found_of(path: str, **settings):
    """Return the splits, and check that every image has the label that its name says."""
    found = find_splits(DataConfig(path=path, **settings))
    for split in (found.train, found.evaluation, found.test):
        for file, label in zip(split.images.paths, split.labels, strict=True) if split else ():  # type: ignore
            assert found.class_names[label] == CLASSES[int(Path(file).name[0])]
    listing = list_source(path) if not settings else None
    assert listing is None or (listing.kind, listing.class_names) == ("table", found.class_names)
    return found


def refused(folder: Path, head: str, rows, *mentions: str, **settings) -> None:
    path = table(folder, head, rows)
    with pytest.raises(DataError) as caught:
        find_data(DataConfig(path=path, **settings), 0)
    assert str(caught.value).startswith(path) and "\n" not in str(caught.value)
    for mention in mentions:
        assert mention in str(caught.value)


def test_table_is_trained_on_as_it_is(folder):
    path = table(folder, "path,label", ROWS)
    settings = {"data.image_size": 12, "model.name": "resnet8", "model.width": 8, "recipe.epochs": 2}
    settings |= {"recipe.global_batch_size": 8, "output_dir": str(folder / "runs")}
    result = raytricks.train(path, settings)
    assert result is not None and result.last["val_num_images"] == 6
    assert raytricks.load(result.run_dir).class_names == CLASSES
    assert raytricks.train(result.run_dir / "config.yaml", {"name": "again"}, dry_run=True) is None


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"sep": ";", "eol": "\r\n", "encoding": "utf-8-sig"},
        {"sep": "\t", "encoding": "utf-16"},
        {"sep": "|"},
        {"sep": ";", "encoding": "cp1252"},
    ],
)
def test_table_of_every_separator_and_encoding(folder, form):
    path = table(folder, form.get("sep", ",").join(("path", "label")), ROWS, **form)
    found = found_of(path)
    assert (found.class_names, len(found.train)) == (CLASSES, 24)
    assert any("Windows-1252" in note for note in found.notes) == (form.get("encoding") == "cp1252")


def test_table_with_the_line_that_excel_wants(folder):
    assert len(found_of(table(folder, "sep=;\npath;label", ROWS, sep=";")).train) == 24


def test_table_with_quoted_cells_blank_lines_and_a_trailing_separator(folder):
    rows = [(f'"{path}"', f'"{label}"', "") for path, label in ROWS]
    rows.insert(3, ("", "", ""))
    assert len(found_of(table(folder, "path,label", rows)).train) == 24


@pytest.mark.parametrize(
    "head", ["path,label", "filename,class", "File Name,Category", "image_path,target", "id,breed", "IMAGE,Label"]
)
def test_table_knows_the_usual_headers(folder, head):
    assert len(found_of(table(folder, head, ROWS)).train) == 24


def test_table_names_the_columns_it_uses_and_those_it_does_not(folder):
    rows = [(number, path, label, 33) for number, (path, label) in enumerate(ROWS)]
    found = found_of(table(folder, ",filename,class,age", rows))
    assert found.notes[0].endswith(
        "labels.csv: images from column filename, classes from column class; not used: (one without a name), age"
    )


def test_table_columns_can_be_set(folder):
    path = table(folder, "where,what,label", [(*row, 1) for row in ROWS])
    assert len(found_of(path, path_column="where", label_column="what").train) == 24
    with pytest.raises(DataError, match=r"has no column 'wat', which data.label_column names.*did you mean what"):
        find_splits(DataConfig(path=path, path_column="where", label_column="wat"))
    with pytest.raises(DataError, match=r"has no column path .* or set data.path_column"):
        find_splits(DataConfig(path=path))


def test_table_with_two_columns_of_classes(folder):
    numbered = [(path, CLASSES.index(label), label) for path, label in ROWS]
    assert found_of(table(folder, "path,class_id,label", numbered)).class_names == CLASSES
    coarse = [(path, label, int(label == "Blatt")) for path, label in ROWS]
    refused(folder, "path,label,category", coarse, "label and category may both hold", "set data.label_column=label")


@pytest.mark.parametrize(
    ("head", "values"),
    [
        ("split", ("training", "Val", "TEST")),
        ("is_valid", ("False", "True", "False")),
        ("is_valid", ("0", "1", "0.0")),
        ("is_train", ("yes", "no", "yes")),
    ],
)
def test_table_uses_its_splits(folder, head, values):
    rows = [(path, label, values[1 if path[-5] == "3" else 2 if path[-5] == "4" else 0]) for path, label in ROWS]
    found = found_of(table(folder, f"path,label,{head}", rows))
    assert found.evaluation is not None and len(found.evaluation) == 3
    assert (found.test is not None) == (head == "split")
    assert f"splits from column {head}" in found.notes[0]


def test_table_columns_that_only_sound_like_splits_or_classes_are_left_out(folder):
    rows = [(path, label, "castle", number) for number, (path, label) in enumerate(ROWS)]
    found = found_of(table(folder, "path,label,set,y", rows))
    assert found.evaluation is None and found.notes[0].endswith("not used: set, y")
    rows = [(path, label, "test" if path[-5] == "3" else "train") for path, label in ROWS]
    assert len(found_of(table(folder, "path,label,set", rows)).test or ()) == 3


def test_table_labels_are_cleaned_and_numbered_naturally(folder):
    def written(path: str, label: str) -> str:
        return {"3": f"{label} ", "4": f"\u00a0{label}", "5": unicodedata.normalize("NFD", label)}.get(path[-5], label)

    found = found_of(table(folder, "path,label", [(path, written(path, label)) for path, label in ROWS]))
    assert found.class_names == CLASSES
    assert "blanks or the Unicode form of 8 labels were cleaned" in found.notes[1]
    numbers = table(folder, "path,label", [(path, 10 if "0_" in path else 9) for path, _ in ROWS])
    assert find_splits(DataConfig(path=numbers)).class_names == ("9", "10")
    cases = table(
        folder, "path,label", [(path, "cat" if number % 2 else "Cat") for number, (path, _) in enumerate(ROWS)]
    )
    assert "'Cat' and 'cat'" in find_splits(DataConfig(path=cases)).notes[-1]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.removesuffix(".png"),
        lambda path: path.removeprefix("images/"),
        lambda path: path.removeprefix("images/").removesuffix(".png"),
        lambda path: path.replace(".png", ".PNG"),
        lambda path: path.replace("/", "\\"),
        lambda path: f" {path} ",
    ],
)
def test_table_paths_are_completed(folder, change):
    found = found_of(table(folder, "path,label", [(change(path), label) for path, label in ROWS]))
    assert len(found.train) == 24
    assert any("paths completed: 24" in note for note in found.notes) == (
        change(" ")[1:-1] != " " and change("x") == "x"
    )


def test_table_paths_that_may_be_two_files_are_refused(folder):
    with Image.open(folder / "images/0_0.png") as image:
        image.save(folder / "images/0_0.bmp")
    rows = [(path.removesuffix(".png"), label) for path, label in ROWS]
    refused(folder, "path,label", rows, "row 1: 'images/0_0' may be ", "0_0.bmp", "0_0.png")


def test_table_without_some_of_its_images_is_refused(folder):
    (folder / "images/0_1.png").unlink()
    (folder / "images/2_1.png").unlink()
    refused(folder, "path,label", ROWS, "row 2: 'images/0_1.png' is no file", "(and 1 more of 24 rows)")


@pytest.mark.parametrize(
    ("extra", "mention"),
    [
        ([("images/0_0.png", "Blüte")], "images/0_0.png has the label 'Blatt' in row 1 and 'Blüte' in row 25"),
        ([("./images/0_0", "Blüte")], "./images/0_0 has the label 'Blatt' in row 1 and 'Blüte' in row 25"),
        ([("images/0_0.png", "nan")], "row 25 has no label"),
        ([("images/0_0.png", "")], "row 25 has no label"),
        ([("images/0_0.png", "Blatt", "x")], "row 25 has 3 cells, the first line 2"),
    ],
)
def test_table_that_contradicts_itself_is_refused(folder, extra, mention):
    refused(folder, "path,label", [*ROWS, *extra], mention)


def test_table_rows_that_repeat_others_are_left_out(folder):
    found = found_of(table(folder, "path,label", [*ROWS, *ROWS[:3]]))
    assert len(found.train) == 24 and "3 rows say again" in found.notes[-1]


def test_table_with_a_column_twice_is_refused_when_it_is_used(folder):
    rows = [(path, label, label, 1, 2) for path, label in ROWS]
    refused(folder, "path,label,label,age,age", rows, "has 2 columns 'label'; rename or remove all but one")
    assert len(found_of(table(folder, "path,label,x,age,age", rows)).train) == 24
    columns = [pa.array([path for path, _ in ROWS]), *2 * [pa.array([label for _, label in ROWS])]]
    parquet.write_table(pa.Table.from_arrays(columns, names=["path", "label", "label"]), folder / "twice.parquet")
    with pytest.raises(DataError, match="has 2 columns 'label'"):
        find_splits(DataConfig(path=str(folder / "twice.parquet")))


def test_table_of_parquet_with_missing_labels(folder):
    columns = {"path": [path for path, _ in ROWS], "label": [1.0, float("nan"), *[2.0] * 22]}
    parquet.write_table(pa.table(columns), folder / "labels.parquet")
    with pytest.raises(DataError, match="row 2 has no label"):
        find_splits(DataConfig(path=str(folder / "labels.parquet")))


def test_table_whose_val_lacks_or_adds_a_class(folder):
    rows = [(path, label, "val" if path[-5] == "3" and label != "Blatt" else "train") for path, label in ROWS]
    found = find_data(DataConfig(path=table(folder, "path,label,split", rows)), 0)
    assert (found.class_names, len(found.evaluation)) == (CLASSES, 2)
    assert "val has no image of Blatt: what is there is scored" in found.notes
    rows = [(path, label, "val" if label == "Blatt" else "train") for path, label in ROWS]
    refused(folder, "path,label,split", rows, "class 'Blatt' is not among the training images (Blüte, Stängel)")


def test_table_groups_by_a_column_or_by_a_pattern(folder):
    rows = [(path, label, f"p{number % 8}") for number, (path, label) in enumerate(ROWS)]
    path = table(folder, "path,label,patient", rows)
    for group in ("patient", r"_(\d)"):
        found = find_data(DataConfig(path=path, group=group, val_fraction=0.25), 0)
        assert not set(found.train.groups or ()) & set(found.evaluation.groups or ())
        assert found.evaluation.origin == f"25% held out of train, 2 of 8 groups by {group}"
