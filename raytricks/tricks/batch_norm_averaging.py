"""Averaging of the batch-norm statistics over the workers, before evaluation and checkpoints.

Each worker normalises by its own images, as in Goyal et al. 2017, so running statistics drift
apart; DDP would keep those of rank 0 alone.
"""

import torch
from torch import distributed, nn


@torch.no_grad()
def average_batch_norm_buffers(model: nn.Module) -> None:
    """Replace the running means and variances by their means over all workers, in place.

    Collective: every worker must call it with the same model. One all-reduce of one flat fp32
    tensor; nothing happens with one worker or without torch.distributed. `num_batches_tracked`
    is equal everywhere and stays.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return
    num_workers = distributed.get_world_size()
    buffers = _running_statistics(model)
    if num_workers == 1 or not buffers:
        return
    flat = torch.cat([buffer.reshape(-1).float() for buffer in buffers])
    distributed.all_reduce(flat)  # a sum: gloo has no mean
    flat /= num_workers
    for buffer, average in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(average.view_as(buffer))


def _running_statistics(model: nn.Module) -> list[torch.Tensor]:
    """Return the running means and variances of every batch norm that keeps them."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    statistics = [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var)]
    return [buffer for buffer in statistics if buffer is not None]
