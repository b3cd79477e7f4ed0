"""Real processes joined by gloo: the same run on 1, 2 and 3 workers."""

from dataclasses import replace
import math

from fleet import buffers_at_evaluation
import numpy as np
import pytest
import torch

from raytricks.config import ExperimentConfig
from raytricks.data.batches import TrainBatches
from raytricks.data.order import epoch_order
from raytricks.errors import CheckpointError, InterruptedRun, NonFiniteError
from raytricks.training import agreement, checkpoint
from raytricks.training.checkpoint import newest_checkpoint
from raytricks.training.evaluation import evaluate
from raytricks.training.loop import TrainingJob, _Run, run_epochs
from raytricks.training.records import read_records
from raytricks.training.state import build_state
from raytricks.training.worker import Worker


def train_all(worker: Worker, job: TrainingJob) -> list[dict]:
    return list(run_epochs(job, worker))


def train_until(worker: Worker, job: TrainingJob, last_step: int) -> None:
    run = _Run(job, worker, lambda: 2 if run.state.step >= last_step else 0, None)
    try:
        for _ in run.epochs():
            pass
    finally:
        run.close()


def steps(job: TrainingJob) -> list[dict]:
    return [r for r in read_records(job.run_dir / "metrics.jsonl") if r["kind"] == "step"]


@pytest.mark.parametrize(("world_size", "batch", "alpha"), [(2, 16, 0.0), (2, 33, 0.2), (3, 16, 0.2)])
def test_workers_give_the_loss_curve_of_one(fleet, make_job, world_size, batch, alpha):
    changes = {
        "num_train": 10 * batch + 3,
        "recipe__epochs": 2,
        "recipe__global_batch_size": batch,
        "model__norm": "group",
        "tricks__mixup__alpha": alpha,
        "hardware__images_per_device": 6,
    }
    jobs = {size: make_job(f"run-{size}", **changes) for size in (1, world_size)}
    for size, job in jobs.items():
        fleet.run(size, train_all, job)
    alone, together = steps(jobs[1]), steps(jobs[world_size])
    assert len(alone) == len(together) == 20
    for name in ("objective", "cross_entropy", "top1", "grad_norm", "lr"):
        assert [s[name] for s in together] == pytest.approx([s[name] for s in alone], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_workers_share_the_same_samples_in_the_same_order(make_job, world_size):
    job = make_job(num_train=200)

    def samples(rank: int) -> list[np.ndarray]:
        batches = TrainBatches(
            data=job.data.train,
            transform=job.data.transform,
            global_batch_size=33,
            rank=rank,
            world_size=world_size,
            images_per_device=None,
            seed=4,
            device=torch.device("cpu"),
            with_neighbours=False,
        )
        return [chosen for chosen, _ in batches.samples(1)]

    per_worker = [samples(rank) for rank in range(world_size)]
    together = [np.concatenate(parts) for parts in zip(*per_worker, strict=True)]
    order = epoch_order(200, 4, 1)
    assert [b.tolist() for b in together] == [order[33 * k : 33 * (k + 1)].tolist() for k in range(6)]
    assert max(len(s[0]) for s in per_worker) - min(len(s[0]) for s in per_worker) <= 1


def count(worker: Worker, job: TrainingJob) -> dict[str, float]:
    model = build_state(job.config, class_names=[str(n) for n in range(10)], worker=Worker(), precision="fp32").model
    return evaluate(
        model,
        job.data.evaluation,
        job.data.transform,
        num_classes=10,
        worker=worker,
        batch_size=16,
        precision="fp32",
        channels_last=True,
    )


def test_workers_evaluate_every_image_once(fleet, make_job):
    job = make_job(num_evaluation=101, tricks__zero_gamma=False)
    alone = fleet.run(1, count, job)[0]
    assert alone["num_images"] == 101
    for world_size in (2, 3):
        for metrics in fleet.run(world_size, count, job):
            assert metrics["num_images"] == 101
            assert (metrics["top1"], metrics["top5"]) == (alone["top1"], alone["top5"])
            assert metrics["cross_entropy"] == pytest.approx(alone["cross_entropy"], rel=1e-6)


def test_workers_evaluate_fewer_images_than_workers(fleet, make_job):
    for metrics in fleet.run(3, count, make_job(num_evaluation=2)):
        assert metrics["num_images"] == 2


def train_with_one_bad_rank(worker: Worker, job: TrainingJob, bad_rank: int) -> int:
    """Return the step before which this worker stopped."""
    run = _Run(job, worker, lambda: 0, None)
    if worker.rank == bad_rank:
        accumulate = run.stepper.accumulate

        def poisoned(batch):
            if run.state.step == 4:
                batch = replace(batch, inputs=batch.inputs * math.nan)
            accumulate(batch)

        run.stepper.accumulate = poisoned
    try:
        for _ in run.epochs():
            pass
    except NonFiniteError as error:
        assert "step 5 (epoch 2)" in str(error)
        return run.state.step
    finally:
        run.close()
    raise AssertionError("not stopped")


@pytest.mark.parametrize("bad_rank", [0, 1])
def test_workers_all_stop_at_the_step_where_one_has_nan(fleet, make_job, bad_rank):
    job = make_job(model__norm="group")  # 4 steps an epoch
    assert fleet.run(2, train_with_one_bad_rank, job, bad_rank) == [4, 4]
    found = newest_checkpoint(job.run_dir / "checkpoints")
    assert found is not None and found.step == 4


def test_workers_average_batch_norm_before_evaluation(fleet, make_job):
    job = make_job(recipe__epochs=2)
    (first, first_after), (second, second_after) = fleet.run(2, buffers_at_evaluation, job)
    assert first != second  # each has seen its own images
    assert first_after == second_after
    assert first_after == pytest.approx([(a + b) / 2 for a, b in zip(first, second, strict=True)])
    found = newest_checkpoint(job.run_dir / "checkpoints")
    assert found is not None
    name = next(n for n in found.content["model"] if n.endswith("running_mean"))
    assert found.content["model"][name].tolist() == first_after


@pytest.mark.parametrize("last_step", [4, 6])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_workers_checkpoint_of_two_is_resumed_by_one(fleet, make_job, last_step, norm):
    job = make_job(model__norm=norm)
    outcomes = fleet.run(2, train_until, job, last_step)
    assert [type(o) for o in outcomes] == [InterruptedRun, InterruptedRun]
    epochs = fleet.run(1, train_all, job)[0]
    assert [e["step"] for e in epochs] == ([4] if last_step == 4 else []) + [8, 12]  # saved, then evaluated
    assert [s["step"] for s in steps(job)] == list(range(1, 13))
    if norm == "group":  # nothing depends on the workers, so the run is that of one worker alone
        twin = make_job("twin", model__norm=norm)
        fleet.run(1, train_all, twin)
        assert [s["objective"] for s in steps(job)] == pytest.approx([s["objective"] for s in steps(twin)], rel=1e-4)


def test_workers_resume_in_mid_epoch_bit_for_bit(fleet, make_job):
    whole, parted = make_job("whole"), make_job("parted")  # batch norm: statistics differ per worker
    fleet.run(2, train_all, whole)
    fleet.run(2, train_until, parted, 6)
    fleet.run(2, train_all, parted)
    ours, theirs = (newest_checkpoint(j.run_dir / "checkpoints") for j in (parted, whole))
    assert ours is not None and theirs is not None
    for name, value in theirs.content["model"].items():
        assert torch.equal(ours.content["model"][name], value), name


def test_workers_all_stop_when_the_first_cannot_save(fleet, make_job):
    job = make_job(model__norm="group")
    (job.run_dir / "checkpoints").write_text("in the way")
    first, second = fleet.run(2, train_all, job)
    assert isinstance(first, CheckpointError) and "cannot be written" in str(first)
    assert isinstance(second, CheckpointError) and "the first worker could not save" in str(second)


def begin_and_die(worker: Worker, job: TrainingJob) -> None:
    _Run(job, worker, lambda: 0, None).close()


def test_workers_that_were_lost_before_they_saved_count_in_the_note_of_those_after_them(fleet, make_job):
    """Nodes come and go within the steps between two checkpoints."""
    job = make_job("run", recipe__epochs=2, model__norm="group")
    with pytest.raises(InterruptedRun):
        train_until(Worker(), job, 2)
    for world_size in (2, 1, 1):
        fleet.run(world_size, begin_and_die, job)
    notes = [r["text"] for r in read_records(job.run_dir / "metrics.jsonl") if r["kind"] == "note"]
    assert notes == [
        "resumed from step-00000002, on 2 workers instead of 1",
        "resumed from step-00000002, on 1 workers instead of 2",
        "resumed from step-00000002",
    ]


def agreed_on(worker: Worker, own: dict[int, str]) -> tuple[str, bool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "resolve_precision", lambda requested, device_type: own[worker.rank])
        config, note = agreement.with_agreed_precision(ExperimentConfig(workers=2), worker)
    return config.hardware.precision, "some of their devices" in (note or "")


@pytest.mark.parametrize(
    ("own", "agreed", "is_noted"),
    [
        ({0: "fp16", 1: "bf16"}, "fp16", True),  # a T4 and an A10
        ({0: "bf16", 1: "fp16"}, "fp16", True),
        ({0: "bf16", 1: "fp32"}, "fp32", True),  # CPUs with and without AVX512_BF16
        ({0: "bf16", 1: "bf16"}, "bf16", False),
    ],
)
def test_workers_of_several_generations_agree_on_a_precision(fleet, own, agreed, is_noted):
    assert fleet.run(2, agreed_on, own) == [(agreed, is_noted)] * 2


def restored_step(worker: Worker, job: TrainingJob, blind: int) -> int:
    """Go on; one worker cannot read the newest checkpoint for a moment."""
    with pytest.MonkeyPatch.context() as patch:
        load = checkpoint._load_state

        def fail(path):
            if worker.rank == blind and path.parent.name.endswith("4"):
                raise OSError("stale file handle")
            return load(path)

        patch.setattr(checkpoint, "_load_state", fail)
        run = _Run(job, worker, lambda: 0, None)
    run.close()
    return run.state.step


def test_workers_go_on_from_one_checkpoint_or_none_does(fleet, make_job):
    job = make_job(recipe__epochs=2, num_train=64, recipe__global_batch_size=32, checkpoint__keep=2)
    fleet.run(2, train_all, job)
    assert fleet.run(2, restored_step, job, -1) == [4, 4]
    outcomes = fleet.run(2, restored_step, job, 1)
    assert all(isinstance(outcome, CheckpointError) for outcome in outcomes), outcomes
    assert "stale file handle" in str(outcomes[1]) and "another worker cannot read" in str(outcomes[0])
    assert fleet.run(2, restored_step, job, 0) == [2, 2]  # the first worker chooses
