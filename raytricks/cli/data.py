"""`raytricks data`: pack a data set, describe one. Nothing heavy is imported before it is needed."""

import json
from pathlib import Path
import shlex
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from raytricks.cli.progress import progress_bar
from raytricks.errors import ConfigError, DataError

if TYPE_CHECKING:
    from raytricks.data.info import DataInfo, SplitInfo
    from raytricks.data.pack import PackResult

data_app = typer.Typer(no_args_is_help=True, help="Pack a data set into few large files, or describe one.")

_SHOWN = 20
_SHARPEST = 0.875  # evaluation sees the central 224 of a short side of 256

Source = Annotated[
    str,
    typer.Argument(
        help="A folder of class folders, a .csv or .parquet file (path, label[, split]), IDX files, packed shards, "
        "or digits or fashion_mnist.",
        show_default=False,
    ),
]

Layout = Annotated[
    Literal["auto", "splits", "classes"],
    typer.Option(help="What the folders of a folder are: data.layout.", show_default=False),
]


@data_app.command(
    epilog="Examples:  raytricks data pack photos/ small/   |   raytricks data pack list.csv packed/ --short-side 0"
)
def pack(
    source: Source,
    out: Annotated[str, typer.Argument(help="Directory to make.", show_default=False)],
    short_side: Annotated[
        int, typer.Option(min=0, max=4096, help="Make larger images this small, pixels. 0: keep every byte.")
    ] = 256,
    shard_mib: Annotated[int, typer.Option(min=1, max=65536, help="Size of a shard, MiB.")] = 256,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads. Default: all cores.", show_default=False)] = None,
    max_corrupt: Annotated[int, typer.Option(min=0, help="Leave out up to N unreadable images.")] = 0,
    layout: Layout = "auto",
) -> None:
    """Pack a data set for fast training, with smaller images. Run it again to go on after a stop."""
    from raytricks.data import pack as packing  # the seam: numpy, pyarrow and the codecs

    with progress_bar("packing") as show:
        result = packing.pack(
            source,
            out,
            short_side=short_side,
            shard_mib=shard_mib,
            workers=workers,
            max_corrupt=max_corrupt,
            layout=layout,
            progress=show,
        )
    typer.echo("\n".join(_packed_lines(out, result)))


@data_app.command(
    epilog="Examples:  raytricks data info photos/ --contact-sheet sheet.png   |   raytricks data info packed/ --verify"
)
def info(
    path: Source,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Decode every image, hash every shard; exit with 3 if one is bad.")
    ] = False,
    sheet: Annotated[
        str | None,
        typer.Option("--contact-sheet", metavar="FILE.png", help="Draw some images of each class."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the images of the contact sheet.")] = 0,
    layout: Layout = "auto",
) -> None:
    """Show what a data set holds, and what is wrong with it."""
    if sheet is not None and not sheet.lower().endswith(".png"):
        raise ConfigError(f"--contact-sheet {sheet}: must end with .png")
    # the seam, as above
    from raytricks.data import contact_sheet, info, listing

    listed = listing.list_source(path, layout)
    with progress_bar("reading") as show:
        seen = 0

        def advance(count: int) -> None:
            nonlocal seen
            seen += count
            show(seen, len(listed))

        found = info.data_info(listed, verify=verify, progress=advance)
    typer.echo(json.dumps(found.as_dict(), indent=1) if as_json else "\n".join(_info_lines(found)))
    if sheet is not None:
        _save_sheet(contact_sheet.contact_sheet(listed, seed=seed), sheet)
    if verify and found.unreadable:
        count = len(found.unreadable)
        raise DataError(f"{path}: {count} image{'s' if count > 1 else ''} cannot be read; restore or remove them")


def _packed_lines(out: str, result: "PackResult") -> list[str]:
    data = result.dataset
    num_images = sum(split.num_images for split in data.splits.values())
    splits = ", ".join(f"{name} {split.num_images:,}" for name, split in data.splits.items())
    num_shards = sum(len(split.shards) for split in data.splits.values())
    verb = "already packed" if result.was_packed else "packed"
    lines = [f"{verb}: {num_images:,} images of {len(data.class_names)} classes ({splits}), shards: {num_shards}"]
    if not result.was_packed:
        before, after = result.bytes_before, result.bytes_after
        kept = "" if result.num_resized == num_images else ", the others keep their bytes"
        how = f"{result.num_resized:,} made smaller{kept}" if result.num_resized else "every image keeps its bytes"
        lines.append(f"bytes: {_mib(before)} before, {_mib(after)} after ({after / max(before, 1):.0%}); {how}")
    if data.skipped:
        more = len(data.skipped) - _SHOWN
        lines.append(f"left out, unreadable: {len(data.skipped)}")
        lines += [f"  {line}" for line in data.skipped[:_SHOWN]] + ([f"  ... and {more} more"] if more > 0 else [])
    lines += [f"note: {note}" for note in result.notes]
    return [*lines, f"next: raytricks train {shlex.quote(out)}{_recommendation(result)}"]


def _recommendation(result: "PackResult") -> str:
    """Say for which image sizes the packed images are large enough."""
    short_side = result.dataset.short_side
    if short_side == 0:
        return "    (--short-side 256 is enough for data.image_size up to 224, and takes less where images are larger)"
    if result.was_packed or result.num_resized:
        return f"    (large enough for data.image_size up to {round(short_side * _SHARPEST)})"
    return f"    (no image is larger than {short_side} px)"


def _info_lines(found: "DataInfo") -> list[str]:
    lines = [f"data        {found.name} ({found.kind}): {found.place}"]
    lines.append(f"classes     {len(found.class_names)}: {_some(found.class_names, 10)}")
    for name, split in found.splits.items():
        lines.append(f"{name:<11} {_split_line(split)}")
        lines.append(f"{'':<11} {_size_line(split)}")
        empty = [c for c, count in zip(found.class_names, split.class_counts, strict=True) if count == 0]
        if empty:
            lines.append(f"{'':<11} no image of {len(empty)} classes: {_some(empty, 10)}")
    mean, std = (" ".join(f"{value:.4f}" for value in values) for values in (found.mean, found.std))
    lines.append(f"mean, std   {mean} | {std}  (0..1, of a sample)")
    lines += _duplicate_lines(found)
    checked = "" if found.is_decoded else " (headers only; --verify decodes)"
    lines.append(f"unreadable  {len(found.unreadable) or 'none'}{checked}")
    lines += [f"            {line}" for line in found.unreadable[:_SHOWN]]
    if len(found.unreadable) > _SHOWN:
        lines.append(f"            ... and {len(found.unreadable) - _SHOWN} more; --json lists all")
    return lines + [f"note        {note}" for note in found.notes]


def _split_line(split: "SplitInfo") -> str:
    counts = [count for count in split.class_counts if count]
    largest, smallest = max(counts), min(counts)
    balance = (
        f"{smallest:,} each" if largest == smallest else f"{smallest:,} to {largest:,} (1:{largest / smallest:.1f})"
    )
    return f"{split.num_images:,} images ({split.origin}), {_mib(split.num_bytes)}; a class has {balance}"


def _size_line(split: "SplitInfo") -> str:
    height, width = ("/".join(str(side) for side in sides) for sides in (split.height, split.width))
    readable = split.num_images - split.num_unreadable
    colour = readable - split.num_grayscale
    modes = (
        f"{split.num_grayscale:,} gray, {colour:,} colour"
        if split.num_grayscale and colour
        else ("all gray" if split.num_grayscale else "all colour")
    )
    return f"height {height}, width {width} px (smallest/median/largest); {modes}"


def _duplicate_lines(found: "DataInfo") -> list[str]:
    equal = found.duplicates
    if not equal.num_repeated:
        return ["duplicates  none"]
    parts = [f"{equal.num_repeated:,} equal an earlier image"]
    for pair, count in equal.between_splits.items():
        first, second = pair.split(", ")
        parts.append(f"{count:,} of {second} are in {first} too")
    if equal.num_disagreeing:
        parts.append(f"{equal.num_disagreeing:,} have different labels")
    shown = [f"            {text}" for text in equal.examples[:5]]
    return ["duplicates  " + "; ".join(parts), *shown]


def _save_sheet(image, path: str) -> None:
    temporary = Path(path).with_name(f".{Path(path).name}.tmp")
    try:
        image.save(temporary, "PNG")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"--contact-sheet {path}: cannot be written ({error.strerror or error})") from None


def _some(names, count: int) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
