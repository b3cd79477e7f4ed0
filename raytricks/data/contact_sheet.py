"""Draw a few images of each class, a row a class."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from raytricks.data.decode import DecodeSpec, decode_bytes
from raytricks.data.image_formats import UnreadableImage
from raytricks.data.listing import Listing

_CELL, _GAP, _NAME_WIDTH = 96, 4, 200
_LARGEST_CLASSES = 200  # rows; more would not open in most viewers
_BACKGROUND, _INK, _MISSING = "white", "black", (220, 60, 60)


def contact_sheet(listing: Listing, *, images_per_class: int = 8, seed: int = 0) -> Image.Image:
    """Return a picture of random training images, each class in a row after its name.

    An image that cannot be read is a red square. Of more than 200 classes, 200 evenly spread ones are drawn.

    Args:
        seed: draws the images of each class, whatever the other classes are.
    """
    train, num_classes = listing.splits["train"], len(listing.class_names)
    labels = np.unique(np.linspace(0, num_classes - 1, min(num_classes, _LARGEST_CLASSES)).round().astype(int))
    step = _CELL + _GAP
    size = (_NAME_WIDTH + images_per_class * step + _GAP, len(labels) * step + _GAP)
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, label in enumerate(labels):
        top = _GAP + row * step
        text = _shorten(listing.class_names[label], font)
        draw.text((_GAP, top + _CELL // 2), text, fill=_INK, font=font, anchor="lm")
        members = np.flatnonzero(train.labels == label)
        chosen = np.random.default_rng((seed, int(label))).permutation(members)[:images_per_class]
        for column, index in enumerate(chosen):
            sheet.paste(_cell(listing, int(index)), (_NAME_WIDTH + column * step, top))
    return sheet


def _cell(listing: Listing, index: int) -> Image.Image:
    contents = listing.splits["train"].contents
    try:
        spec = DecodeSpec(_CELL, square=True, channels=3)
        pixels = decode_bytes(contents.read(index), spec, contents.place(index))
    except UnreadableImage:
        return Image.new("RGB", (_CELL, _CELL), _MISSING)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _shorten(name: str, font) -> str:
    """Cut a name that does not fit before the images."""
    if font.getlength(name) <= _NAME_WIDTH - 2 * _GAP:
        return name
    while name and font.getlength(name + "...") > _NAME_WIDTH - 2 * _GAP:
        name = name[:-1]
    return name + "..."
