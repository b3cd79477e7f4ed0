"""Compare recipes on real data: each arm is a config with some settings changed, over several seeds.

    python benchmarks/compare_recipes.py configs/fashion_mnist.yaml --seeds 0 1 2 --output runs/compare \
        --arm plain tricks.decay.kind=step tricks.label_smoothing.epsilon=0.0 \
        --arm tricks tricks.random_erasing.probability=0.25 tricks.ema.decay=0.995

All arms train for the same epochs. A seed is one pair: initialisation, order and augmentation are
shared, so the differences to the first arm are paired. Finished runs of the same name are not run
again, so an interrupted comparison goes on where it was. Prints mean, standard deviation over the
seeds, the paired difference with its standard error, and the time.
"""

import argparse
from pathlib import Path
import statistics

import raytricks
from raytricks.training.records import read_records
from raytricks.training.run_files import MODEL_FILE

METRICS = ("val_top1", "val_ema_top1")


def main() -> None:
    """Run all arms, seed by seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("runs/compare"))
    parser.add_argument("--arm", nargs="+", action="append", required=True, metavar=("NAME", "KEY=VALUE"))
    arguments = parser.parse_args()
    results: dict[str, list[dict]] = {arm[0]: [] for arm in arguments.arm}
    for seed in arguments.seeds:
        for name, *settings in arguments.arm:
            record = last_epoch(arguments.config, f"{name}-{seed}", seed, settings, arguments.output)
            results[name].append(record)
            shown = ", ".join(f"{metric} {record[metric]:.2%}" for metric in METRICS if metric in record)
            print(f"{name} seed {seed}: {shown}, training {record['total_train_s']:.0f} s", flush=True)
    print_table(results)


def last_epoch(config: str, name: str, seed: int, settings: list[str], output: Path) -> dict:
    """Train, or read the finished run of that name; return its last epoch and its training time."""
    if not (output / name / MODEL_FILE).is_file():
        raytricks.train(config, [*settings, f"seed={seed}", f"name={name}", f"output_dir={output}"])
    epochs = [r for r in read_records(output / name / "metrics.jsonl") if r["kind"] == "epoch"]
    return epochs[-1] | {"total_train_s": sum(r["train_s"] for r in epochs)}


def print_table(results: dict[str, list[dict]]) -> None:
    """Print a line for each arm and each of its metrics, against the first arm's weights."""
    base = [record["val_top1"] for record in next(iter(results.values()))]
    for name, records in results.items():
        for metric in METRICS:
            values = [record[metric] for record in records if metric in record]
            if not values:
                continue
            differences = [value - other for value, other in zip(values, base, strict=True)]
            print(
                f"{name:12} {metric:13} mean {statistics.mean(values):.2%} sd {spread(values):.2%} of {len(values)}; "
                f"paired difference {statistics.mean(differences) * 100:+.2f} points "
                f"+- {spread(differences) * 100 / len(differences) ** 0.5:.2f} (standard error); "
                f"training {statistics.median(r['total_train_s'] for r in records):.0f} s (median)"
            )


def spread(values: list[float]) -> float:
    """Return the standard deviation of the sample, 0 of a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
