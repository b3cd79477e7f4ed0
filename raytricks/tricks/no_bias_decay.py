"""No bias decay: weight decay pulls on the weights of convolutions and linear layers only."""

from typing import Any

from torch import nn

from raytricks.parts.hooks import Hooks

DECAYED_MODULES = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.Bilinear,
    nn.Embedding,
    nn.MultiheadAttention,
)


def split_undecayed(groups: list[dict[str, Any]], model: nn.Module) -> list[dict[str, Any]]:
    """Split each group of an optimizer into what decays and what does not.

    Selected by the type of the module that owns a parameter, not by its name: biases, the gamma
    and beta of every normalisation layer, PReLU slopes and loose parameters are not decayed.

    Args:
        groups: {"params": [...], "weight_decay": float, ...}.
        model: that the parameters are of.

    Returns:
        One or two groups for each, the decayed one first; a part without parameters is left out.

    Source: He et al. 2018, section 3.1; Jia et al. 2018.
    """
    weight_ids = _weight_ids(model)
    split = []
    for group in groups:
        decayed = [parameter for parameter in group["params"] if id(parameter) in weight_ids]
        undecayed = [parameter for parameter in group["params"] if id(parameter) not in weight_ids]
        split += [group | {"params": decayed}, group | {"params": undecayed, "weight_decay": 0.0}]
    return [group for group in split if group["params"]]


def _weight_ids(model: nn.Module) -> set[int]:
    """Return the ids of the weights (two or more dimensions) that the decayed module types own."""
    return {
        id(parameter)
        for module in model.modules()
        if isinstance(module, DECAYED_MODULES)
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim > 1 and name.endswith("weight")  # attention also owns bias_k of 3 dimensions
    }


HOOKS = Hooks(groups=split_undecayed)
