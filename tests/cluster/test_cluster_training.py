"""Real Ray, one local cluster for the whole module."""

from dataclasses import replace
import os
from pathlib import Path
import re
import signal
import sys
import time
from typing import Any

import numpy as np
from processes import train_workers
import pytest
from safetensors.torch import load_file
import torch

import raytricks
from raytricks.cluster.driver import train_on_ray
from raytricks.cluster.session import ray_session, require_resources
from raytricks.data.order import epoch_order
from raytricks.data.prepared import prepare_data
from raytricks.errors import ClusterError, DataError, InterruptedRun, NonFiniteError, RaytricksError
from raytricks.plan import plan_run
from raytricks.training.fencing import begin_launch
from raytricks.training.loop import TrainingJob
from raytricks.training.records import read_records

# Ray and what it imports warn about themselves; warnings of ours stay errors
_IGNORED = ("DeprecationWarning", "FutureWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(400),
    *(pytest.mark.filterwarnings(f"ignore::{category}") for category in _IGNORED),
]

SETTINGS = {
    "data.source": "digits",
    "data.horizontal_flip": False,
    "model.name": "resnet8",
    "model.norm": "group",
    "recipe.epochs": 3,
    "recipe.global_batch_size": 64,
    "tricks.warmup.epochs": 1.0,
    "tricks.mixup.alpha": 0.2,
    "hardware.precision": "fp32",
    "hardware.cpus_per_worker": 1,
    "logging.every_steps": 1,
    "logging.tensorboard": False,
}


@pytest.fixture(scope="module")
def cluster():
    with ray_session() as resources:
        yield resources


def settings(folder: Path, **changes) -> dict:
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return SETTINGS | {"output_dir": str(folder)} | dotted


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "model.safetensors")


def steps(run_dir: Path) -> list[dict]:
    return [r for r in read_records(run_dir / "metrics.jsonl") if r["kind"] == "step"]


@pytest.fixture(scope="module")
def two_workers(cluster, tmp_path_factory):
    if cluster["CPU"] < 2:
        pytest.skip("needs 2 CPUs")
    folder = tmp_path_factory.mktemp("two")
    return raytricks.train(None, settings(folder, name="two", workers=2))


def test_two_workers_follow_the_loss_curve_of_one_process(two_workers, tmp_path):
    alone = raytricks.train(None, settings(tmp_path, name="alone", workers=0))
    ours, theirs = steps(alone.run_dir)[:50], steps(two_workers.run_dir)[:50]
    assert [r["step"] for r in ours] == [r["step"] for r in theirs] == list(range(1, 51))
    for name in ("objective", "cross_entropy"):
        np.testing.assert_allclose([r[name] for r in theirs], [r[name] for r in ours], rtol=1e-4)


def test_evaluation_on_two_workers_counts_every_image_once(two_workers):
    assert two_workers.last["val_num_images"] == 359  # odd: a padded sampler would make it 360


class KillOnce:
    """Kills the second Ray Train worker of a run when a step is logged."""

    def __init__(self, at_step: int, run_dir: Path | None = None) -> None:
        self.at_step, self.run_dir = at_step, run_dir
        self.killed = 0
        self.mode = "quiet"

    def record(self, record: dict) -> None:
        if record["kind"] == "step" and record["step"] >= self.at_step and not self.killed:
            assert self.run_dir is not None
            self.killed = train_workers(self.run_dir)[1]
            os.kill(self.killed, signal.SIGKILL)

    def __getattr__(self, name: str):
        return lambda *_: None


def test_a_killed_worker_leaves_the_final_weights_bit_equal(two_workers, tmp_path):
    killer = KillOnce(30, tmp_path / "killed")
    overrides = settings(tmp_path, name="killed", workers=2, checkpoint__every_steps=10)
    result = raytricks.train(None, overrides, reporter=killer)  # type: ignore[arg-type]
    assert killer.killed
    notes = [r["text"] for r in result.records if r["kind"] == "note"]
    assert any("resumed from step-" in text for text in notes), notes
    clean, recovered = weights(two_workers.run_dir), weights(result.run_dir)
    assert all(torch.equal(clean[name], recovered[name]) for name in clean)


class BrokenImages:
    """A user's own image store: reading some image goes wrong, in whichever worker reads it."""

    def __init__(self, images, error: Exception, sample: int, calls: Path) -> None:
        self.images, self.error, self.sample, self.calls = images, error, sample, calls

    def __len__(self) -> int:
        return len(self.images)

    def sizes(self, indices):
        return self.images.sizes(indices)

    def read(self, indices):
        if self.sample in indices:
            with self.calls.open("a") as file:
                file.write("x")
            raise self.error
        return self.images.read(indices)


def train_broken(folder: Path, error: Exception) -> tuple[RaytricksError, int, Path]:
    """Train on images of which the one that comes in step 5 cannot be read; returns the error and how often it rose."""
    import ray.cloudpickle

    plan = plan_run(None, settings(folder, name="broken", workers=2, checkpoint__every_steps=2))
    data = prepare_data(plan.splits, plan.config.data)
    sample = int(epoch_order(len(data.train), 0, 0)[4 * 64 + 50])  # in the second half of its batch: rank 1's
    images: Any = BrokenImages(data.train.images, error, sample, folder / "calls")
    run_dir = folder / "broken"
    run_dir.mkdir()
    job = TrainingJob(
        config=plan.config,
        data=replace(data, train=replace(data.train, images=images)),
        run_dir=run_dir,
        launch=begin_launch(run_dir),
    )
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers know no tests
    with pytest.raises(RaytricksError) as raised:
        train_on_ray(job, use_gpu=False, listener=lambda record: None, stop_requested=lambda: 0)
    return raised.value, len((folder / "calls").read_text()), run_dir


def test_a_bug_that_comes_again_at_the_same_step_ends_the_run_with_its_traceback(cluster, tmp_path, record_property):
    started_s = time.monotonic()
    error, times, run_dir = train_broken(tmp_path, ValueError("no such label: 11"))
    assert re.search(r"worker 1 on \S+ failed twice in step 5: ValueError: no such label: 11$", str(error)), str(error)
    assert "raise self.error" in error.details and error.details.rstrip().endswith("in step 5")
    assert times == 2  # hardware.max_restarts would allow more
    record_property(
        "worker exception, the same again",
        f"ended after {times} tries, with the traceback and worker 1; {time.monotonic() - started_s:.0f} s in all",
    )
    assert (run_dir / "checkpoints" / "step-00000004").is_dir() and not (run_dir / ".ray").exists()


def test_what_no_restart_can_mend_is_not_tried_again_whichever_worker_finds_it(cluster, tmp_path):
    error, times, _ = train_broken(tmp_path, DataError("photos/7.jpg is damaged; restore or remove it"))
    assert type(error) is DataError and str(error) == "photos/7.jpg is damaged; restore or remove it"
    assert times == 1


def test_a_non_finite_gradient_ends_the_run_with_its_own_error(cluster, tmp_path):
    with pytest.raises(NonFiniteError, match="lower recipe.base_lr"):
        raytricks.train(None, settings(tmp_path, name="nan", workers=1, recipe__base_lr=1e30))


def test_a_stop_request_saves_and_the_run_resumes_on_another_number_of_workers(two_workers, tmp_path):
    class StopAt(KillOnce):
        def record(self, record: dict) -> None:
            if record["kind"] == "step" and record["step"] >= self.at_step and not self.killed:
                self.killed = os.getpid()
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRun, match="--resume") as stopped:
        raytricks.train(None, settings(tmp_path, name="stop", workers=2), reporter=StopAt(30))  # type: ignore[arg-type]
    assert stopped.value.exit_code == 143
    result = raytricks.train(None, {"workers": 0}, resume=tmp_path / "stop")
    for name, value in weights(two_workers.run_dir).items():
        torch.testing.assert_close(weights(result.run_dir)[name], value, rtol=1e-3, atol=1e-4)


def test_more_workers_than_the_cluster_has_cpus_is_refused_at_once(cluster, tmp_path):
    with pytest.raises(ClusterError, match="set workers="):
        raytricks.train(None, settings(tmp_path, name="many", workers=60))
    assert not (tmp_path / "many").exists()


def test_gpus_that_the_cluster_lacks_are_refused():
    with pytest.raises(ClusterError, match="set hardware.device=cpu"):
        require_resources({"CPU": 8.0}, num_workers=2, cpus_per_worker=1, use_gpu=True)


def test_fewer_images_at_once_are_no_failure_that_counts(cluster, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        """
import torch


class Greedy(torch.nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.layer = torch.nn.Linear(64 * in_channels, num_classes)

    def forward(self, images):
        if self.training and len(images) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.layer(images.flatten(1))


def greedy(num_classes, in_channels):
    return Greedy(num_classes, in_channels)
"""
    )
    changes = {"model.name": f"{own}:greedy", "recipe.epochs": 1, "tricks.warmup.epochs": 0, "hardware.max_restarts": 0}
    result = raytricks.train(None, settings(tmp_path, name="greedy", workers=2) | changes)  # 32 a worker, 16, 8
    assert result is not None and len(steps(result.run_dir)) == len({r["step"] for r in steps(result.run_dir)})
    assert (result.run_dir / "model.safetensors").is_file()
