"""The teacher's logits, computed once and read by every later run on the same images.

    cache_dir/<key>/description.json    what the key is made of
    cache_dir/<key>/epoch-0007.npy      (N, K) float32 by sample number, then the sha256 of all before it

Augmentation is a function of (augmentation seed, epoch, sample), so an epoch's images, and the
teacher's answers to them, are the same in every run that shares the seed. Without random
augmentation one epoch stands for all. A file appears whole under its final name or not at all,
and one that does not verify is computed again.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
import hashlib
import io
import json
import os
from pathlib import Path
import secrets
import time
from typing import Any, NamedTuple

import numpy as np
import torch

from raytricks.data.augmentation import ImageTricks, Transform
from raytricks.data.batches import read_ahead, training_reader
from raytricks.data.order import even_share
from raytricks.data.prepared import LabelledImages
from raytricks.errors import RaytricksError
from raytricks.files import sync_directory
from raytricks.training.teacher import Teacher
from raytricks.training.teacher_cache_key import cache_bytes, describe, is_static, key_of
from raytricks.training.worker import Worker

_TEMPORARY = ".tmp-"
_ABANDONED_S = 24 * 3600  # age at which a temporary file cannot belong to a fill that is still going on
_DIGEST_BYTES = hashlib.sha256().digest_size
_COPY_BYTES = 2**22


class EpochLogits(NamedTuple):
    """The teacher's answers to an epoch.

    Attributes:
        logits: (N, K) float32, memory-mapped and read-only; row i belongs to sample i.
        note: what had to be done, for the user; None when the file was there.
    """

    logits: np.ndarray
    note: str | None


@dataclass(frozen=True, kw_only=True)
class TeacherCache:
    """The logits of one teacher for one set of augmented images; make it with `open_cache`.

    Attributes:
        folder: of this key alone, on storage that all workers see.
        data: the training images.
        image_tricks: what `Transform.train` takes under this name; None when there are none.
        batch_size: images in one forward pass of the teacher.
        side: of the training images, pixels; the transform's own is that of evaluation.
    """

    folder: Path
    teacher: Teacher
    data: LabelledImages
    transform: Transform
    image_tricks: ImageTricks | None
    augmentation_seed: int
    num_classes: int
    worker: Worker
    batch_size: int
    side: int

    def path(self, epoch: int) -> Path:
        """Return the file of an epoch, counted from 0."""
        stored = 0 if is_static(self.transform, self.image_tricks) else epoch
        return self.folder / f"epoch-{stored:04d}.npy"

    def epoch(self, epoch: int) -> np.ndarray | None:
        """Return the (N, K) logits of an epoch, memory-mapped; None when missing or damaged."""
        path = self.path(epoch)
        return self._map(path) if _verifies(path) else None

    def fill_epoch(self, epoch: int) -> EpochLogits:
        """Return the logits of an epoch after computing them where they are missing. Collective.

        Each worker answers an even share of the images. Runs that fill the same epoch at the same
        time do the work twice and leave one valid file.

        Raises:
            RaytricksError: the folder cannot be written, or not all workers see it.
        """
        path = self.path(epoch)
        is_first = self.worker.is_first
        existed = is_first and path.exists()
        is_missing = is_first and self.epoch(epoch) is None
        if not self._agree(is_missing):
            return EpochLogits(self._require_map(path), None)
        started_s = time.perf_counter()
        self._compute(epoch, path)
        note = None
        if is_first:
            damage = "was damaged and is computed again" if existed else "computed"
            seconds, mib = time.perf_counter() - started_s, path.stat().st_size / 2**20
            note = f"teacher's logits of epoch {epoch + 1} {damage}: {path} ({mib:.1f} MiB, {seconds:.1f} s)"
        return EpochLogits(self._require_map(path), note)

    # -- reading --------------------------------------------------------------------------

    def _map(self, path: Path) -> np.ndarray | None:
        try:
            logits = np.load(path, mmap_mode="r")
        except (OSError, ValueError):
            return None
        shape = (len(self.data), self.num_classes)
        return np.asarray(logits) if logits.shape == shape and logits.dtype == np.float32 else None

    def _require_map(self, path: Path) -> np.ndarray:
        logits = self._map(path)
        if logits is None:
            raise _unusable(self.folder, f"{path.name} was written but cannot be read by worker {self.worker.rank}")
        return logits

    # -- computing ------------------------------------------------------------------------

    def _compute(self, epoch: int, path: Path) -> None:
        """Write one part a worker, then join them on the first one."""
        token = self._shared_token()
        parts = [self.folder / f"{_TEMPORARY}{token}-part-{rank:04d}" for rank in range(self.worker.world_size)]
        try:
            self._on_all(lambda: _write(parts[self.worker.rank], self._answers(epoch)))
            self._on_all(lambda: self._join(parts, path) if self.worker.is_first else None)
        finally:
            parts[self.worker.rank].unlink(missing_ok=True)

    def _answers(self, epoch: int) -> Iterator[bytes]:
        """Yield the logits of this worker's share, batch by batch, of the pixels that the step will see."""
        start, stop = even_share(len(self.data), self.worker.rank, self.worker.world_size)
        plan = ((np.arange(a, min(a + self.batch_size, stop)), True) for a in range(start, stop, self.batch_size))
        read = training_reader(self.data.images, self.transform, self.augmentation_seed, epoch, self.side)
        for canvas, (samples, _) in read_ahead(self.data.images, plan, read):
            inputs = self.transform.train(
                canvas,
                samples,
                self.augmentation_seed,
                epoch,
                self.worker.device,
                image_tricks=self.image_tricks,
                side=self.side,
            )
            yield self.teacher.logits(inputs).cpu().numpy().tobytes()

    def _join(self, parts: list[Path], path: Path) -> None:
        stored = sum(part.stat().st_size for part in parts)
        wanted = cache_bytes(len(self.data), self.num_classes, 1)
        if stored != wanted:
            raise OSError(f"the workers wrote {stored} bytes, {wanted} were expected")
        header = io.BytesIO()
        shape = (len(self.data), self.num_classes)
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        _replace(path, _with_digest(header.getvalue(), parts))

    # -- agreement of the workers ---------------------------------------------------------

    def _agree(self, flag: bool) -> bool:
        """Whether any worker says so."""
        return bool(self.worker.sum_over_workers(torch.tensor(int(flag), device=self.worker.device)))

    def _shared_token(self) -> str:
        """Draw a name on the first worker that no other fill has, and tell the others."""
        drawn = secrets.randbits(62) if self.worker.is_first else 0
        return f"{int(self.worker.sum_over_workers(torch.tensor(drawn, device=self.worker.device))):016x}"

    def _on_all(self, action: Callable[[], None]) -> None:
        """Carry an action out and wait for the others; when one fails, all raise instead of waiting for it."""
        failure: Exception | None = None
        try:
            action()
        except Exception as error:  # whatever it is, the others must not wait for this worker
            failure = error
        has_failed = self._agree(failure is not None)
        if isinstance(failure, OSError):
            raise _unusable(self.folder, str(failure)) from failure
        if failure is not None:
            raise failure
        if has_failed:
            raise _unusable(self.folder, "another worker failed; its message says why")


def open_cache(
    cache_dir: str | Path,
    *,
    teacher: Teacher,
    data: LabelledImages,
    num_classes: int,
    transform: Transform,
    image_tricks: ImageTricks | None,
    augmentation_seed: int,
    worker: Worker,
    batch_size: int,
    side: int,
) -> TeacherCache:
    """Find or make the folder for a teacher and these images. Collective.

    Raises:
        RaytricksError: the folder cannot be made.
    """
    key = bytes(8)
    root = Path(cache_dir).expanduser()
    failure: OSError | None = None
    if worker.is_first:
        description = describe(
            teacher,
            data.images,
            transform,
            image_tricks=image_tricks,
            augmentation_seed=augmentation_seed,
            side=side,
        )
        key = bytes.fromhex(key_of(description))
        try:
            _make_folder(root / key.hex(), description)
        except OSError as error:
            failure = error
    # the first worker's key for all: another node may see other times of the same files
    message = torch.tensor([int(failure is not None), *key], device=worker.device)
    has_failed, *agreed = worker.sum_over_workers(message).tolist()
    if has_failed:
        raise _unusable(root, str(failure) if failure else "the first worker failed; its message says why")
    return TeacherCache(
        folder=root / bytes(agreed).hex(),
        teacher=teacher,
        data=data,
        transform=transform,
        image_tricks=image_tricks,
        augmentation_seed=augmentation_seed,
        num_classes=num_classes,
        worker=worker,
        batch_size=batch_size,
        side=side,
    )


def _make_folder(folder: Path, description: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{_TEMPORARY}*"):
        try:
            if time.time() - leftover.stat().st_mtime > _ABANDONED_S:
                leftover.unlink()
        except FileNotFoundError:  # another run was faster
            continue
    if not (folder / "description.json").exists():
        _replace(folder / "description.json", [json.dumps(description, indent=1).encode()])


def _unusable(folder: Path, reason: str) -> RaytricksError:
    return RaytricksError(
        f"tricks.distillation.cache_dir: {folder} cannot be used ({reason}); make room on storage that all workers "
        "see, or leave it out"
    )


def _with_digest(header: bytes, parts: list[Path]) -> Iterator[bytes]:
    """Yield the header, the content of all parts, and the sha256 of it all."""
    digest = hashlib.sha256(header)
    yield header
    for part in parts:
        with part.open("rb") as file:
            while chunk := file.read(_COPY_BYTES):
                digest.update(chunk)
                yield chunk
    yield digest.digest()


def _verifies(path: Path) -> bool:
    """Whether a file ends with the sha256 of all before it."""
    digest = hashlib.sha256()
    try:
        left = path.stat().st_size - _DIGEST_BYTES
        with path.open("rb") as file:
            while left > 0:
                chunk = file.read(min(left, _COPY_BYTES))
                if not chunk:
                    return False
                digest.update(chunk)
                left -= len(chunk)
            return file.read() == digest.digest()
    except OSError:
        return False


def _replace(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file atomically under a name that no other process uses meanwhile."""
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}-{path.name}")
    try:
        _write(temporary, chunks)
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, chunks: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
