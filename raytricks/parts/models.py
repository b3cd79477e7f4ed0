"""The models: one row for each of our networks and for each library of them. `model.name` chooses.

Their settings are those of the section `model` itself, since the variants of the paper are a trick of their own.
"""

from raytricks.parts.part import Part

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
SMALL_RESNETS = ("resnet8", "resnet14", "resnet20")


def _resnet(name: str) -> Part:
    stages = "three stages, for small images" if name in SMALL_RESNETS else "four stages"
    return Part(
        kind="model",
        name=name,
        title=f"ResNet-{name.removeprefix('resnet')}",
        source="2.2",
        formula=f"residual network of {stages}; `model.variant`, `stem`, `width` and `norm` are its settings",
        measured="-",
        code="raytricks.models.resnet:HOOKS",
    )


ROWS: tuple[Part, ...] = (
    *map(_resnet, SMALL_RESNETS + RESNETS),
    Part(
        kind="model",
        name="torchvision:",
        title="torchvision's classifiers",
        source="torchvision",
        formula="`torchvision:NAME`, listed by `raytricks models`",
        measured="-",
        code="raytricks.models.torchvision_models:HOOKS",
    ),
    Part(
        kind="model",
        name="timm:",
        title="timm's classifiers",
        source="timm",
        formula="`timm:NAME`, listed by `raytricks models --timm`",
        measured="-",
        code="raytricks.models.timm_models:HOOKS",
        extra="timm",
    ),
)
