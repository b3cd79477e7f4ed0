"""`raytricks report`: the page of runs, from what they keep and the images that they evaluated."""

import base64
from collections.abc import Sequence
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from raytricks.config import flatten, load_config
from raytricks.data.batches import evaluation_reader
from raytricks.data.prepared import PreparedData
from raytricks.data.splits import DatasetSplits
from raytricks.errors import CheckpointError, ConfigError, DataError
from raytricks.inference.answers import ANSWERS_FILE, read_answers
from raytricks.inference.evaluation import Evaluation, evaluation_of
from raytricks.report.model_card import write_model_card
from raytricks.report.noteworthy import noteworthy
from raytricks.report.run_of_page import RunOfPage
from raytricks.report.run_page import write_run_page
from raytricks.training.answering import cross_entropy_of
from raytricks.training.kept_models import load
from raytricks.training.records import METRICS_FILE, read_records
from raytricks.use.evaluating import sized_model
from raytricks.use.labelled import Labelled, SplitName, labelled_images, names_of, run_of

PAGE_FILE, CARD_FILE = "report.html", "MODEL_CARD.md"
_THUMBNAIL = 96


def report(runs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write the page of one run, and its card, or of several side by side; returns the page.

    Args:
        runs: directories of runs.
        out: None: report.html in the run's directory; comparison.html in that of the first of several.

    Raises:
        ConfigError: something is no run, or the page cannot be written.
    """
    found = [run_for_page(Path(run).expanduser(), len(runs)) for run in runs]
    default = found[0].run_dir / (PAGE_FILE if len(found) == 1 else "comparison.html")
    path = default if out is None else Path(out).expanduser()
    if path.suffix != ".html" or not path.parent.is_dir():
        raise ConfigError(f"-o {path}: must be FILE.html in a directory that is there")
    write_run_page(found, path)
    if len(found) == 1:
        write_model_card(found[0], path.with_name(CARD_FILE))
    return path


def evaluation_page(
    found: Evaluation,
    data: str | None,
    split: SplitName,
    path: Path,
    *,
    eval_size: int | None = None,
    trust_code: bool = False,
) -> None:
    """Write the page of an evaluation: as of a run, without curves and recipe.

    Args:
        data, split, eval_size, trust_code: that it was made with.
    """
    model = sized_model(found.model, eval_size, device="cpu", trust_code=trust_code)
    labelled = labelled_images(model, data, run_of(Path(found.model).expanduser()), split)
    pictures = thumbnails(labelled, noteworthy(found).images, model.preprocess.transform)
    write_run_page([RunOfPage(Path(found.model), {}, found.settings, [], found, thumbnails=pictures)], path)


def page_of_trained(run_dir: Path, data: PreparedData, splits: DatasetSplits) -> Path:
    """Write the page and the card of a run that has just ended; its images are not looked for again."""
    evaluated = splits.evaluation
    labelled = Labelled(data.evaluation, names_of(evaluated), f"{splits.name}: {evaluated.origin}", ())
    run = run_for_page(run_dir, labelled=labelled)
    write_run_page([run], run_dir / PAGE_FILE)
    write_model_card(run, run_dir / CARD_FILE)
    return run_dir / PAGE_FILE


def run_for_page(run_dir: Path, num_runs: int = 1, labelled: Labelled | None = None) -> RunOfPage:
    """Read what a run keeps.

    Args:
        num_runs: on the page, which share its pictures.
        labelled: what it evaluated; None: found again, where it is still there.
    """
    if not (run_dir / "config.yaml").is_file() or not (run_dir / "run.json").is_file():
        raise ConfigError(f"{run_dir}: is no directory of a run; it has a config.yaml and a run.json")
    config = load_config(run_dir / "config.yaml", of_run=True).config
    facts = json.loads((run_dir / "run.json").read_text())
    run = RunOfPage(run_dir, flatten(config), facts, read_records(run_dir / METRICS_FILE))
    if not (run_dir / ANSWERS_FILE).is_file():
        why = (
            "it keeps no answers: it is not finished, or an early version made it; `raytricks evaluate` has the figures"
        )
        return _with(run, absence=why)
    try:
        answers, labels = read_answers(run_dir / ANSWERS_FILE)
        trained = load(run_dir, device="cpu")
    except CheckpointError as error:
        return _with(run, absence=str(error))
    absence = ""
    try:
        labelled = labelled or labelled_images(trained, None, run_dir)
    except (DataError, ConfigError) as error:
        absence = f"its images are not shown: {error}"
    logits = answers["val"]
    evaluation = evaluation_of(
        logits,
        labels,
        trained.class_names,
        temperature=trained.temperature,
        cross_entropy=cross_entropy_of(logits, labels),
        model=str(run_dir),
        data=str(facts.get("data", {}).get("name", "")) if labelled is None else labelled.description,
        image_names=() if labelled is None else labelled.names,
        notes=() if labelled is None else labelled.notes,
    )
    run = _with(run, evaluation=evaluation, absence=absence)
    if labelled is None:
        return run
    pictures = thumbnails(labelled, noteworthy(evaluation, num_runs).images, trained.preprocess.transform)
    return _with(run, thumbnails=pictures)


def thumbnails(labelled: Labelled, chosen: Sequence[int], transform) -> dict[int, str]:
    """Return images, as the model sees them, as data: URLs of JPEGs."""
    if not chosen:
        return {}
    read = evaluation_reader(labelled.images.images, transform)
    found = {}
    for part in np.array_split(np.array(chosen), -(-len(chosen) // 64)):
        squares = transform.evaluation_pixels(read(part).pixels).permute(0, 2, 3, 1).numpy()
        for index, square in zip(part.tolist(), squares, strict=True):
            image = Image.fromarray(square[:, :, 0] if square.shape[2] == 1 else square)
            resample = Image.Resampling.NEAREST if image.width < _THUMBNAIL else Image.Resampling.LANCZOS
            file = io.BytesIO()
            side = max(1, _THUMBNAIL // image.width) * image.width if image.width < _THUMBNAIL else _THUMBNAIL
            image.resize((side, side), resample).save(file, "JPEG", quality=82)
            found[index] = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return found


def _with(run: RunOfPage, **values) -> RunOfPage:
    return RunOfPage(**{**vars(run), **values})
