"""The lines before the first step: what is about to be trained, on what and how."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raytricks.config.schema import ExperimentConfig, TricksConfig
from raytricks.data.catalog import Catalog
from raytricks.recipe.doctor import Finding
from raytricks.recipe.execution import Execution
from raytricks.recipe.facts import DataFacts
from raytricks.recipe.recipe import Recipe

_LISTED_CLASSES = 10


def header_lines(
    config: ExperimentConfig,
    catalog: Catalog,
    facts: DataFacts,
    recipe: Recipe,
    execution: Execution,
    *,
    run_dir: Path | None,
    num_parameters: int,
    num_macs: int,
    findings: Sequence[Finding] = (),
) -> list[str]:
    """Return the header, one "label  text" line a subject and a finding of the recipe doctor."""
    rows = [
        ("run", f"{run_dir or 'dry run, nothing is written'}, seed {config.seed}"),
        ("data", _data(catalog, facts)),
        ("classes", _classes(catalog)),
        ("images", _images(config)),
        (
            "model",
            f"{_model(config)}, {num_parameters / 1e6:.2f} M parameters, {num_macs / 1e6:,.1f} MMACs an image",
        ),
        ("recipe", _recipe(config, recipe)),
        ("lr", _lr(recipe)),
        ("tricks", _tricks(config.tricks)),
        ("hardware", _hardware(execution, config.workers)),
    ]
    rows += [("doctor", f"warning {finding}") for finding in findings]
    rows += [("note", note) for note in catalog.notes]
    return [f"{label:9} {text}" for label, text in rows]


def _data(catalog: Catalog, facts: DataFacts) -> str:
    parts = [f"{catalog.name}: {len(catalog.train):,} to train on"]
    parts.append(f"{len(catalog.evaluation):,} to evaluate on ({catalog.evaluation.origin})")
    if catalog.test is not None:
        parts.append(f"{len(catalog.test):,} to score once ({catalog.test.origin})")
    return ", ".join(parts) + f"; {facts.size_text}, {'gray' if facts.is_grayscale else 'colour'}"


def _classes(catalog: Catalog) -> str:
    counts = np.bincount(catalog.train.labels, minlength=catalog.num_classes)
    if catalog.num_classes <= _LISTED_CLASSES:
        listed = ", ".join(f"{name} {count:,}" for name, count in zip(catalog.class_names, counts, strict=True))
        return f"{catalog.num_classes}: {listed}"
    return f"{catalog.num_classes}, of {counts.min():,} to {counts.max():,} training images"


def _images(config: ExperimentConfig) -> str:
    data = config.data
    kind = {
        "none": "no augmentation",
        "shift": f"shift up to {data.shift_pixels} px" if data.shift_pixels else "no shift",
        "random_resized_crop": f"random crop of {data.crop_scale[0]:.0%} to {data.crop_scale[1]:.0%} of the area",
    }[data.augmentation or "none"]
    flip = ", flip" if data.horizontal_flip and data.augmentation != "none" else ""
    return f"{data.channels} x {data.image_size} x {data.image_size}; {kind}{flip}"


def _model(config: ExperimentConfig) -> str:
    model = config.model
    if model.stem is None:
        return str(model.name)
    return f"{model.name}-{model.variant}, {model.stem} stem, width {model.width}, {model.norm} norm"


def _recipe(config: ExperimentConfig, recipe: Recipe) -> str:
    optimizer = config.optimizer
    return (
        f"{recipe.epochs} epochs x {recipe.steps_per_epoch:,} steps of {recipe.global_batch_size:,} images; "
        f"{optimizer.name}, momentum {optimizer.momentum:g}{' Nesterov' if optimizer.nesterov else ''}, "
        f"weight decay {optimizer.weight_decay:g}"
    )


def _lr(recipe: Recipe) -> str:
    warmup = f"warmup over {recipe.warmup_steps:,} steps" if recipe.warmup_steps else "no warmup"
    return (
        f"{recipe.lr(1):.4g} first, {recipe.peak_lr:.4g} peak (base {recipe.base_lr:g} at 256), "
        f"{recipe.lr(recipe.total_steps):.2g} last; {warmup}, then {recipe.decay_kind}"
    )


def _tricks(tricks: TricksConfig) -> str:
    smoothing, mixup = tricks.label_smoothing, tricks.mixup
    states = [
        (f"{tricks.lr_scaling} lr scaling", tricks.lr_scaling != "none"),
        ("warmup", tricks.warmup.epochs > 0),
        ("cosine decay", tricks.decay.kind == "cosine"),
        ("zero gamma", tricks.zero_gamma),
        ("no bias decay", tricks.no_bias_decay),
        (f"label smoothing {smoothing.epsilon:g} ({smoothing.form})", smoothing.epsilon > 0),
        (f"mixup {mixup.alpha:g}", mixup.alpha > 0),
    ]
    on = ", ".join(name for name, is_on in states if is_on)
    off = ", ".join(_without_value(name) for name, is_on in states if not is_on)
    return f"on: {on or 'none'}; off: {off or 'none'}"


def _without_value(name: str) -> str:
    return " ".join(word for word in name.split() if not word[0].isdigit() and not word.startswith(("(", "none")))


def _hardware(execution: Execution, workers: int) -> str:
    where = f"{workers} Ray worker{'s' if workers > 1 else ''}" if workers else "this process"
    micro = f" in {execution.accumulation_steps} steps" if execution.accumulation_steps > 1 else ""
    return (
        f"{where} on {execution.device_type}, {execution.precision}, {execution.images_per_worker} images each{micro}"
    )
