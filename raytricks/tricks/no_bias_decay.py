"""No bias decay: weight decay pulls on the weights of convolutions and linear layers only."""

from typing import Any

from torch import nn

DECAYED_MODULES = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.Bilinear,
    nn.Embedding,
    nn.MultiheadAttention,
)


def decay_groups(model: nn.Module, weight_decay: float, enabled: bool = True) -> list[dict[str, Any]]:
    """Split the trainable parameters into the optimizer's groups with and without weight decay.

    Selected by the type of the module that owns a parameter, not by its name: biases, the gamma
    and beta of every normalisation layer, PReLU slopes and loose parameters are not decayed.

    Args:
        model: frozen parameters (requires_grad False) are left out, shared ones taken once.
        weight_decay: of the decayed group, >= 0.
        enabled: False: one group, everything is decayed.

    Returns:
        One or two groups {"params": [...], "weight_decay": float}, the decayed one first.

    Raises:
        ValueError: weight_decay is negative.

    Source: He et al. 2018, section 3.1; Jia et al. 2018.
    """
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must be >= 0, got {weight_decay}")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weight_ids = _weight_ids(model)
    decayed = [parameter for parameter in trainable if not enabled or id(parameter) in weight_ids]
    undecayed = [parameter for parameter in trainable if enabled and id(parameter) not in weight_ids]
    grouped_ids = [id(parameter) for parameter in decayed + undecayed]
    assert len(grouped_ids) == len(set(grouped_ids)) == len(trainable), "not a partition of the parameters"
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": undecayed, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _weight_ids(model: nn.Module) -> set[int]:
    """Return the ids of the weights (two or more dimensions) that the decayed module types own."""
    return {
        id(parameter)
        for module in model.modules()
        if isinstance(module, DECAYED_MODULES)
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim > 1 and name.endswith("weight")  # attention also owns bias_k of 3 dimensions
    }
