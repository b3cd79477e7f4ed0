"""What a model costs: its parameters, and the multiply-accumulate operations of one image."""

from itertools import chain

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable scalars; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_macs(model: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Return the multiply-accumulates of a forward pass of one image.

    Convolutions and matrix products count (attention's too); normalisation, activation and pooling
    do not. The pass runs on the meta device: no arithmetic, and the model is left as it was.

    Args:
        model: takes (N, C, H, W).
        input_shape: (C, H, W).

    Raises:
        RuntimeError: the images are too small for the model.
    """
    tensors = {
        name: tensor.detach().to("meta") for name, tensor in chain(model.named_parameters(), model.named_buffers())
    }
    images = torch.empty(2, *input_shape, device="meta")  # two: BatchNorm cannot train on one value
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(model, tensors, (images,))
    flops_per_mac = 2
    return counter.get_total_flops() // (flops_per_mac * len(images))
