"""The data sources: one row each. `data.source` chooses; `auto` takes the first that recognises `data.path`."""

from pathlib import Path

from raytricks.parts.part import Part


def _source(name: str, title: str, code: str, formula: str, *, needs: tuple[str, ...] = ("path",)) -> Part:
    return Part(
        kind="source", name=name, title=title, source="-", formula=formula, measured="-", code=code, needs=needs
    )


TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")


def is_data_place(target: str | Path) -> bool:
    """Whether a first argument names data, not a config: a directory, or a table's file."""
    place = Path(target).expanduser()
    return place.is_dir() or (place.is_file() and place.suffix.lower() in TABLE_SUFFIXES)


ROWS: tuple[Part, ...] = (
    _source(
        "digits",
        "digits",
        "raytricks.data.sources.digits:HOOKS",
        "1,797 handwritten digits of 8 x 8 pixels, embedded in scikit-learn",
        needs=(),
    ),
    _source(
        "fashion_mnist",
        "Fashion-MNIST",
        "raytricks.data.sources.idx:FASHION_MNIST",
        "IDX files of `data.path`, of Debian's package, or downloaded by torchvision",
        needs=(),
    ),
    _source("shards", "packed shards", "raytricks.data.sources.shards:HOOKS", "what `raytricks data pack` wrote"),
    _source("idx", "IDX files", "raytricks.data.sources.idx:IDX", "a directory of the four files of an MNIST-like set"),
    _source(
        "parquet",
        "Parquet of encoded images",
        "raytricks.data.sources.parquet:HOOKS",
        "columns image (bytes, or a struct of them) and label; train-*, validation-*, test-*.parquet, or one file",
    ),
    _source(
        "table",
        "table",
        "raytricks.data.sources.table:HOOKS",
        "a CSV, TSV or Parquet file with a row an image: its path, its label and, if there is one, its split",
    ),
    _source("folder", "folder", "raytricks.data.sources.folder:HOOKS", "class folders, or train/ and val/ of them"),
)
