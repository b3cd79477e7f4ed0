"""The module that is exported: from stored squares of pixels, or from normalised images, to answers."""

import copy

import torch
from torch import Tensor, nn
from torch.export import Dim

from raytricks.inference.trained_model import TrainedModel

OUTPUTS = ("logits", "probabilities", "top_classes", "top_probabilities")
INPUT, BARE_INPUT, PIXELS = "images", "inputs", "normalized"
_TOP = 5


class ServedModel(nn.Module):
    """What a server or a phone needs: (N, side, side, C) uint8 squares, RGB, to answers.

    The squares are what `TrainedModel.preprocess` stores: the image upright, its central square resized, antialiased.

    Returns:
        (N, K) logits; (N, K) probabilities of the calibrated softmax; (N, T) numbers of the most probable classes,
        T = min(5, K); their probabilities; and the normalised images, which are compared and then left out.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        transform = trained.preprocess.transform
        self.net = fp32_copy(trained)
        self.register_buffer("mean", 255 * torch.tensor(transform.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(transform.std).view(-1, 1, 1), persistent=False)
        self.margin = (trained.preprocess.side - transform.image_size) // 2
        self.image_size = transform.image_size
        self.temperature = trained.temperature
        self.top = min(_TOP, trained.num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        inputs = self.normalized(images)
        logits = self.net(inputs)
        probabilities = torch.softmax(logits / self.temperature, dim=1)
        top = probabilities.topk(self.top, dim=1)
        return logits, probabilities, top.indices, top.values, inputs

    def normalized(self, images: Tensor) -> Tensor:
        """Return the (N, C, S, S) model input."""
        a, b = self.margin, self.margin + self.image_size
        pixels = images.permute(0, 3, 1, 2)[:, :, a:b, a:b].float()
        return (pixels - self.mean) / self.std


class BareModel(nn.Module):
    """The net alone: (N, C, S, S) normalised float32 to (N, K) logits."""

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.net = fp32_copy(trained)

    def forward(self, inputs: Tensor) -> tuple[Tensor]:
        return (self.net(inputs),)


def fp32_copy(trained: TrainedModel) -> nn.Module:
    """Return the net as it is exported and compared: on the CPU, contiguous, fp32, in evaluation mode."""
    net = copy.deepcopy(trained.model).to(device="cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return net.float().eval().requires_grad_(False)


def example_of(trained: TrainedModel, *, bare: bool, any_size: bool = False) -> Tensor:
    """Return an input of two images: one image would freeze the batch at 1."""
    preprocess = trained.preprocess
    if bare:
        size = preprocess.transform.image_size
        return torch.zeros(2, trained.channels, size, size)
    height, width = (37, 53) if any_size else (preprocess.side, preprocess.side)
    return torch.zeros(2, height, width, trained.channels, dtype=torch.uint8)


def free_dims(*, any_size: bool) -> dict[int, Dim]:
    """Return the dimensions of the input that a file does not fix, by their number."""
    free = {0: Dim("batch", min=1)}
    return free | {1: Dim("height", min=2), 2: Dim("width", min=2)} if any_size else free
