"""How workers share a global batch."""

import pytest

from raytricks.config import load_config
from raytricks.errors import ConfigError
from raytricks.recipe.parallel_plan import plan_parallel


def plan(
    num_workers: int,
    batch: int,
    images_per_device: int | str | None = None,
    norm: str = "batch",
    fitting_images: int | None = None,
):
    config = load_config(
        None,
        {
            "recipe.global_batch_size": batch,
            "hardware.images_per_device": images_per_device,
            "model.norm": norm,
            "hardware.precision": "fp32",
        },
    ).config
    return plan_parallel(config, num_workers=num_workers, device_type="cpu", fitting_images=fitting_images)


@pytest.mark.parametrize(
    ("num_workers", "batch", "images_per_device", "share", "micro", "steps"),
    [
        (1, 256, None, 256, 256, 1),
        (2, 256, None, 128, 128, 1),
        (3, 10, None, 4, 4, 1),  # 3, 3 and 4
        (2, 33, 8, 17, 8, 3),  # 16 = 8 + 8, 17 = 5 + 6 + 6
        (1, 256, 100, 256, 86, 3),  # near-equal pieces: 85, 85 and 86
        (1, 64, 64, 64, 64, 1),
        (2, 256, "auto", 128, 128, 1),
    ],
)
def test_execution_shares_by_hand(num_workers, batch, images_per_device, share, micro, steps):
    parallel = plan(num_workers, batch, images_per_device)
    assert parallel.images_per_worker == share
    assert parallel.micro_batch_size == micro
    assert parallel.accumulation_steps == steps


@pytest.mark.parametrize(("num_workers", "batch", "images_per_device"), [(4, 4, None), (2, 3, None), (1, 64, 1)])
def test_execution_batch_norm_on_single_images_is_refused(num_workers, batch, images_per_device):
    with pytest.raises(ConfigError, match="needs 2 images in each forward pass, a worker would get 1.*norm=group"):
        plan(num_workers, batch, images_per_device)
    assert plan(num_workers, batch, images_per_device, norm="group").num_workers == num_workers


@pytest.mark.parametrize(
    ("num_workers", "batch", "fitting_images", "norm", "micro", "steps"),
    [
        (1, 256, 100, "batch", 86, 3),
        (1, 256, 1000, "batch", 256, 1),
        (1, 5, 2, "batch", 3, 2),  # 2 and 3: pieces of at most 2 would be 2, 2 and 1
        (1, 3, 2, "batch", 3, 1),  # 1 and 2 is not possible
        (1, 3, 2, "group", 2, 2),
        (2, 9, 2, "batch", 3, 2),  # the share of 4 would do with 2, that of 5 does not; all have the same limit
        (1, 8, 1, "batch", 2, 4),
        (1, 8, 1, "group", 1, 8),
    ],
)
def test_execution_fitting_images_leave_batch_norm_two(num_workers, batch, fitting_images, norm, micro, steps):
    parallel = plan(num_workers, batch, "auto", norm, fitting_images)
    assert (parallel.micro_batch_size, parallel.accumulation_steps) == (micro, steps)


@pytest.mark.parametrize(("num_workers", "batch", "fitting_images"), [(3, 32, 2), (3, 32, 5), (2, 21, 5), (4, 33, 4)])
def test_execution_fitting_images_give_all_workers_as_many_forward_passes(num_workers, batch, fitting_images):
    """32 over 3 workers is 11, 11 and 10: pieces of at most 2 would be 6, 6 and 5."""
    parallel = plan(num_workers, batch, "auto", "group", fitting_images)
    shares = {batch // num_workers, -(-batch // num_workers)}
    assert {-(-share // parallel.micro_batch_size) for share in shares} == {parallel.accumulation_steps}


def test_execution_refuses_synchronised_batch_norm_with_unequal_forward_passes():
    settings = {"tricks.sync_batch_norm": True, "hardware.precision": "fp32", "recipe.global_batch_size": 32}
    config = load_config(None, settings | {"hardware.images_per_device": 5}).config
    with pytest.raises(ConfigError, match="equally many forward passes, this batch would give them 2 and 3"):
        plan_parallel(config, num_workers=3, device_type="cuda")
    plan_parallel(config, num_workers=2, device_type="cuda")


def test_execution_refuses_powersgd_with_fp16():
    settings = {"tricks.gradient_compression.kind": "powersgd", "hardware.precision": "fp16"}
    config = load_config(None, settings).config
    with pytest.raises(ConfigError, match="does not survive an overflow of fp16"):
        plan_parallel(config, num_workers=2, device_type="cuda")
    plan_parallel(
        load_config(None, settings | {"hardware.precision": "bf16"}).config, num_workers=2, device_type="cuda"
    )


def test_execution_fitting_images_do_not_help_a_share_of_one():
    with pytest.raises(ConfigError, match="needs 2 images in each forward pass, a worker would get 1"):
        plan(2, 3, "auto", fitting_images=1)


def test_execution_more_workers_than_images_is_refused():
    with pytest.raises(ConfigError, match="5 workers cannot share a global batch of 4; use at most 4"):
        plan(5, 4, norm="group")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tricks.gradient_compression.kind": "powersgd"}, "gloo.*take fp16 or bf16, or GPUs"),
        ({"tricks.sync_batch_norm": True}, "GPUs only.*model.norm=group"),
    ],
)
def test_execution_refuses_tricks_of_gpus_on_several_cpu_workers(settings, message):
    config = load_config(None, {"hardware.precision": "fp32", **settings}).config
    with pytest.raises(ConfigError, match=message):
        plan_parallel(config, num_workers=2, device_type="cpu")
    plan_parallel(config, num_workers=1, device_type="cpu")
    plan_parallel(config, num_workers=2, device_type="cuda")
