"""How some workers and devices carry a recipe out, without changing it."""

from collections.abc import Sequence
from dataclasses import dataclass

from raytricks.config.schema import ExperimentConfig
from raytricks.data.order import even_share, micro_batches
from raytricks.errors import ConfigError
from raytricks.recipe.chain import Chain
from raytricks.tricks.mixed_precision import DeviceType, Precision, resolve_precision


@dataclass(frozen=True, kw_only=True)
class ParallelPlan:
    """The share of a worker.

    Attributes:
        images_per_worker: the largest share of a global batch; shares differ by at most one.
        micro_batch_size: the most images in one forward pass.
        fewest_images: the fewest, of any worker.
        accumulation_steps: forward passes per optimizer step.
        precision: fp32, fp16 or bf16.
    """

    num_workers: int
    device_type: DeviceType
    images_per_worker: int
    micro_batch_size: int
    fewest_images: int
    accumulation_steps: int
    precision: Precision


def plan_parallel(
    config: ExperimentConfig, *, num_workers: int, device_type: DeviceType, fitting_images: int | None = None
) -> ParallelPlan:
    """Derive each worker's share of the global batch; run inside the worker, which knows the truth.

    Args:
        fitting_images: takes the place of the config's limit. It is raised to what batch norm needs
            at least (5 images are cut into 2 and 3, however few fit), and until all workers make equally many passes.

    Raises:
        ConfigError: more workers than images in a batch, batch norm on single images, or a part that cannot run
            on this data or hardware.
    """
    batch = config.recipe.global_batch_size
    if num_workers > batch:
        raise ConfigError(
            f"workers: {num_workers} workers cannot share a global batch of {batch}; use at most {batch} workers"
        )
    shares = [even_share(batch, rank, num_workers) for rank in range(num_workers)]
    limit = config.hardware.fixed_limit
    if fitting_images is not None:
        fewest = 2 if config.model.norm == "batch" else 1
        limit = _usable_limit([stop - start for start, stop in shares], fitting_images, fewest)
    pieces = [micro_batches(start, stop, limit) for start, stop in shares]
    sizes = [b - a for share in pieces for a, b in share]
    if config.model.is_resnet and config.model.norm == "batch":
        require_pairs(config, num_workers, min(sizes))
    precision = resolve_precision(config.hardware.precision, device_type)
    problems = Chain(config).problems(
        channels=config.data.channels or 3,
        num_workers=num_workers,
        device_type=device_type,
        precision=precision,
        forward_passes=tuple(len(share) for share in pieces),
    )
    if problems:
        raise ConfigError(problems)
    return ParallelPlan(
        num_workers=num_workers,
        device_type=device_type,
        images_per_worker=max(stop - start for start, stop in shares),
        micro_batch_size=max(sizes),
        fewest_images=min(sizes),
        accumulation_steps=max(len(share) for share in pieces),
        precision=precision,
    )


def require_pairs(config: ExperimentConfig, num_workers: int, fewest_images: int) -> None:
    """Refuse single images for a model with batch norm, whose statistics would be of one image.

    Raises:
        ConfigError: a forward pass has fewer than two images.
    """
    if fewest_images >= 2:
        return
    ways = ["recipe.global_batch_size"]
    if config.hardware.fixed_limit == 1:
        ways.append("hardware.images_per_device")
    group = ", or set model.norm=group" if config.model.is_resnet else ""
    raise ConfigError(
        f"batch norm needs 2 images in each forward pass, a worker would get {fewest_images} (global batch "
        f"{config.recipe.global_batch_size}, {num_workers} workers, images_per_device "
        f"{config.hardware.images_per_device}); enlarge {' or '.join(ways)}, or take fewer workers{group}"
    )


def _usable_limit(shares: Sequence[int], fitting_images: int, fewest: int) -> int:
    """Return the least limit from `fitting_images` on that cuts all shares into as many pieces, of `fewest` or more."""
    for limit in range(fitting_images, max(shares)):
        num_pieces = {-(-share // limit) for share in shares}
        if len(num_pieces) == 1 and all(share // max(num_pieces) >= fewest for share in shares):
            return limit
    return max(shares)
