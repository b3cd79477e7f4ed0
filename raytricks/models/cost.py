"""What a model costs: its parameters, and the multiply-accumulate operations and the memory of one image."""

from itertools import chain

import torch
from torch import Tensor, nn
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
    images = _two_images(input_shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(model, _without_values(model), (images,))
    flops_per_mac = 2
    return counter.get_total_flops() // (flops_per_mac * len(images))


def count_activation_bytes(model: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Return the bytes that a forward pass of one fp32 image keeps for its backward pass, weights left out.

    A training step was measured to take 0.7 to 1.4 times this per image (ResNets, EfficientNet, ViT, ConvNeXt on a
    CPU). The pass runs on the meta device; arguments and errors as of `count_macs`.
    """
    tensors, images = _without_values(model), _two_images(input_shape)
    own = {tensor.untyped_storage()._cdata for tensor in tensors.values()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _ = functional_call(model, tensors, (images,))
    sizes = [tensor.untyped_storage().nbytes() for storage, tensor in kept.items() if storage not in own]
    return sum(sizes) // len(images)


def _without_values(model: nn.Module) -> dict[str, Tensor]:
    named = chain(model.named_parameters(), model.named_buffers())
    return {name: tensor.detach().to("meta").requires_grad_(tensor.requires_grad) for name, tensor in named}


def _two_images(input_shape: tuple[int, int, int]) -> Tensor:
    return torch.empty(2, *input_shape, device="meta")  # BatchNorm cannot train on one value
