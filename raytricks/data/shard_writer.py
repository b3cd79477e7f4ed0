"""Make images small, and write one shard, an Arrow IPC file, and the index of where in it each image's bytes are."""

import contextlib
from dataclasses import dataclass
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from raytricks.data.contents import Contents, encode_jpeg, encode_png
from raytricks.data.decode import DecodeSpec, decode_bytes, header_of, resize_values
from raytricks.data.deep import resized_sixteen_bits
from raytricks.data.shard_format import FORMAT, VERSION, ShardEntry, sha256_of

TEMPORARY_SUFFIX = ".tmp"
_LARGEST_LOSSLESS_SIDE = 64  # JPEG's 8x8 blocks show in smaller images, and PNG takes little there
JPEG_QUALITY = 90
_BATCH_IMAGES = 64
_FIELDS = {
    "image": pa.large_binary(),
    "label": pa.int64(),
    "height": pa.int32(),
    "width": pa.int32(),
    "is_grayscale": pa.bool_(),
    "source": pa.string(),
}


@dataclass(frozen=True)
class PackedImage:
    """An encoded image as it goes into a shard; sizes after EXIF orientation, pixels."""

    content: bytes
    height: int
    width: int
    is_grayscale: bool
    is_resized: bool
    is_deep: bool = False


def pack_image(contents: Contents, index: int, short_side: int) -> PackedImage:
    """Make an image smaller, or keep its bytes; either way it has been decoded, so it is sound.

    The resized pixels are those that training with this `short_side` would decode from the
    original (antialiased, at most 4:1), but for the loss of JPEG at quality 90. Gray images of 16 bits keep these; what
    has more than 8 bits in another form keeps its bytes.

    Args:
        short_side: images with a longer one are resized to it; 0: none is.

    Raises:
        DataError: the image cannot be read or decoded; names it.
    """
    content, place = contents.read(index), contents.place(index)
    header = header_of(content, place)
    shorter = min(header.height, header.width)
    is_resized = 0 < short_side < shorter
    spec = DecodeSpec(short_side if is_resized else shorter, square=False, channels=1 if header.is_grayscale else 3)
    pixels = decode_bytes(content, spec, place)
    if is_resized and header.is_deep:
        smaller = resized_sixteen_bits(content, place, lambda values: resize_values(values, spec))
        if smaller is not None:
            of_smaller = header_of(smaller, place)
            return PackedImage(smaller, of_smaller.height, of_smaller.width, True, True, True)
    if not is_resized or header.is_deep:
        return PackedImage(bytes(content), header.height, header.width, header.is_grayscale, False, header.is_deep)
    is_lossless = short_side <= _LARGEST_LOSSLESS_SIDE or not _is_lossy(content)
    smaller = encode_png(pixels) if is_lossless else encode_jpeg(pixels, JPEG_QUALITY)
    return PackedImage(smaller, pixels.shape[1], pixels.shape[2], header.is_grayscale, True)


def _is_lossy(content: bytes | memoryview) -> bool:
    """Whether a file is JPEG, or WebP with its lossy coding."""
    content = memoryview(content)
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        return content[:2] == b"\xff\xd8"
    start = 12
    while start + 8 <= len(content):  # a colour profile of any length may stand before the pixels
        if content[start : start + 4] == b"VP8L":
            return False
        length = int.from_bytes(content[start + 4 : start + 8], "little")
        start += 8 + length + length % 2
    return True


class ShardWriter:
    """Writes under a temporary name; `finish` gives the shard its own. Equal images make equal bytes.

    Attributes:
        num_bytes: of the encoded images so far.
        num_images: so far.
    """

    def __init__(self, directory: Path, split: str, number: int, class_names: tuple[str, ...]) -> None:
        self.num_bytes = self.num_images = 0
        self._path = directory / f"{split}-{number:05d}.arrow"
        metadata = {"format": f"{FORMAT} {VERSION}", "split": split, "class_names": json.dumps(class_names)}
        self._schema = pa.schema(list(_FIELDS.items()), metadata=metadata)
        self._rows: list[tuple] = []
        self._file = _HashingFile(_temporary(self._path))
        self._writer = pa.ipc.new_file(self._file, self._schema)

    def add(self, image: PackedImage, label: int, source: str) -> None:
        """Add an image, with its name in the source."""
        name = os.fsencode(source).decode("utf-8", "replace")  # file names may be no UTF-8, Arrow's text must be
        self._rows.append((image.content, label, image.height, image.width, image.is_grayscale, name))
        self.num_bytes += len(image.content)
        self.num_images += 1
        if len(self._rows) == _BATCH_IMAGES:
            self._write_batch()

    def finish(self) -> ShardEntry:
        """Write the index, put both files in their places, durably, and describe them."""
        if self._rows:
            self._write_batch()
        self._writer.close()
        self._file.close()
        index = _index_of(_temporary(self._path))
        entry = ShardEntry(
            file=self._path.name,
            num_images=self.num_images,
            bytes=self._file.num_bytes,
            sha256=self._file.digest.hexdigest(),
            index_bytes=len(index),
            index_sha256=sha256_of(index),
        )
        write_atomically(self._path.with_name(entry.index_file), index)
        _temporary(self._path).replace(self._path)
        return entry

    def abandon(self) -> None:
        """Remove what was written."""
        self._file.abandon()
        _temporary(self._path).unlink(missing_ok=True)

    def _write_batch(self) -> None:
        columns = zip(*self._rows, strict=True)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        self._rows = []


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that its name never stands for a part of it, even after a loss of power."""
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")


def _index_of(path: Path) -> bytes:
    """Return an Arrow file of each image's place, as pyarrow itself reads the shard."""
    file = pa.memory_map(str(path)).read_buffer()
    batches = pa.ipc.open_file(file)
    tables = []
    for number in range(batches.num_record_batches):
        batch = batches.get_batch(number)
        _, bounds, values = batch.column("image").buffers()
        ends = pa.Array.from_buffers(pa.int64(), batch.num_rows + 1, [None, bounds]).to_numpy()
        places: dict[str, Any] = {name: batch.column(name) for name in _FIELDS if name != "image"}
        places["offset"] = pa.array(ends[:-1] + (values.address - file.address), pa.int64())
        places["length"] = pa.array(ends[1:] - ends[:-1], pa.int64())
        tables.append(pa.table(places))
    index = io.BytesIO()
    table = pa.concat_tables(tables).combine_chunks()
    with pa.ipc.new_file(index, table.schema) as writer:
        writer.write_table(table)
    return index.getvalue()


class _HashingFile(io.RawIOBase):
    """A new file that knows the sha256 and the size of what went through."""

    def __init__(self, path: Path) -> None:
        self.digest = hashlib.sha256()
        self.num_bytes = 0
        self._file = path.open("wb")

    def writable(self) -> bool:
        return True

    def write(self, content) -> int:
        self._file.write(content)
        self.digest.update(content)
        self.num_bytes += len(memoryview(content).cast("B"))
        return len(memoryview(content).cast("B"))

    def close(self) -> None:
        super().close()
        if not self._file.closed:
            with self._file:  # closes it when the disk does not take the rest
                self._file.flush()
                os.fsync(self._file.fileno())

    def abandon(self) -> None:
        """Close, although a full disk may not take what is left."""
        with contextlib.suppress(OSError):
            self.close()
