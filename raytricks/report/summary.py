"""The lines after the last step: what came out, where it lies, what to do next."""

from collections.abc import Sequence
import math
from pathlib import Path
from statistics import median
from typing import Any

from raytricks.report.progress import duration


def summary_lines(
    run_dir: Path, records: list[dict[str, Any]], elapsed_s: float, evaluated_on: str, class_names: Sequence[str]
) -> list[str]:
    """Return the summary of a finished run.

    Args:
        records: all records of its metrics.jsonl.
        elapsed_s: of this command, start-up included.
        evaluated_on: name of the evaluation split.
        class_names: in the order of the labels.
    """
    epochs = [r for r in records if r["kind"] == "epoch"]
    last, best = epochs[-1], max((r for r in epochs if "val_top1" in r), key=lambda r: r["val_top1"])
    lines = [
        f"last      epoch {last['epoch']}: top-1 {last['val_top1']:.2%} of {last['val_num_images']:,} images "
        f"({evaluated_on}), loss {last['val_cross_entropy']:.4f}",
        f"best      epoch {best['epoch']}: top-1 {best['val_top1']:.2%}; chosen on the same images, so optimistic",
    ]
    if "val_lowest_recall" in last:  # not in records of early versions
        weakest = class_names[last["val_lowest_recall_class"]]
        lines.append(f"weakest   class {weakest}: {last['val_lowest_recall']:.2%} of its images right")
    if "val_ema_top1" in last:
        lines.append(
            f"average   of the weights: top-1 {last['val_ema_top1']:.2%}, loss {last['val_ema_cross_entropy']:.4f}"
        )
    lines += [_test(record) for record in records if record["kind"] == "test"]
    lines += _noise_scale(epochs)
    average = " model_ema.safetensors," if "val_ema_top1" in last else ""
    trained_s = sum(r["train_s"] + r["val_s"] for r in epochs)
    lines += [
        f"time      {duration(elapsed_s)}, of which training and evaluation {duration(trained_s)} (all launches)",
        f"files     {run_dir}: model.safetensors, model_best.safetensors,{average} metrics.jsonl, config.yaml, "
        "run.json, checkpoints/",
        "next",
        f"  repeat  raytricks train {run_dir}/config.yaml name=again",
        f"  score   raytricks evaluate {run_dir}",
        f"  use     raytricks predict {run_dir} IMAGES -o answers.csv",
        f"  watch   tensorboard --logdir {run_dir.parent}    (pip install tensorboard)",
    ]
    return lines


def _test(record: dict[str, Any]) -> str:
    average = f" (EMA {record['test_ema_top1']:.2%})" if "test_ema_top1" in record else ""
    return f"test      top-1 {record['test_top1']:.2%}{average}, scored once"


def _noise_scale(epochs: list[dict[str, Any]]) -> list[str]:
    """Advise on the batch by the median of the epochs, if the noise was measured."""
    if not any("noise_scale" in record for record in epochs):
        return []
    measured = [record["noise_scale"] for record in epochs if record.get("noise_scale") is not None]
    if not measured:
        return ["noise     the gradient's noise hides its size: a larger batch is safe, how large cannot be told"]
    scale = median(measured)
    return [
        f"noise     gradient noise scale {scale:,.0f}: linear scaling is safe up to about b = {round_down(scale):,}"
    ]


def round_down(images: float) -> int:
    """Return the largest power of two that is not larger, at least 1."""
    return 2 ** max(0, math.floor(math.log2(max(images, 1))))
