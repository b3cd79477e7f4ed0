"""Parts that a user might bring, as one file; the tests copy it to where a user would have it."""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
import torch
from torch import nn

from raytricks.parts import Hooks, Part, Section, Setting


class SharpenSettings(Section):
    amount: Annotated[float, Field(ge=0, le=2)] = 0.0
    """How much of the difference to the blurred image is added."""


def sharpen(images, draws, settings):
    pixels = images.float()
    blurred = nn.functional.avg_pool2d(pixels, 3, 1, 1)
    strength = torch.from_numpy(draws[:, 0]).to(pixels)[:, None, None, None] * settings.amount
    return (pixels + (pixels - blurred) * strength).clamp(0, 255)


SHARPEN = Part(
    kind="trick",
    name="sharpen",
    title="sharpening {}",
    source="-",
    formula="x + a u (x - blur(x))",
    settings=SharpenSettings,
    code=Hooks(num_draws=1, pixels=sharpen),
    on={"amount": 0.5},
    off={"amount": 0.0},
    shown="amount",
    changeable=("*",),
    changes_images=True,
    after=("trivial_augment",),
)


class PullSettings(Section):
    strength: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """How far the weights are pulled to their mean over time after each step."""


class Pull:
    """A running mean of the weights that the weights are pulled to: a part that carries state."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = list(model.parameters())
        self.mean = [p.detach().clone() for p in self.weights]

    @torch.no_grad()
    def step(self, strength: float) -> None:
        for weight, mean in zip(self.weights, self.mean, strict=True):
            mean.lerp_(weight, 0.1)
            weight.lerp_(mean, strength)

    def state_dict(self):
        return {str(number): mean for number, mean in enumerate(self.mean)}

    def load_state_dict(self, content):
        for number, mean in enumerate(self.mean):
            mean.copy_(content[str(number)])


def pull_after_step(state, settings):
    state.step(settings.strength)


PULL = Part(
    kind="trick",
    name="pull",
    title="pull {}",
    source="-",
    formula="w += s (mean - w)",
    settings=PullSettings,
    code=Hooks(state=Pull, after_step=pull_after_step),
    on={"strength": 0.2},
    off={"strength": 0.0},
    shown="strength",
)


def tiny(num_classes, in_channels, width: int = 8):
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1),
        nn.GroupNorm(2, width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )


class Sign(torch.optim.Optimizer):
    """The sign of the gradient: an optimizer of one's own."""

    def __init__(self, params, lr: float = 0.01, damping: float = 0.0):
        super().__init__(params, {"lr": lr, "damping": damping})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(parameter.grad.sign(), alpha=group["lr"] * (1 - group["damping"]))


def focal(logits, targets, gamma: float = 2.0):
    log = torch.log_softmax(logits, 1)
    return -(targets * (1 - log.exp()) ** gamma * log).sum(1)


def confidence(logits, labels):
    return torch.softmax(logits, 1).amax(1)


class Stripes(torch.utils.data.Dataset):
    """Images whose class is the brightest channel; of several sizes when asked."""

    def __init__(self, count: int, sides: tuple[int, ...]) -> None:
        self.count, self.sides = count, sides
        self.targets = [index % 3 for index in range(count)]
        self.classes = ["red", "green", "blue"]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        side = self.sides[index % len(self.sides)]
        pixels = np.random.default_rng(index).integers(0, 80, (side, side, 3)).astype(np.uint8)
        pixels[:, :, index % 3] += 120
        return pixels, index % 3


def stripes(count: int = 240, uneven: bool = False):
    return Stripes(count, (12, 14, 17) if uneven else (12,))


class Log:
    """Writes each epoch's top-1 beside the run."""

    def record(self, record):
        if record["kind"] == "epoch":
            with Path("seen.txt").open("a") as file:
                file.write(f"{record['epoch']} {record['val_top1']}\n")


class Lines:
    """A line for each number, in a file beside the run's: a tracker of one's own."""

    name = "lines"

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, kind, step, values):
        with self.path.open("a") as file:
            file.writelines(f"{kind} {step} {name} {value}\n" for name, value in values.items())

    def close(self, ok):
        with self.path.open("a") as file:
            file.write(f"end {ok}\n")


LINES = Part(
    kind="tracker",
    name="lines",
    title="lines",
    source="-",
    settings=Setting(annotation=str | None, default=None, doc="Name of a file in the run's directory."),
    code=Hooks(track=lambda run_dir, settings: Lines(run_dir / settings)),
    on={"": "lines.txt"},
    off={"": None},
)
