"""`raytricks.predict`: answers for any number of images, written to a file as they come."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
import time

import numpy as np

from raytricks.errors import ConfigError, DataError, InterruptedRun
from raytricks.inference.answers import ANSWERS_FILE, read_answers
from raytricks.inference.images import ImageList, find_images
from raytricks.inference.rows import RowMaker, RowSettings, plain_confidence
from raytricks.inference.selective import Guarantee, least_num_accepted, threshold_for_precision
from raytricks.inference.trained_model import TrainedModel
from raytricks.training.answering import answers_of
from raytricks.training.kept_models import load
from raytricks.training.signals import StopSignals
from raytricks.training.teacher import content_digest
from raytricks.use.labelled import labelled_images, run_of
from raytricks.use.parts import Parts, encoded

_Progress = Callable[[int, int], None]
_PRINTED_AT_ONCE = 32


@dataclass(frozen=True)
class PredictionResult:
    """A finished prediction.

    Attributes:
        num_errors: images that could not be read; their rows say why.
        num_answered: images answered now, not before a stop.
        guarantee: what the threshold promises; None: nothing was promised.
    """

    out: Path
    num_images: int
    num_errors: int
    num_answered: int
    num_unsure: int
    seconds: float
    guarantee: Guarantee | None


def predict(
    model: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    weights: str | int = "last",
    top: int = 5,
    threshold: float | None = None,
    precision: float | None = None,
    precision_data: str | None = None,
    embeddings: bool = False,
    batch_size: int | None = None,
    workers: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    trust_code: bool = False,
    progress: _Progress = lambda done, total: None,
) -> PredictionResult:
    """Predict for images and write a row each, in their order; goes on where a killed one stopped.

    Args:
        model, weights, device, trust_code: as of `raytricks.load`.
        images: a file, a folder, a glob, a .txt of paths, Parquet files of encoded images, an s3:// or gs:// URL.
        out: .parquet, .csv or .jsonl. Until it is whole its rows lie in OUT.parts/.
        top: classes a row.
        threshold: least probability of an answer; others are "unsure".
        precision: of the answers that are not "unsure", promised with 95% confidence; for images like the ones that
            the promise is derived from.
        precision_data: labelled images to derive it from, that neither trained nor chose the model. None: what the run
            evaluated, for its last weights.
        embeddings: also write what the last linear layer is given.
        batch_size: images at once; None: as training evaluated.
        workers: 0: in this process; else as many on Ray, a model in each.
        progress: called with the images done and all images.

    Raises:
        ConfigError: settings that exclude each other, or an output that cannot be made.
        DataError: no images, or too few labelled ones for the promise.
        InterruptedRun: stopped by a signal; the same command goes on.
    """
    if threshold is not None and precision is not None:
        raise ConfigError("--threshold and --precision both set the threshold; leave one of them out")
    _require_threshold(threshold)
    if precision_data is not None and precision is None:
        raise ConfigError("--precision-data is what --precision is derived from; add --precision, such as 0.99")
    loads = partial(_loaded, model, weights, device, batch_size, trust_code)
    trained, listed = loads(), find_images(images)
    top = min(top, trained.num_classes)
    guarantee = None
    if precision is not None:
        guarantee = _guarantee(trained, Path(model), weights, precision, precision_data)
        threshold = guarantee.threshold
    settings = RowSettings(top, threshold, precision is not None, embeddings)
    told = {"model": _digest_of(trained), "images": listed.fingerprint(), "settings": asdict(settings)}
    parts = Parts(Path(out).expanduser(), told, len(listed), overwrite=overwrite)
    started_s, missing = time.monotonic(), parts.missing
    job = _Job(loads, listed, settings, parts.rows_of)
    use_gpu = trained.device.type == "cuda"
    with StopSignals() as stop:
        stop.install()
        counts = _Counts(len(listed) - sum(len(parts.rows_of(part)) for part in missing), len(listed), progress)

        def obey_stop() -> None:
            if stop():
                told_done = f"{counts.done:,} of {counts.total:,} images are answered"
                raise InterruptedRun(f"stopped: {told_done}; the same command goes on", stop())

        made = _on_ray(job, missing, workers, use_gpu) if workers else _here(job, missing, obey_stop)
        for part, content in made:
            parts.write(part, content)
            counts.add(len(parts.rows_of(part)))
            obey_stop()
    num_errors, num_unsure = parts.counts()
    parts.finish()
    return PredictionResult(
        out=parts.out,
        num_images=len(listed),
        num_errors=num_errors,
        num_answered=counts.done - counts.before,
        num_unsure=num_unsure,
        seconds=time.monotonic() - started_s,
        guarantee=guarantee,
    )


def _require_threshold(threshold: float | None) -> None:
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigError(f"--threshold must be from 0 to 1, got {threshold:g}")


class _Counts:
    """How far a prediction is."""

    def __init__(self, before: int, total: int, progress: _Progress) -> None:
        self.before = self.done = before
        self.total, self._progress = total, progress
        progress(before, total)

    def add(self, count: int) -> None:
        self.done += count
        self._progress(self.done, self.total)


def _loaded(
    model: str | Path, weights: str | int, device: str | None, batch_size: int | None, trust_code: bool
) -> TrainedModel:
    found = load(model, weights=weights, device=device, trust_code=trust_code)
    if batch_size is None:
        return found
    return replace(found, execution=replace(found.execution, batch_size=batch_size))


def _here(job: "_Job", missing: list[int], obey_stop: Callable[[], None]) -> Iterator[tuple[int, bytes]]:
    maker = RowMaker(job.load(), job.images, job.settings)
    ranges = [job.rows_of(part) for part in missing]

    def indices() -> Iterator[int]:
        for index in chain.from_iterable(ranges):
            obey_stop()  # a part of a slow model takes minutes; what is made of it is made again
            yield index

    tables = maker.tables(indices(), map(len, ranges))
    for part, table in zip(missing, tables, strict=True):
        yield part, encoded(table)


def _on_ray(job: "_Job", missing: list[int], workers: int, use_gpu: bool) -> Iterator[tuple[int, bytes]]:
    from raytricks.cluster.answering import parts_on_ray  # the seam: ray

    return parts_on_ray(job.predictor, missing, workers=workers, use_gpu=use_gpu)


@dataclass(frozen=True)
class _Job:
    """What a process needs to make any part of a prediction; travels to workers."""

    load: Callable[[], TrainedModel]
    images: ImageList
    settings: RowSettings
    rows_of: Callable[[int], range]

    def predictor(self) -> Callable[[int], bytes]:
        """Load the model and return the function of a part's number."""
        maker = RowMaker(self.load(), self.images, self.settings)

        def predict_part(part: int) -> bytes:
            rows = self.rows_of(part)
            return encoded(next(maker.tables(rows, [len(rows)])))

        return predict_part


def _guarantee(trained: TrainedModel, model: Path, weights: str | int, precision: float, data: str | None) -> Guarantee:
    """Find the threshold that keeps a precision, by images that neither trained nor chose the model.

    It is of the softmax before calibration: the temperature was fitted to the evaluation images.

    Raises:
        DataError: there is no such threshold; says what is missing.
        ConfigError: no images to derive it from.
    """
    if not 0 < precision < 1:
        raise ConfigError(f"--precision must be between 0 and 1, such as 0.99, got {precision:g}")
    logits, labels, origin = _proving_answers(trained, model, weights, data)
    found = threshold_for_precision(plain_confidence(logits), logits.argmax(axis=1) == labels, precision)
    if found is None:
        least = least_num_accepted(precision)
        top1 = float((logits.argmax(axis=1) == labels).mean())
        raise DataError(
            f"--precision {precision:g}: no threshold keeps it with 95% confidence on {origin}, {len(labels):,} images "
            f"with top-1 {top1:.2%}; it takes {least} sure answers without an error, or more images: lower it, or give "
            "more labelled images with --precision-data"
        )
    return found


def _proving_answers(
    trained: TrainedModel, model: Path, weights: str | int, data: str | None
) -> tuple[np.ndarray, np.ndarray, str]:
    run_dir = run_of(model.expanduser())
    if data is not None:
        labelled = labelled_images(trained, data, run_dir)
        return answers_of(trained, labelled.images), labelled.images.labels, labelled.description
    name = {"last": "val", "average": "val_ema", "ema": "val_ema"}.get(str(weights))
    if name is None or run_dir is None or not (run_dir / ANSWERS_FILE).is_file():
        raise ConfigError(
            "--precision needs labelled images that neither trained nor chose the weights: those that a finished run "
            "evaluated, for its last or average weights, or others given with --precision-data"
        )
    answers, labels = read_answers(run_dir / ANSWERS_FILE)
    if name not in answers:
        raise ConfigError(f"--precision: {run_dir} keeps no answers of its {weights} weights; give --precision-data")
    return answers[name], labels, "what the run evaluated"


def _digest_of(trained: TrainedModel) -> str:
    """Return what tells a model from another: the digest of its file, or of its weights where it has none."""
    return str(trained.description.get("digest") or content_digest(trained.model))


def printed(
    model: str | Path,
    images: str | Path,
    *,
    weights: str | int = "last",
    top: int = 5,
    threshold: float | None = None,
    device: str | None = None,
    trust_code: bool = False,
) -> Iterator[str]:
    """Yield a line an image, for people: its name, its label, the most probable classes."""
    _require_threshold(threshold)
    trained, listed = _loaded(model, weights, device, None, trust_code), find_images(images)
    maker = RowMaker(trained, listed, RowSettings(min(top, trained.num_classes), threshold))
    sizes = [len(rows) for rows in np.array_split(np.arange(len(listed)), -(-len(listed) // _PRINTED_AT_ONCE))]
    for table in maker.tables(range(len(listed)), sizes):
        for row in table.to_pylist():
            if row["error"] is not None:
                yield f"error     {row['error']}"
                continue
            ranked = zip(row["top_labels"], row["top_scores"], strict=True)
            yield f"{row['image']}  {row['label']}  ({', '.join(f'{name} {score:.1%}' for name, score in ranked)})"


def result_lines(result: PredictionResult) -> list[str]:
    """Return what a finished prediction came to."""
    rate = result.num_answered / max(result.seconds, 1e-9)
    earlier = result.num_images - result.num_answered
    before = f", {earlier:,} of them before" if earlier else ""
    lines = [f"predicted   {result.num_images:,} images{before}; {rate:,.0f} images/s: {result.out}"]
    if result.num_errors:
        lines.append(f"errors      {result.num_errors:,} images cannot be read; column error says why")
    if result.guarantee is not None:
        found = result.guarantee
        lines.append(
            f"promise     right in at least the share asked for, with 95% confidence: confidence before calibration >= "
            f"{found.threshold:.4f} accepted {found.num_accepted:,} known images ({found.coverage:.1%}), "
            f"{found.num_errors:,} of them wrongly; it holds for images like those"
        )
    if result.num_unsure:
        lines.append(f"unsure      {result.num_unsure:,} images ({result.num_unsure / result.num_images:.1%})")
    return lines
