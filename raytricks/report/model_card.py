"""MODEL_CARD.md of a run, in the format of Hugging Face's cards, filled from the run and nothing else."""

from collections.abc import Sequence
from html import escape
from pathlib import Path, PurePath
import re
from typing import Any

import yaml

from raytricks.files import write_atomically
from raytricks.inference.evaluation import Evaluation
from raytricks.report.evaluation_lines import number, percent
from raytricks.report.run_of_page import RunOfPage

_RECIPE = ("recipe.", "optimizer.", "model.", "tricks.", "data.augmentation", "data.image_size", "seed")
_MOST_NAMES, _MOST_ROWS, _MOST_ABSENT = 50, 20, 20


def write_model_card(run: RunOfPage, path: Path) -> None:
    """Write the card; what the run does not know, such as a licence, is not in it."""
    found = run.evaluation
    name, network = _text(run.name), _text(str(run.settings.get("model.name")))
    by = f"raytricks {run.version}".strip()
    parts = [
        f"---\n{_yaml(_metadata(run))}---\n",
        f"# {name}\n",
        f"An image classifier ({network}) trained with {by}.\n",
    ]
    if found is not None:
        parts += [_data(run, found), _metrics(found), _classes(found)]
    else:
        parts.append(f"Not evaluated: {_text(run.absence or 'no answers are kept')}.\n")
    parts += [_recipe(run), _limits(found), _use()]
    write_atomically(path, "\n".join(parts).encode())


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _text(value: str) -> str:
    """Return a text that markdown shows as it is, on one line and within a cell."""
    line = escape(" ".join(value.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", line)


def _metadata(run: RunOfPage) -> dict[str, Any]:
    told: dict[str, Any] = {
        "library_name": "raytricks",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "raytricks"],
    }
    found = run.evaluation
    if found is None:
        return told
    figures = found.figures
    metrics = [("accuracy", figures.top1.value), ("f1", figures.macro_f1.value)]
    values = [{"type": kind, "value": round(value, 6)} for kind, value in metrics if value is not None]
    name, _, split = found.data.rpartition(": ")
    name = PurePath(name).name or "images"  # the folders above it are nobody's business
    told["metrics"] = [value["type"] for value in values]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"type": name, "name": f"{name}: {split}" if split else name},
        "metrics": values,
    }
    told["model-index"] = [{"name": run.name, "results": [result]}]
    return told


def _data(run: RunOfPage, found: Evaluation) -> str:
    names = ", ".join(map(_text, found.figures.class_names[:_MOST_NAMES]))
    more = found.figures.num_classes - _MOST_NAMES
    classes = f"{names} and {more:,} more" if more > 0 else names
    trained = run.facts.get("data", {}).get("num_train")
    lines = [f"- trained on {trained:,} images"] if isinstance(trained, int) else []
    lines.append(f"- evaluated on {found.figures.num_images:,} images that trained nothing")
    lines += [f"- {_text(note)}" for note in found.notes]
    lines.append(f"- {found.figures.num_classes:,} classes: {classes}")
    return "## Data\n\n" + "\n".join(lines) + "\n"


def _metrics(found: Evaluation) -> str:
    figures = found.figures
    rows = [("top-1", percent(figures.top1)), ("cross-entropy", number(figures.cross_entropy))]
    rows += [] if figures.top5 is None else [("top-5", percent(figures.top5))]
    rows += [("balanced accuracy", percent(figures.balanced_accuracy)), ("macro F1", percent(figures.macro_f1))]
    rows.append(("ECE", f"{figures.ece.value:.4f} (by chance up to {figures.ece.null_95:.4f})"))
    if found.calibrated is not None:
        ece, temperature = found.calibrated.ece, found.calibrated.temperature
        text = f"{ece.value:.4f} (by chance up to {ece.null_95:.4f}); T = {temperature:.3f}, fitted to the same images"
        rows.append(("ECE, calibrated", text))
    how = "[low, high] are 95% intervals: Wilson for top-1 and top-5, bootstrap for the others."
    return f"## Metrics\n\n{how}\n\n{_table(('metric', 'value'), rows)}\n"


def _classes(found: Evaluation) -> str:
    rows = sorted(found.figures.classes, key=lambda row: 2.0 if row.recall.value is None else row.recall.value)
    shown = [
        (_text(row.name), f"{row.support:,}", percent(row.precision), percent(row.recall)) for row in rows[:_MOST_ROWS]
    ]
    which = "The classes with the lowest recall" if len(shown) < len(rows) else "Classes, lowest recall first"
    return f"{which}:\n\n{_table(('class', 'images', 'precision', 'recall'), shown)}\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _recipe(run: RunOfPage) -> str:
    kept = {key: value for key, value in sorted(run.settings.items()) if key.startswith(_RECIPE) and value is not None}
    fence = "```"
    while fence in (text := _yaml(kept)):
        fence += "`"
    return f"## Recipe\n\n{fence}yaml\n{text}{fence}\n\nThe whole of it is in config.yaml.\n"


def _limits(found: Evaluation | None) -> str:
    lines = ["It knows only the classes it was trained on and answers one of them to any picture."]
    if found is not None:
        lines.append("The figures hold for pictures like those that it was evaluated on.")
        scored = [row for row in found.figures.classes if row.recall.value is not None]
        weak = min(scored, key=lambda row: row.recall.value or 0.0)
        lines.append(f"The class with the lowest recall is {_text(weak.name)}: {percent(weak.recall)}.")
        absent = [_text(row.name) for row in found.figures.classes if not row.support]
        more = f" and {len(absent) - _MOST_ABSENT} more" if len(absent) > _MOST_ABSENT else ""
        lines += [f"Not evaluated, for want of images: {', '.join(absent[:_MOST_ABSENT])}{more}."] if absent else []
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def _use() -> str:
    return (
        "## Use\n\n```python\nimport raytricks\n\nmodel = raytricks.load(\"model.safetensors\")\n"
        "print(model.predict(\"photo.jpg\").top(3))\n```\n\n"
        "```console\nraytricks predict model.safetensors photo.jpg\n```\n"
    )  # fmt: skip
