"""Batch-norm statistics made equal on all workers, before evaluation and checkpoints.

Each worker normalises by its own images, as in Goyal et al. 2017, so running statistics drift
apart; DDP alone would evaluate with other statistics on each rank.
"""

from collections.abc import Callable

import torch
from torch import distributed, nn

from raytricks.parts.hooks import Hooks


def average_batch_norm_buffers(model: nn.Module) -> None:
    """Replace the running means and variances by their means over all workers, in place.

    Collective: every worker must call it with the same model. One all-reduce of one flat fp32
    tensor; nothing happens with one worker or without torch.distributed. `num_batches_tracked`
    is equal everywhere and stays.
    """

    def mean(flat: torch.Tensor) -> None:
        distributed.all_reduce(flat)  # a sum: gloo has no mean
        flat /= distributed.get_world_size()

    _replace(model, mean)


def share_first_batch_norm_buffers(model: nn.Module) -> None:
    """Replace the running means and variances by the first worker's, in place; what DDP users evaluate.

    Collective, as `average_batch_norm_buffers`.
    """

    def of_first(flat: torch.Tensor) -> None:
        distributed.broadcast(flat, src=0)

    _replace(model, of_first)


@torch.no_grad()
def _replace(model: nn.Module, communicate: Callable[[torch.Tensor], None]) -> None:
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return
    buffers = _running_statistics(model)
    if not buffers:
        return
    flat = torch.cat([buffer.reshape(-1).float() for buffer in buffers])
    communicate(flat)
    for buffer, values in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(values.view_as(buffer))


def _running_statistics(model: nn.Module) -> list[torch.Tensor]:
    """Return the running means and variances of every batch norm that keeps them."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    statistics = [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var)]
    return [buffer for buffer in statistics if buffer is not None]


HOOKS = Hooks(before_evaluation=average_batch_norm_buffers)
