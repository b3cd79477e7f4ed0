"""The tricks on real gloo workers: the gradient of one process, and what only several workers have."""

from fleet import buffers_at_evaluation
import pytest
import torch
from torch import Tensor
import torch.nn.functional as F

from raytricks.data.batches import TrainBatches
from raytricks.data.order import epoch_order
from raytricks.recipe.chain import Chain, image_chain
from raytricks.recipe.parallel_plan import plan_parallel
from raytricks.recipe.recipe import make_recipe
from raytricks.training.loop import TrainingJob, _Run, run_epochs
from raytricks.training.loss import RunContext
from raytricks.training.state import build_state
from raytricks.training.step import Stepper
from raytricks.training.worker import Worker
from raytricks.tricks.gradient_compression import compress_gradients
from raytricks.tricks.label_smoothing import smooth_targets


def first_gradient(worker: Worker, job: TrainingJob) -> list[Tensor]:
    """Return the gradient of the first step in double precision, as the optimizer would get it."""
    torch.set_default_dtype(torch.float64)
    try:
        config = job.config
        parallel = plan_parallel(config, num_workers=worker.world_size, device_type="cpu")
        batches = TrainBatches(
            data=job.data.train,
            transform=job.data.transform,
            global_batch_size=config.recipe.global_batch_size,
            rank=worker.rank,
            world_size=worker.world_size,
            images_per_device=parallel.micro_batch_size,
            seed=config.seed,
            image_tricks=image_chain(config),
            device=worker.device,
            with_neighbours=bool(Chain(config).calls("blend")),
        )
        run = RunContext(config=config, data=job.data, batches=batches, worker=worker, parallel=parallel)
        state = build_state(config, class_names=job.data.class_names, worker=worker, precision="fp32", run=run)
        stepper = Stepper(config, make_recipe(config, len(job.data.train)), state, worker, "fp32")
        stepper.begin()
        for batch in batches.epoch(0):
            double = type(batch)(batch.inputs.double(), batch.labels, batch.samples, batch.is_last_of_step)
            stepper.accumulate(double)
            if batch.is_last_of_step:
                break
        return [p.grad.clone() for p in state.model.parameters()]
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture
def teacher(make_job) -> str:
    job = make_job("teacher", recipe__epochs=1, tricks__warmup__epochs=0.0, seed=5)
    list(run_epochs(job, Worker()))
    return str(job.run_dir)


LOSSES = {
    "plain": {"tricks__label_smoothing__epsilon": 0.0},
    "smoothing": {"tricks__label_smoothing__epsilon": 0.1},
    "torch's smoothing": {"tricks__label_smoothing": {"epsilon": 0.1, "form": "torch"}},
    "mixup": {"tricks__mixup__alpha": 1.0, "tricks__label_smoothing__epsilon": 0.0},
    "CutMix": {"tricks__cutmix__alpha": 1.0, "tricks__label_smoothing__epsilon": 0.0},
    "distillation": {"tricks__distillation__teacher": "TEACHER", "tricks__label_smoothing__epsilon": 0.0},
    "all": {
        "tricks__distillation__teacher": "TEACHER",
        "tricks__mixup__alpha": 1.0,
        "tricks__label_smoothing__epsilon": 0.1,
        "tricks__random_erasing__probability": 0.5,
    },
}


@pytest.mark.parametrize("loss", LOSSES)
def test_two_workers_with_uneven_batches_and_accumulation_give_the_gradient_of_one(fleet, make_job, teacher, loss):
    changes = {key: teacher if value == "TEACHER" else value for key, value in LOSSES[loss].items()}
    shared = {"recipe__global_batch_size": 33, "model__norm": "group", "tricks__zero_gamma": False, **changes}
    whole = make_job("whole", **shared)
    pieces = make_job("pieces", hardware__images_per_device=6, **shared)
    (alone,) = fleet.run(1, first_gradient, whole)
    for gradient in fleet.run(2, first_gradient, pieces):  # 16 and 17 images, in 3 pieces each
        for mine, expected in zip(gradient, alone, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


def train(worker: Worker, job: TrainingJob) -> list[dict]:
    return list(run_epochs(job, worker))


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_workers_train_alike_with_compressed_gradients(fleet, make_job, kind):
    exact = make_job("exact", model__norm="group", recipe__epochs=4)
    rough = make_job("rough", model__norm="group", recipe__epochs=4, tricks__gradient_compression__kind=kind)
    expected = fleet.run(2, train, exact)[0][-1]
    for epochs in fleet.run(2, train, rough):
        assert epochs[-1]["train_objective"] == pytest.approx(expected["train_objective"], rel=0.05)
        assert epochs[-1]["train_objective"] != expected["train_objective"]  # or nothing was compressed


@pytest.mark.parametrize(("kind", "rank"), [("gzip", 2), ("powersgd", 0)])
def test_compression_rejects_what_torch_has_not(kind, rank):
    with pytest.raises(ValueError, match="must be"):
        compress_gradients(None, kind, rank)  # refused before the model is touched


def test_workers_agree_on_the_averaged_weights(fleet, make_job):
    """Batch-norm statistics of the average are averaged over the workers too."""
    alone = make_job("alone", tricks__ema__decay=0.9, model__norm="group")
    both = make_job("both", tricks__ema__decay=0.9, model__norm="group")
    (expected,) = fleet.run(1, train, alone)
    found = fleet.run(2, train, both)
    for epochs in found:
        assert epochs[-1]["val_ema_top1"] == pytest.approx(expected[-1]["val_ema_top1"], abs=0.021)
        assert epochs[-1]["val_ema_cross_entropy"] == pytest.approx(expected[-1]["val_ema_cross_entropy"], rel=1e-4)
    with_batch_norm = make_job("norm", tricks__ema__decay=0.9)
    first, second = fleet.run(2, train, with_batch_norm)
    assert first[-1]["val_ema_cross_entropy"] == second[-1]["val_ema_cross_entropy"]


def test_workers_take_the_first_ones_statistics_when_averaging_is_off(fleet, make_job):
    job = make_job(tricks__batch_norm_averaging=False)
    (first, first_after), (second, second_after) = fleet.run(2, buffers_at_evaluation, job)
    assert first != second
    assert first_after == second_after == first


def first_row(worker: Worker, job: TrainingJob) -> dict[str, float]:
    run = _Run(job, worker, lambda: 0, None)
    run.train_epoch(0)
    totals = run.state.epoch_totals
    run.close()
    return dict(totals)


def test_workers_measure_the_noise_of_their_first_halves(fleet, make_job):
    """Two workers with 32 images each: the small batches are images 0 to 16 and 32 to 48 of the global one."""
    job = make_job(
        model__norm="group", recipe__global_batch_size=64, num_train=64, logging__noise_scale_every=1, recipe__epochs=2
    )
    for totals in fleet.run(2, first_row, job):
        assert totals["noise_steps"] == 1
        assert totals["noise_small_inverse"] == pytest.approx(1 / 16)
        found = totals
    state = build_state(job.config, class_names=job.data.class_names, worker=Worker(), precision="fp32")
    samples = epoch_order(64, job.config.seed, 0)
    canvas = job.data.train.images.read(samples)
    inputs = job.data.transform.train(canvas, samples, job.config.seed, 0, torch.device("cpu"))
    labels = torch.from_numpy(job.data.train.labels[samples])

    def square(part: slice) -> float:
        state.model.zero_grad()
        targets = smooth_targets(F.one_hot(labels[part], 10).float(), 0.1)
        losses = F.cross_entropy(state.model(inputs[part]), targets, reduction="none")
        losses.mean().backward()
        return sum(float(p.grad.square().sum()) for p in state.model.parameters())

    assert found["noise_small_square"] == pytest.approx((square(slice(0, 16)) + square(slice(32, 48))) / 2, rel=1e-4)
    assert found["noise_large_square"] == pytest.approx(square(slice(0, 64)), rel=1e-4)


def test_loop_logs_a_noise_scale_only_when_asked(make_job):
    silent, asked = make_job("silent"), make_job("asked", logging__noise_scale_every=2)
    assert all("noise_scale" not in epoch for epoch in run_epochs(silent, Worker()))
    assert all("noise_scale" in epoch for epoch in run_epochs(asked, Worker()))
