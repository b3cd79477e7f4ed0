"""Gradient compression: torch's own DDP communication hooks, for networks slower than the GPUs.

The gradients still become the mean over the workers, rounded to half precision or to a low rank.
"""

from collections.abc import Iterator
from typing import Literal

from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from raytricks.parts.hooks import Hooks
from raytricks.parts.tricks import GradientCompressionConfig

Compression = Literal["none", "fp16", "bf16", "powersgd"]
_EXACT_STEPS = 10  # PowerSGD's start: torch allows its error feedback from the third step on


def compress_gradients(model: DistributedDataParallel, kind: Compression, rank: int = 2) -> None:
    """Register a communication hook, in place; call it before the first step.

    Args:
        kind: none: nothing is registered. fp16, bf16: half the bytes. powersgd: each gradient
            matrix as a product of rank `rank`, after 10 uncompressed steps, with error feedback.
        rank: powersgd only, >= 1.

    Raises:
        ValueError: an unknown kind, or a rank below 1.

    Source: Vogels et al. 2019 (PowerSGD); torch.distributed.algorithms.ddp_comm_hooks.
    """
    if kind not in ("none", "fp16", "bf16", "powersgd"):
        raise ValueError(f"kind must be none, fp16, bf16 or powersgd, got {kind!r}")
    if rank < 1:
        raise ValueError(f"rank must be >= 1, got {rank}")
    if kind == "none":
        return
    if kind == "powersgd":
        state = powerSGD_hook.PowerSGDState(
            process_group=None, matrix_approximation_rank=rank, start_powerSGD_iter=_EXACT_STEPS
        )
        model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    else:
        hook = default_hooks.fp16_compress_hook if kind == "fp16" else default_hooks.bf16_compress_hook
        model.register_comm_hook(None, hook)


def _problems(num_workers: int, device_type: str, precision: str, settings: GradientCompressionConfig) -> Iterator[str]:
    if settings.kind == "powersgd" and num_workers > 1 and precision == "fp16":
        yield (  # the overflow of a step whose loss scale was too large stays in it, and makes all later ones overflow
            "tricks.gradient_compression.kind: powersgd carries an error from step to step, which does not survive an "
            "overflow of fp16; take fp16 compression, or hardware.precision=bf16"
        )
    if settings.kind == "powersgd" and num_workers > 1 and device_type == "cpu":
        yield (  # seen: gloo aborts the process as soon as there are two buckets
            "tricks.gradient_compression.kind: torch's powersgd starts collectives in another order on each worker, "
            "which gloo, the CPU's backend, cannot sort out; take fp16 or bf16, or GPUs"
        )


def _reduction(ddp_model: DistributedDataParallel, settings: GradientCompressionConfig) -> None:
    compress_gradients(ddp_model, settings.kind, settings.rank)


HOOKS = Hooks(problems=_problems, reduction=_reduction)
