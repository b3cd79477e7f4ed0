"""Running out of memory: half the images at once, the same recipe."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
import json
import weakref

import pytest
from safetensors.torch import load_file
import torch
from torch.nn.modules.module import register_module_forward_hook

from raytricks.errors import CheckpointError, ConfigError, InterruptedRun, RaytricksError
from raytricks.models.resnet import ResNet
from raytricks.plan import plan_run
from raytricks.run import inspect
from raytricks.training.auto_micro_batch import LIMITS_FILE, is_out_of_memory
from raytricks.training.loop import TrainingJob, run_epochs
from raytricks.training.records import read_records
from raytricks.training.worker import Worker

RUN = {"recipe__epochs": 2, "data__augmentation": "shift", "tricks__mixup__alpha": 0.4}  # 16 images in each of 8 steps


def raise_cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def exhaust_cpu() -> None:
    """Ask for more than a machine can have; torch's own error comes of it."""
    torch.empty(2**60, dtype=torch.uint8)


@dataclass
class Device:
    """Fits so many images into a forward pass, and notes the sizes of those of training that fitted.

    Attributes:
        fits_after: forward passes of training that fit whatever their size.
    """

    training: int = 10**6
    evaluation: int = 10**6
    fits_after: int = 0
    fail: object = raise_cuda
    sizes: list[int] = field(default_factory=list)
    num_failures: int = 0

    def after_forward(self, module, inputs, logits) -> None:
        if not isinstance(module, ResNet) or logits.is_meta:  # a look at what a step needs
            return
        # after the forward pass: the batch-norm statistics have changed by then
        is_free = module.training and len(self.sizes) < self.fits_after
        if len(logits) > (self.training if module.training else self.evaluation) and not is_free:
            self.num_failures += 1
            self.fail()  # type: ignore[operator]
        if module.training:
            self.sizes.append(len(logits))


@contextmanager
def running_on(device: Device) -> Iterator[Device]:
    handle = register_module_forward_hook(device.after_forward)
    try:
        yield device
    finally:
        handle.remove()


def train(job: TrainingJob, device: Device | None = None, until: int | None = None, worker=None) -> Device:
    """Train to the end, or until a step after which the run is interrupted."""
    asked = 0

    def stop_requested() -> int:
        nonlocal asked
        asked += 1
        return 2 if asked == until else 0

    with running_on(device or Device()) as device:
        try:
            for _ in run_epochs(job, worker or Worker(), stop_requested=stop_requested):
                pass
        except InterruptedRun:
            assert until is not None
    return device


def train_as_worker(worker: Worker, job: TrainingJob, device: Device, failing_rank: int) -> Device | Exception:
    """Return the error without its frames, which would keep the connection open that the other waits for."""
    try:
        return train(job, device if worker.rank == failing_rank else None, worker=worker)
    except RuntimeError as error:
        return type(error)(str(error))


def with_limit(job: TrainingJob, images_per_device: int | str | None) -> TrainingJob:
    hardware = job.config.hardware.model_copy(update={"images_per_device": images_per_device})
    return replace(job, config=job.config.model_copy(update={"hardware": hardware}))


def weights(job: TrainingJob) -> dict[str, torch.Tensor]:
    return load_file(job.run_dir / "model.safetensors")


def is_bit_equal(one: TrainingJob, other: TrainingJob) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def relative_difference(one: TrainingJob, other: TrainingJob) -> float:
    a, b = weights(one), weights(other)
    return max(float((a[name] - b[name]).norm() / b[name].norm().clamp_min(1e-3)) for name in a)


def notes(job: TrainingJob) -> list[str]:
    return [r["text"] for r in read_records(job.run_dir / "metrics.jsonl") if r["kind"] == "note"]


def limits(job: TrainingJob) -> dict[str, int | None]:
    return json.loads((job.run_dir / LIMITS_FILE).read_text())


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("fail", [raise_cuda, exhaust_cpu])
def test_micro_batch_is_that_of_a_fixed_limit(make_job, norm, fail):
    found, fixed = make_job("found", **RUN, model__norm=norm), make_job("fixed", **RUN, model__norm=norm)
    device = train(found, Device(training=5, fail=fail))
    train(with_limit(fixed, 4))
    assert device.sizes == [4] * 4 * 8 and device.num_failures == 2
    assert is_bit_equal(found, fixed)
    but = "; batch norm takes its statistics from as many" if norm == "batch" else ""
    text = f"out of memory with {{}} images at once: going on with {{}} (accumulated, the recipe is the same{but})"
    assert notes(found) == [text.format(16, 8), text.format(8, 4)]
    assert limits(found) == {"training": 4, "evaluation": None}
    assert {path.name for path in found.run_dir.iterdir()} == {path.name for path in fixed.run_dir.iterdir()} | {
        LIMITS_FILE
    }


def test_micro_batch_leaves_the_result_of_the_run_that_fitted(make_job):
    fitted, found = make_job("fitted", **RUN, model__norm="group"), make_job("found", **RUN, model__norm="group")
    train(fitted)
    device = train(found, Device(training=3))
    assert device.sizes == [2] * 8 * 8  # near-equal pieces of at most 2
    assert relative_difference(found, fitted) < 1e-5
    for kind in ("step", "epoch"):
        one, other = (
            [r for r in read_records(j.run_dir / "metrics.jsonl") if r["kind"] == kind] for j in (fitted, found)
        )
        assert [r["lr"] for r in one] == [r["lr"] for r in other] and len(one) == {"step": 8, "epoch": 2}[kind]


@pytest.mark.parametrize(
    ("before", "fitting_passes", "after"),
    [
        (16, 5, 8),  # the sixth step
        (8, 11, 4),  # the second half of the sixth step, when it has half a gradient
    ],
)
def test_micro_batch_redoes_the_very_step_that_failed(make_job, before, fitting_passes, after):
    found, parted = make_job("found", **RUN), make_job("parted", **RUN)
    (found.run_dir / LIMITS_FILE).write_text(json.dumps({"training": before, "evaluation": None}))
    device = train(found, Device(training=after, fits_after=fitting_passes))
    train(with_limit(parted, before), until=5)
    train(with_limit(parted, after))
    assert device.sizes == [before] * fitting_passes + [after] * (3 * 16 // after)
    assert is_bit_equal(found, parted)


def test_micro_batch_frees_the_memory_before_it_goes_on(make_job):
    job = make_job(**RUN)
    held: list[weakref.ref] = []

    def hold(module, inputs, output) -> None:
        if module.training and len(output) == 16:
            held.extend((weakref.ref(output), weakref.ref(inputs[0])))
        elif module.training:
            assert held and all(reference() is None for reference in held)

    handle = register_module_forward_hook(hold)
    try:
        device = train(job, Device(training=8))
    finally:
        handle.remove()
    assert device.num_failures == 1 and len(held) > 10


def test_micro_batch_found_is_what_a_resume_begins_with(make_job):
    found, fixed = make_job("found", **RUN), make_job("fixed", **RUN)
    train(found, Device(training=8), until=6)
    device = train(found, Device(training=8))
    train(with_limit(fixed, 8))
    assert device.num_failures == 0 and device.sizes == [8] * 2 * 2
    assert notes(found)[1:] == [
        "resumed from step-00000006",
        "images at once: at most 8 in training, as found before",
    ]
    assert is_bit_equal(found, fixed)


def test_micro_batch_found_is_kept_when_the_settings_change(make_job):
    job = make_job(num_train=48, recipe__epochs=2, changes=[{"epoch": 1, "values": {"recipe.global_batch_size": 24}}])
    device = train(job, Device(training=8))
    assert device.num_failures == 1
    assert device.sizes == [8] * 2 * 3 + [8] * 3 * 2


def test_micro_batch_found_gives_way_to_a_fixed_limit(make_job):
    job = make_job(**RUN)
    (job.run_dir / LIMITS_FILE).write_text(json.dumps({"training": 4, "evaluation": 4}))
    assert train(with_limit(job, None)).sizes == [16] * 8
    assert notes(job) == []


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (
            "group",
            r"^out of memory with 1 image at once on cpu, which has [\d.]+ GiB; .*data.image_size.*model.width\)$",
        ),
        (
            "batch",
            r"^out of memory with 2 images at once \(batch norm allows no fewer\) .* GiB; .* or model.norm=group$",
        ),
    ],
)
def test_micro_batch_nothing_fits_is_one_line(make_job, norm, message):
    job = make_job(model__norm=norm)
    with pytest.raises(RaytricksError, match=message) as caught:
        train(job, Device(training=0))
    assert "\n" not in str(caught.value)
    assert limits(job)["training"] == (1 if norm == "group" else 2)


@pytest.mark.parametrize("images_per_device", [8, None])
def test_micro_batch_fixed_limit_is_left_alone(make_job, images_per_device):
    job = with_limit(make_job(), images_per_device)
    message = rf"^out of memory with {images_per_device or 16} images at once .*set hardware.images_per_device=auto"
    with pytest.raises(RaytricksError, match=message) as caught:
        train(job, Device(training=4))
    assert "\n" not in str(caught.value)
    assert not (job.run_dir / LIMITS_FILE).exists()


def test_micro_batch_out_of_memory_in_the_update_is_for_the_next_start(make_job, monkeypatch):
    found, fixed = make_job("found", **RUN), make_job("fixed", **RUN)
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", lambda *_, **__: exhaust_cpu())
        with pytest.raises(RaytricksError, match=r"with 16 images .* set hardware.images_per_device=8; a restart"):
            train(found)
    train(found)
    train(with_limit(fixed, 8))
    assert is_bit_equal(found, fixed)


def test_micro_batch_another_error_is_not_taken_for_it(make_job):
    job = make_job()

    def fail() -> None:
        raise RuntimeError("the size of tensor a (2) must match the size of tensor b (3)")

    device = Device(training=0, fail=fail)
    with pytest.raises(RuntimeError, match="the size of tensor a"):
        train(job, device)
    assert device.num_failures == 1 and not (job.run_dir / LIMITS_FILE).exists()


def test_micro_batch_evaluation_takes_half_as_many(make_job):
    fitted, found = (make_job(name, **RUN, tricks__ema__decay=0.9) for name in ("fitted", "found"))
    train(fitted)
    device = train(found, Device(evaluation=10))
    assert device.num_failures == 3  # 50, 25, 12, then 6 for good, of the average too
    assert device.sizes == [16] * 8 and is_bit_equal(found, fitted)
    text = "out of memory with {} images at once in evaluation: going on with {}"
    assert notes(found) == [text.format(50, 25), text.format(25, 12), text.format(12, 6)]
    assert limits(found) == {"training": None, "evaluation": 6}
    one, other = (
        [r for r in read_records(j.run_dir / "metrics.jsonl") if r["kind"] == "epoch"] for j in (fitted, found)
    )
    for name in ("val_top1", "val_cross_entropy", "val_ema_top1", "val_ema_cross_entropy", "val_num_images"):
        assert [r[name] for r in one] == pytest.approx([r[name] for r in other], rel=1e-5), name
    resumed = train(replace(found, run_dir=found.run_dir), Device(evaluation=10))
    assert resumed.num_failures == 0


@pytest.mark.parametrize("content", ["", "[]", '{"training": 0, "evaluation": null}', '{"training": "8"}'])
def test_micro_batch_damaged_file_is_named(make_job, content):
    job = make_job()
    (job.run_dir / LIMITS_FILE).write_text(content)
    with pytest.raises(CheckpointError, match=rf"{LIMITS_FILE} is damaged .*delete it"):
        train(job)


def test_micro_batch_one_of_two_workers_fails_until_it_fits(make_job, fleet):
    whole, found = (make_job(name, **RUN, model__norm="group") for name in ("whole", "found"))
    fleet.run(2, train_as_worker, whole, Device(), 1)
    # 8 images each; rank 1 fails in the second epoch, of which each start does the rest
    for images, fewer in [(8, 4), (4, 2)]:
        fitting_passes = 4 if images == 8 else 0
        first, second = fleet.run(2, train_as_worker, found, Device(training=2, fits_after=fitting_passes), 1)
        assert isinstance(second, torch.OutOfMemoryError) and f"with {images} images at once" in str(second)
        assert isinstance(first, RuntimeError) and not is_out_of_memory(first)
        assert limits(found) == {"training": fewer, "evaluation": None}
    first, second = fleet.run(2, train_as_worker, found, Device(training=2), 1)
    assert second.sizes == [2] * 4 * 4 and second.num_failures == 0
    assert notes(found)[-2:] == ["resumed from step-00000004", "images at once: at most 2 in training, as found before"]
    assert relative_difference(found, whole) < 1e-5


def test_micro_batch_one_of_two_workers_evaluates_fewer_at_once(make_job, fleet):
    whole, found = (make_job(name, **RUN) for name in ("whole", "found"))
    fleet.run(2, train_as_worker, whole, Device(), 1)
    _, second = fleet.run(2, train_as_worker, found, Device(evaluation=7), 1)
    assert second.num_failures == 3 and limits(found) == {"training": None, "evaluation": 6}
    assert is_bit_equal(found, whole)


@pytest.mark.parametrize(
    ("message", "is_one"),
    [
        ("CUDA error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA error: device-side assert triggered", False),
        ("Connection closed by peer", False),
    ],
)
def test_micro_batch_knows_what_is_out_of_memory(message, is_one):
    assert is_out_of_memory(RuntimeError(message)) is is_one
    assert not is_out_of_memory(ValueError(message))


@pytest.mark.parametrize(("free_kib", "images"), [(10**9, 16), (300, 8), (8, 2)])
def test_auto_begins_with_what_the_memory_of_a_cpu_holds(make_job, monkeypatch, free_kib, images):
    """The numbers are those of that fixed limit, and of a resume after the memory is free again."""
    fixed = make_job("fixed", **RUN, hardware__images_per_device=images)
    train(fixed)
    monkeypatch.setattr("raytricks.training.auto_micro_batch.available_memory_bytes", lambda: free_kib * 2**10)
    job = make_job("auto", **RUN)
    device = train(job, until=3)
    assert set(device.sizes) == {images}
    monkeypatch.undo()
    assert set(train(job).sizes) == {images}
    ours, theirs = (load_file(j.run_dir / "model.safetensors") for j in (job, fixed))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    notes = [r["text"] for r in read_records(job.run_dir / "metrics.jsonl") if r["kind"] == "note"]
    assert any(f"{images} of 16 (accumulated" in note for note in notes) == (images < 16)


def test_auto_with_memory_for_all_images_looks_at_no_model(make_job, monkeypatch):
    def fail(*_, **__):
        pytest.fail("a start-up of no use")

    monkeypatch.setattr("raytricks.training.auto_micro_batch.count_activation_bytes", fail)
    monkeypatch.setattr("raytricks.training.auto_micro_batch.available_memory_bytes", lambda: 2**33)
    train(make_job(**RUN), until=1)


@pytest.mark.parametrize(
    ("model", "norm"),
    [("torchvision:vit_b_16", None), ("torchvision:mobilenet_v3_small", "batch"), ("resnet8", "batch")],
)
def test_images_per_device_of_one_is_refused_for_batch_norm_only(model, norm):
    settings = {"data.source": "digits", "model.name": model, "data.image_size": 32, "hardware.images_per_device": 1}
    settings |= {"data.image_size": 224} if norm is None else {}
    plan = plan_run(None, settings)
    if norm is None:
        assert inspect(plan).parallel.micro_batch_size == 1
        return
    with pytest.raises(ConfigError, match=r"batch norm needs 2 images.*enlarge .*images_per_device") as refused:
        inspect(plan)
    assert ("model.norm=group" in str(refused.value)) == (model == "resnet8")
