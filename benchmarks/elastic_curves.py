"""Loss curves of one recipe on 1 worker, on 2, and on 2, then 1, then 2 again, and their largest difference.

    python benchmarks/elastic_curves.py --epochs 9 --page elastic.html

A real Ray cluster of a head and two nodes of one CPU each on this machine. In the third run a node is
drained with 30 s of notice (or lost, with --loss) at a third of the run, and replaced once the run has
gone on with one worker. The network has no batch norm: nothing else depends on the number of workers.
"""

import argparse
from collections.abc import Callable
import logging
from pathlib import Path
import tempfile
import time

import numpy as np

import raytricks
from raytricks.cluster.session import prepare_environment
from raytricks.training.records import read_records

_NOTICE_S = 30
_PREEMPTION = 2  # Ray's number for this reason to drain a node


class Nodes:
    """A head without CPUs, for the driver, and two nodes."""

    def __init__(self) -> None:
        prepare_environment()
        import ray
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._nodes = [self._cluster.add_node(num_cpus=1) for _ in range(2)]
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level=logging.ERROR)

    def lose(self) -> None:
        """End a node."""
        self._cluster.remove_node(self._nodes.pop(), allow_graceful=False)

    def drain(self) -> None:
        """Tell that a node will be gone."""
        from ray._raylet import GcsClient

        deadline_ms = int((time.time() + _NOTICE_S) * 1000)
        gcs = GcsClient(address=self._cluster.address)
        gcs.drain_node(self._nodes[-1].node_id, _PREEMPTION, "spot instance", deadline_ms)

    def replace(self) -> None:
        """Add a node; one that was drained ends."""
        if len(self._nodes) == 2:
            self.lose()
        self._nodes.append(self._cluster.add_node(num_cpus=1))


class Script:
    """Stands in for a Reporter: does something at a step, and something else once the run has gone on after it."""

    mode = "quiet"

    def __init__(self, at_step: int, first: Callable[[], None], then: Callable[[], None]) -> None:
        self._at_step, self._actions = at_step, [first, then]
        self.changes: list[int] = []

    def record(self, record: dict) -> None:
        """Take a record of the run."""
        if record["kind"] == "note":
            print(f"  step {record['step']}: {record['text']}")
            self.changes.append(record["step"])
            self._at_step = record["step"] + 8
        elif record["kind"] == "step" and self._actions and record["step"] >= self._at_step:
            self._actions.pop(0)()
            self._at_step = 10**9

    def __getattr__(self, name: str):
        return lambda *_: None


def settings(folder: Path, epochs: int, **changes: object) -> dict[str, object]:
    """Return a run's settings."""
    return {
        "data.source": "digits",
        "data.image_size": 40,
        "data.horizontal_flip": False,
        "model.name": "resnet8",
        "model.norm": "group",
        "recipe.epochs": epochs,
        "recipe.global_batch_size": 63,  # odd: two workers take 31 and 32 images
        "tricks.warmup.epochs": 1.0,
        "tricks.mixup.alpha": 0.2,
        "hardware.precision": "fp32",
        "hardware.cpus_per_worker": 1,
        "hardware.resize_every_s": 3.0,
        "hardware.start_timeout_s": 30.0,
        "checkpoint.every_steps": 10,
        "logging.every_steps": 1,
        "logging.tensorboard": False,
        "output_dir": str(folder),
    } | {key.replace("__", "."): value for key, value in changes.items()}


def curve(run_dir: Path) -> np.ndarray:
    """Return the objective of each step that counts in the end."""
    found = {r["step"]: r["objective"] for r in read_records(run_dir / "metrics.jsonl") if r["kind"] == "step"}
    return np.array([found[step] for step in range(1, len(found) + 1)])


def differences(curves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the relative difference of each curve to the first."""
    first = next(iter(curves.values()))
    return {name: np.abs(values / first - 1) for name, values in curves.items()}


def draw(curves: dict[str, np.ndarray], changes: list[int], page: Path) -> None:
    """Write the curves and their differences as an HTML page that needs no network; lines where workers changed."""
    from plotly import graph_objects
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.65, 0.35], vertical_spacing=0.06)
    looks = (("#1f77b4", "solid", 5), ("#ff7f0e", "dash", 3), ("#111111", "dot", 2))
    for (name, values), gaps, look in zip(curves.items(), differences(curves).values(), looks, strict=True):
        steps = np.arange(1, len(values) + 1)
        line = dict(zip(("color", "dash", "width"), look, strict=True))
        figure.add_trace(graph_objects.Scatter(x=steps, y=values, name=name, line=line), row=1, col=1)
        shown = np.where(gaps > 0, gaps, np.nan)  # a log axis has no place for equal values
        thin = line | {"width": 1.5}
        figure.add_trace(graph_objects.Scatter(x=steps, y=shown, line=thin, showlegend=False), row=2, col=1)
    for step in changes:
        figure.add_vline(x=step, line={"color": "#999999", "dash": "dot", "width": 1})
    figure.update_yaxes(title="objective", row=1, col=1)
    figure.update_yaxes(title="relative difference", type="log", exponentformat="power", dtick=1, row=2, col=1)
    figure.update_xaxes(title="optimizer step", row=2, col=1)
    figure.update_layout(template="plotly_white", width=900, height=560, margin={"t": 30, "r": 20})
    figure.write_html(page, include_plotlyjs=True, config={"displayModeBar": False})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--loss", action="store_true", help="a node is lost without notice")
    parser.add_argument("--page", type=Path, default=None, help="HTML file to write")
    arguments = parser.parse_args()
    nodes = Nodes()
    folder = Path(tempfile.mkdtemp())
    script = Script(arguments.epochs * 22 // 3, nodes.lose if arguments.loss else nodes.drain, nodes.replace)
    runs = (("1 worker", 1, None), ("2 workers", 2, None), ("2, 1, 2 workers", (1, 2), script))
    curves = {}
    for number, (name, workers, reporter) in enumerate(runs):
        overrides = settings(folder, arguments.epochs, name=f"run{number}", workers=workers)
        print(name)
        curves[name] = curve(raytricks.train(None, overrides, reporter=reporter).run_dir)  # type: ignore[arg-type,union-attr]
    for name, gaps in differences(curves).items():
        print(
            f"{name:16} {len(gaps)} steps, largest relative difference to 1 worker {gaps.max():.1e} at step "
            f"{gaps.argmax() + 1}; in the first 50 steps {gaps[:50].max():.1e}"
        )
    if arguments.page is not None:
        draw(curves, script.changes, arguments.page)


if __name__ == "__main__":
    main()
