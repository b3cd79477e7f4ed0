"""Synchronised batch norm: statistics of the whole batch of all workers, in every forward pass.

Worth its communication only where a worker sees few images; the paper, like Goyal et al. 2017,
normalises per worker. torch has it for GPUs only.
"""

from torch import nn


def synchronise_batch_norm(model: nn.Module) -> nn.Module:
    """Return the model with every batch norm replaced by torch's SyncBatchNorm.

    Call it before DistributedDataParallel; names, weights and statistics stay as they are.
    """
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)
