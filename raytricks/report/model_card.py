"""MODEL_CARD.md of a run, in the format of Hugging Face's cards, filled from the run and nothing else."""

from pathlib import Path
from typing import Any

import yaml

from raytricks.files import write_atomically
from raytricks.inference.evaluation import Evaluation
from raytricks.report.evaluation_lines import number, percent
from raytricks.report.run_of_page import RunOfPage


def write_model_card(run: RunOfPage, path: Path) -> None:
    """Write the card; what the run does not know, such as a licence, is not in it."""
    found = run.evaluation
    parts = [f"---\n{yaml.safe_dump(_metadata(run), sort_keys=False, allow_unicode=True)}---\n", f"# {run.name}\n"]
    network = run.settings.get("model.name")
    parts.append(f"An image classifier ({network}) trained with raytricks {_version(run)}.\n")
    if found is not None:
        parts += [_data(found), _metrics(found), _classes(found)]
    parts += [_recipe(run), _limits(found), _use(run)]
    write_atomically(path, "\n".join(part for part in parts if part).encode())


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
    name = found.data.partition(":")[0] or "images"
    told["metrics"] = [kind for kind, _ in metrics]
    told["model-index"] = [
        {
            "name": run.name,
            "results": [
                {
                    "task": {"type": "image-classification"},
                    "dataset": {"type": name, "name": found.data},
                    "metrics": [
                        {"type": kind, "value": round(value, 6)} for kind, value in metrics if value is not None
                    ],
                }
            ],
        }
    ]
    return told


def _data(found: Evaluation) -> str:
    names = ", ".join(f"`{name}`" for name in found.figures.class_names[:50])
    more = found.figures.num_classes - 50
    classes = f"{names} and {more} more" if more > 0 else names
    count = f"{found.figures.num_images:,}"
    return f"## Data\n\nEvaluated on {found.data}: {count} images that trained nothing. Classes: {classes}.\n"


def _metrics(found: Evaluation) -> str:
    figures = found.figures
    rows = [("top-1", percent(figures.top1)), ("cross-entropy", number(figures.cross_entropy))]
    rows += [("balanced accuracy", percent(figures.balanced_accuracy)), ("macro F1", percent(figures.macro_f1))]
    rows.append(("ECE", f"{figures.ece.value:.4f} (by chance up to {figures.ece.null_95:.4f})"))
    if found.calibrated is not None:
        ece = found.calibrated.ece
        text = f"{ece.value:.4f} (by chance up to {ece.null_95:.4f}); the temperature was fitted to the same images"
        rows.append(("ECE, calibrated", text))
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    how = "[low, high] are 95% intervals: Wilson for top-1, bootstrap for the others."
    return f"## Metrics\n\n{how}\n\n| | |\n|---|---|\n{table}\n"


def _classes(found: Evaluation) -> str:
    rows = sorted(found.figures.classes, key=lambda row: 2.0 if row.recall.value is None else row.recall.value)[:20]
    table = "\n".join(
        f"| {row.name.replace('|', '/')} | {row.support:,} | {percent(row.precision)} | {percent(row.recall)} |"
        for row in rows
    )
    which = (
        "The classes with the lowest recall"
        if len(rows) < found.figures.num_classes
        else "Classes, lowest recall first"
    )
    return f"{which}:\n\n| class | images | precision | recall |\n|---|---|---|---|\n{table}\n"


def _recipe(run: RunOfPage) -> str:
    kept = {
        key: value for key, value in sorted(run.settings.items()) if key.startswith(("recipe.", "optimizer.", "model."))
    }
    lines = "\n".join(f"{key}: {value}" for key, value in kept.items() if value is not None)
    return f"## Recipe\n\n```yaml\n{lines}\n```\n\nThe whole of it is in config.yaml.\n"


def _limits(found: Evaluation | None) -> str:
    lines = ["It knows only the classes above and answers one of them to any picture."]
    lines.append("The figures hold for pictures like those that it was evaluated on.")
    if found is not None:
        absent = [row.name for row in found.figures.classes if not row.support]
        weak = min(
            (row for row in found.figures.classes if row.recall.value is not None),
            key=lambda row: row.recall.value or 0,
        )
        lines.append(f"The class with the lowest recall is {weak.name}: {percent(weak.recall)}.")
        lines += [f"Not evaluated, for want of images: {', '.join(absent[:20])}."] if absent else []
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def _use(run: RunOfPage) -> str:
    return (
        "## Use\n\n```python\nimport raytricks\n\nmodel = raytricks.load(\"model.safetensors\")\n"
        "print(model.predict(\"photo.jpg\").top(3))\n```\n"
    )  # fmt: skip


def _version(run: RunOfPage) -> str:
    return str(run.facts.get("versions", {}).get("raytricks", ""))
