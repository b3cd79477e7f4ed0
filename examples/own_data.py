"""Data of your own: any torch Dataset of (image, label), without ToTensor and without Normalize.

    raytricks train data.source=examples/own_data.py:shapes data.count=600 model.name=resnet8 recipe.epochs=5

An image is a PIL image or uint8 pixels, of one size or of many; `classes` and `targets` are used where the dataset
has them. Return {"train": ..., "val": ..., "test": ...} where there are splits.
"""

import numpy as np
from PIL import Image, ImageDraw
from torch.utils.data import Dataset


class Shapes(Dataset):
    """Discs, squares and crosses, somewhere on a noisy ground."""

    classes = ("disc", "square", "cross")

    def __init__(self, count: int, side: int) -> None:
        self.targets = [index % 3 for index in range(count)]
        self.side = side

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        random = np.random.default_rng(index)
        image = Image.fromarray(random.integers(0, 90, (self.side, self.side), dtype=np.uint8))
        draw, radius = ImageDraw.Draw(image), self.side // 5
        x, y = random.integers(radius + 1, self.side - radius - 1, 2).tolist()
        box = (x - radius, y - radius, x + radius, y + radius)
        if self.targets[index] == 0:
            draw.ellipse(box, fill=200)
        elif self.targets[index] == 1:
            draw.rectangle(box, fill=200)
        else:
            draw.line((*box[:2], *box[2:]), fill=200, width=2)
            draw.line((box[0], box[3], box[2], box[1]), fill=200, width=2)
        return image, self.targets[index]


def shapes(count: int = 300, side: int = 24) -> Shapes:
    """Return the data; the parameters are settings of the section `data`."""
    return Shapes(count, side)
