"""The lines after the last step: what came out, where it lies, what to do next."""

from pathlib import Path
from typing import Any

from raytricks.report.progress import duration


def summary_lines(run_dir: Path, records: list[dict[str, Any]], elapsed_s: float, evaluated_on: str) -> list[str]:
    """Return the summary of a finished run.

    Args:
        records: all records of its metrics.jsonl.
        elapsed_s: of this command, start-up included.
        evaluated_on: name of the evaluation split.
    """
    epochs = [r for r in records if r["kind"] == "epoch"]
    last, best = epochs[-1], max(epochs, key=lambda r: r["val_top1"])
    lines = [
        f"last      epoch {last['epoch']}: top-1 {last['val_top1']:.2%} of {last['val_num_images']:,} images "
        f"({evaluated_on}), loss {last['val_cross_entropy']:.4f}",
        f"best      epoch {best['epoch']}: top-1 {best['val_top1']:.2%}; chosen on the same images, so optimistic",
    ]
    lines += [f"test      top-1 {r['test_top1']:.2%}, scored once" for r in records if r["kind"] == "test"]
    trained_s = sum(r["train_s"] + r["val_s"] for r in epochs)
    lines += [
        f"time      {duration(elapsed_s)}, of which training and evaluation {duration(trained_s)} (all launches)",
        f"files     {run_dir}: model.safetensors, metrics.jsonl, config.yaml, run.json, checkpoints/",
        "next",
        f"  repeat  raytricks train {run_dir}/config.yaml name=again",
        f"  use     python -c \"import raytricks; print(raytricks.load_model('{run_dir}').class_names)\"",
        f"  watch   tensorboard --logdir {run_dir.parent}    (pip install tensorboard)",
    ]
    return lines
