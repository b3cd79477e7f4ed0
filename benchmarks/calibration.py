"""What calibration changes, and how often `--precision` breaks its promise, on a run's own answers.

    python benchmarks/calibration.py RUN [--precision 0.98] [--resamplings 200] [--images 2000]

ECE of the images before and after the temperature that was fitted to the evaluation images, each beside that of a
perfectly calibrated model. Then, for each resampling: a threshold is chosen on some of the answers, drawn at random;
the others are answered; the promise is broken where fewer than the promised part of them is right. Beside it the choice
that a user would make without the bound: the largest coverage whose precision looks right.
"""

import argparse

import numpy as np

import raytricks
from raytricks.inference.rows import plain_confidence
from raytricks.inference.selective import threshold_for_precision


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--split", default="auto")
    parser.add_argument("--precision", type=float, default=0.98)
    parser.add_argument("--resamplings", type=int, default=200)
    parser.add_argument("--images", type=int, default=2000)
    arguments = parser.parse_args()
    found = raytricks.evaluate(arguments.run, split=arguments.split)
    print(f"{found.data}: {found.figures.num_images:,} images, top-1 {found.figures.top1.value:.2%}")
    for name, figures in (("before", found.figures), ("after", found.calibrated)):
        if figures is not None:
            ece = figures.ece
            print(
                f"{name:<7} T {figures.temperature:.3f}  ECE {ece.value:.4f} (null: mean {ece.null_mean:.4f}, 95% "
                f"{ece.null_95:.4f})  loss {figures.cross_entropy.value:.4f}  Brier {figures.brier.value:.4f}"
            )
    confidence, correct = plain_confidence(found.logits), found.logits.argmax(axis=1) == found.labels
    _promise(confidence, correct, arguments)


def _promise(confidence: np.ndarray, correct: np.ndarray, arguments: argparse.Namespace) -> None:
    rng, promised = np.random.default_rng(0), arguments.precision
    chosen = min(arguments.images, len(correct) // 2)
    broken = {"ours": 0, "naive": 0}
    coverage: dict[str, list[float]] = {"ours": [], "naive": []}
    for _ in range(arguments.resamplings):
        order = rng.permutation(len(correct))
        some, others = order[:chosen], order[chosen:]
        guarantee = threshold_for_precision(confidence[some], correct[some], promised)
        thresholds = {"ours": None if guarantee is None else guarantee.threshold}
        thresholds["naive"] = _naive(confidence[some], correct[some], promised)
        for name, threshold in thresholds.items():
            accepted = np.zeros(len(others), bool) if threshold is None else confidence[others] >= threshold
            coverage[name].append(float(accepted.mean()))
            broken[name] += bool(accepted.any() and correct[others][accepted].mean() < promised)
    print(f"precision {promised:g} chosen on {chosen:,} images, {arguments.resamplings} resamplings:")
    for name, count in broken.items():
        parts = coverage[name]
        low, high = np.quantile(parts, (0.05, 0.95))
        print(
            f"{name:<6} broken in {count / arguments.resamplings:.1%}; answers {np.mean(parts):.1%} of the images "
            f"(5% to 95%: {low:.1%} to {high:.1%}); no threshold in {sum(part == 0 for part in parts)}"
        )


def _naive(confidence: np.ndarray, correct: np.ndarray, promised: float) -> float | None:
    order = np.argsort(-confidence)
    precise = np.cumsum(correct[order]) / np.arange(1, len(order) + 1) >= promised
    return float(confidence[order][np.flatnonzero(precise)[-1]]) if precise.any() else None


if __name__ == "__main__":
    main()
