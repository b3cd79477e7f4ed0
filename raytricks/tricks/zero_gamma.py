"""Zero gamma: every residual block starts as the identity, so a deep net starts as a shallow one."""

from torch import nn

from raytricks.parts.hooks import Hooks

Normalisation = nn.modules.batchnorm._BatchNorm | nn.GroupNorm


def zero_last_gammas(model: nn.Module) -> list[str]:
    """Set the gamma of the last normalisation of each residual branch to zero, in place.

    Call it after the weights are initialised (a later initialisation undoes it) and not on a
    pretrained model. A block is recognised by its structure: it owns a `downsample` (or None), two
    or more convolutions, and a normalisation after the last of them. That holds for our ResNets and
    for the ResNet families of torchvision and timm, BasicBlocks included. It leaves out the
    shortcut's own normalisation (with both at zero nothing but the classifier's bias would learn)
    and pre-activation blocks, whose last convolution would never wake up.

    Returns:
        Names of the zeroed parameters in the model's order; empty if it has no such block.

    Source: He et al. 2018, section 3.1; Goyal et al. 2017, section 5.1. The authors' code skips
    BasicBlocks silently; this does not.
    """
    zeroed = []
    for path, module in model.named_modules():
        layer = _last_normalisation(module)
        if layer is None:
            continue
        name = f"{path}.{layer}.weight".removeprefix(".")
        nn.init.zeros_(model.get_parameter(name))
        zeroed.append(name)
    return zeroed


def _last_normalisation(module: nn.Module) -> str | None:
    """Return the name of a residual block's last affine normalisation, None for other modules."""
    if not hasattr(module, "downsample"):
        return None
    layers = [
        (name, child)
        for name, child in module.named_children()
        if name != "downsample" and isinstance(child, nn.Conv2d | Normalisation)
    ]
    num_convolutions = sum(isinstance(child, nn.Conv2d) for _, child in layers)
    if num_convolutions < 2:
        return None
    name, last = layers[-1]
    is_affine = isinstance(last, Normalisation) and last.weight is not None
    return name if is_affine else None


def _model(model: nn.Module) -> nn.Module:
    zero_last_gammas(model)
    return model


HOOKS = Hooks(model=_model)
