"""Synchronised batch norm: statistics of the whole batch of all workers, in every forward pass.

Worth its communication only where a worker sees few images; the paper, like Goyal et al. 2017,
normalises per worker. torch has it for GPUs only.
"""

from collections.abc import Iterator

from torch import nn

from raytricks.parts.hooks import Hooks


def synchronise_batch_norm(model: nn.Module) -> nn.Module:
    """Return the model with every batch norm replaced by torch's SyncBatchNorm.

    Call it before DistributedDataParallel; names, weights and statistics stay as they are.
    """
    if any(type(module).__module__.startswith("timm.") for module in model.modules()):
        # timm's batch norms contain the activation, which torch's conversion would drop; timm is an optional extra
        from timm.layers.norm_act import convert_sync_batchnorm

        return convert_sync_batchnorm(model)
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def _problems(num_workers: int, device_type: str, forward_passes: tuple[int, ...]) -> Iterator[str]:
    if num_workers > 1 and len(set(forward_passes)) > 1:
        yield (
            "tricks.sync_batch_norm: all workers must make equally many forward passes, this batch would give them "
            f"{min(forward_passes)} and {max(forward_passes)}; set hardware.images_per_device=auto, or "
            "recipe.global_batch_size to a multiple of the workers"
        )
    if num_workers > 1 and device_type == "cpu":
        yield (
            "tricks.sync_batch_norm: torch synchronises batch norm on GPUs only, this run is on cpu; set it to false, "
            "or model.norm=group, which does not depend on the workers"
        )


def _model(model: nn.Module, num_workers: int) -> nn.Module:
    return synchronise_batch_norm(model) if num_workers > 1 else model


HOOKS = Hooks(problems=_problems, model=_model)
