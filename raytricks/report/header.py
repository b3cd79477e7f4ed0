"""The lines before the first step: what is about to be trained, on what and how."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raytricks.config import flatten
from raytricks.config.problems import show_value
from raytricks.config.schema import Change, ExperimentConfig
from raytricks.data.splits import WARNING, DatasetSplits
from raytricks.parts.bring import describe
from raytricks.parts.registry import of_kind
from raytricks.parts.tricks import DistillationConfig
from raytricks.recipe.doctor import Finding
from raytricks.recipe.parallel_plan import ParallelPlan
from raytricks.recipe.phases import Phase
from raytricks.recipe.recipe import Recipe
from raytricks.recipe.resolve import DatasetStats, training_sides

_LISTED_CLASSES = 10
_NAMED = ("name", "weight_decay")


def header_lines(
    config: ExperimentConfig,
    splits: DatasetSplits,
    stats: DatasetStats,
    phases: Sequence[Phase],
    parallel: ParallelPlan,
    *,
    precision: str,
    run_dir: Path | None,
    num_parameters: int,
    num_macs: int,
    findings: Sequence[Finding] = (),
) -> list[str]:
    """Return the header, one "label  text" line a subject and a finding of the recipe doctor."""
    rows = [
        ("run", f"{run_dir or 'dry run, nothing is written'}, seed {config.seed}"),
        ("data", _data(splits, stats)),
        ("classes", _classes(splits)),
        ("images", _images(config)),
        (
            "model",
            f"{_model(config)}, {num_parameters / 1e6:.2f} M parameters, {num_macs / 1e6:,.1f} MMACs an image",
        ),
        ("recipe", _recipe(config, phases[0].recipe)),
        ("lr", _lr(phases)),
        *[("change", _change(change, phase.recipe)) for change, phase in zip(config.changes, phases[1:], strict=True)],
        *_tricks(config),
        ("hardware", _hardware(parallel, precision, config)),
    ]
    rows += [("part", f"{part.kind} {part.spec}, {part.fingerprint[:12]}") for part in describe(config.brought)]
    if config.tricks.distillation.teacher is not None:
        rows.append(("teacher", _teacher(config.tricks.distillation)))
    rows += [("doctor", f"warning {finding}") for finding in findings]
    rows += [("note", note) for note in splits.notes if not note.startswith(WARNING)]  # which are findings
    return [f"{label:9} {text}" for label, text in rows]


def _data(splits: DatasetSplits, stats: DatasetStats) -> str:
    parts = [f"{splits.name}: {len(splits.train):,} to train on ({splits.train.origin})"]
    parts.append(f"{len(splits.evaluation):,} to evaluate on ({splits.evaluation.origin})")
    if splits.test is not None:
        parts.append(f"{len(splits.test):,} to score once ({splits.test.origin})")
    return ", ".join(parts) + f"; {stats.size_text}, {'gray' if stats.is_grayscale else 'colour'}"


def _classes(splits: DatasetSplits) -> str:
    """List the classes under their indices, with their training images; of many, the first and the last."""
    counts = np.bincount(splits.train.labels, minlength=splits.num_classes)
    if splits.num_classes <= _LISTED_CLASSES:
        classes = enumerate(zip(splits.class_names, counts, strict=True))
        return f"{splits.num_classes}: " + ", ".join(f"{i} = {name} ({count:,})" for i, (name, count) in classes)
    listed = ", ".join(f"{index} = {name}" for index, name in enumerate(splits.class_names[: _LISTED_CLASSES - 1]))
    fewest = f"{counts.min():,} to " if counts.min() < counts.max() else ""
    last = f"{splits.num_classes - 1} = {splits.class_names[-1]}"
    return f"{splits.num_classes}: {listed}, ..., {last}; {fewest}{counts.max():,} training images each"


def _images(config: ExperimentConfig) -> str:
    data = config.data
    kind = {
        "none": "no augmentation",
        "shift": f"shift up to {data.shift_pixels} px" if data.shift_pixels else "no shift",
        "random_resized_crop": f"random crop of {data.crop_scale[0]:.0%} to {data.crop_scale[1]:.0%} of the area",
    }[data.augmentation or "none"]
    flip = ", flip" if data.horizontal_flip and data.augmentation != "none" else ""
    sides = training_sides(config)
    rising = f", growing to {sides[-1]} x {sides[-1]}" if sides[-1] != sides[0] else ""
    other = data.eval_size or data.image_size
    evaluated = f", evaluated at {other} x {other}" if (other, other) != (sides[0], sides[-1]) else ""
    return f"{data.channels} x {sides[0]} x {sides[0]}{rising}{evaluated}; {kind}{flip}"


def _model(config: ExperimentConfig) -> str:
    model = config.model
    start = ", pretrained" if model.pretrained else f", from {model.init_from}" if model.init_from else ""
    if model.stem is None:
        return f"{model.name}{start}"
    return f"{model.name}-{model.variant}, {model.stem} stem, width {model.width}, {model.norm} norm{start}"


def _recipe(config: ExperimentConfig, recipe: Recipe) -> str:
    optimizer = config.optimizer
    fields = type(optimizer).model_fields
    shown = [  # of an optimizer of the user's own, what differs from its defaults
        (name, value)
        for name, value in optimizer
        if name not in _NAMED and (":" not in optimizer.name or value != fields[name].default)
    ]
    settings = ", ".join(f"{name} {show_value(value)}" for name, value in shown) or "its defaults"
    return (
        f"{recipe.epochs} epochs x {recipe.steps_per_epoch:,} steps of {recipe.global_batch_size:,} images; "
        f"{optimizer.name}, {settings}, weight decay {optimizer.weight_decay:g}; {config.loss.name.replace('_', ' ')}"
    )


def _lr(phases: Sequence[Phase]) -> str:
    recipe, last = phases[0].recipe, phases[-1]
    warmup = f"warmup over {recipe.warmup_steps:,} steps" if recipe.warmup_steps else "no warmup"
    return (
        f"{recipe.lr(1):.4g} first, {recipe.peak_lr:.4g} peak (base {recipe.base_lr:g} at 256), "
        f"{last.recipe.lr(last.end_step):.2g} last; {warmup}, then {recipe.decay_kind}"
    )


def _change(change: Change, recipe: Recipe) -> str:
    values = ", ".join(f"{key} {show_value(value)}" for key, value in change.values.items())
    return (
        f"after epoch {change.epoch}: {values}; {recipe.steps_per_epoch:,} steps an epoch, lr "
        f"{recipe.lr(recipe.first_step + 1):.4g}"
    )


def _tricks(config: ExperimentConfig) -> list[tuple[str, str]]:
    """Return the row of the tricks that are on, with their values, and of those that are off."""
    values = flatten(config)
    shown = [row for row in of_kind("trick", config.rows) if not row.has_own_row]
    on = [row.label(values) for row in shown if row.is_on(values)]
    off = [row.plain_title for row in shown if not row.is_on(values)]
    return [("tricks", ", ".join(on) or "none"), ("off", ", ".join(off) or "none")]


def _teacher(distillation: DistillationConfig) -> str:
    cached = f"; logits kept in {distillation.cache_dir}" if distillation.cache_dir else "; asked in every step"
    return (
        f"{distillation.teacher}, T {distillation.temperature:g}, {distillation.hard_weight:g} of the labels and "
        f"{distillation.soft_weight:g} of the teacher{cached}"
    )


def _hardware(parallel: ParallelPlan, precision: str, config: ExperimentConfig) -> str:
    fewest, most = config.fewest_workers, config.most_workers
    count = f"{fewest} to {most}" if config.is_elastic else f"{most}"
    where = f"{count} Ray worker{'s' if most > 1 else ''}" if most else "this process"
    micro = f" in {parallel.accumulation_steps} steps" if parallel.accumulation_steps > 1 else ""
    computes = "the precision that all of them compute" if precision == "auto" else precision
    return (
        f"{where} on {parallel.device_type}, {computes}, {parallel.images_per_worker} images each{micro}"
        f"{f' on {most}' if config.is_elastic else ''}"
    )
