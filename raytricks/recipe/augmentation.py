"""The image tricks that the switches turn on, as one object for the training batches."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from raytricks.config.schema import ColorJitterConfig, TricksConfig
from raytricks.data.augmentation import ImageTricks
from raytricks.errors import ConfigError
from raytricks.tricks.color_jitter import JITTER_DRAWS, PCA_DRAWS, jitter_color, pca_noise, standard_normals
from raytricks.tricks.random_erasing import ERASING_DRAWS, erase
from raytricks.tricks.trivial_augment import TRIVIAL_AUGMENT_DRAWS, trivial_augment

# each trick has its columns of an image's draws, so that switching one leaves the others' as they are
_JITTER = slice(0, JITTER_DRAWS)
_PCA = slice(_JITTER.stop, _JITTER.stop + PCA_DRAWS)
_TRIVIAL = slice(_PCA.stop, _PCA.stop + TRIVIAL_AUGMENT_DRAWS)
_ERASING = slice(_TRIVIAL.stop, _TRIVIAL.stop + ERASING_DRAWS)


@dataclass(frozen=True, kw_only=True)
class SwitchedImageTricks:
    """Colour jitter, PCA noise, TrivialAugment and random erasing; see `ImageTricks`.

    The fields are those of the config: 0 and False are off.
    """

    brightness: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    pca_std: float = 0.0
    trivial: bool = False
    erasing_probability: float = 0.0
    erasing_area: tuple[float, float] = (0.02, 0.33)
    erasing_aspect: tuple[float, float] = (0.3, 3.3)

    @property
    def num_draws(self) -> int:
        """Up to the last column that is needed."""
        return _ERASING.stop if self.erasing_probability else _TRIVIAL.stop

    def on_pixels(self, images: Tensor, draws: np.ndarray) -> Tensor:
        """TrivialAugment first: it works on whole pixel values."""
        if self.trivial:
            images = trivial_augment(images, draws[:, _TRIVIAL])
        if self.brightness or self.saturation or self.hue:
            images = jitter_color(images.float(), draws[:, _JITTER], self.brightness, self.saturation, self.hue)
        if self.pca_std:
            images = pca_noise(images.float(), standard_normals(draws[:, _PCA]), self.pca_std)
        return images

    def on_inputs(self, images: Tensor, draws: np.ndarray) -> Tensor:
        """Random erasing: 0 is the mean pixel here."""
        if not self.erasing_probability:
            return images
        return erase(images, draws[:, _ERASING], self.erasing_probability, self.erasing_area, self.erasing_aspect)


def image_tricks(tricks: TricksConfig, channels: int) -> ImageTricks | None:
    """Return the image tricks of a config, or None when all are off.

    Args:
        channels: of the model's input, 1 or 3.

    Raises:
        ConfigError: a colour trick is on and the images are gray.
    """
    jitter, erasing = tricks.color_jitter, tricks.random_erasing
    _check_channels(jitter, channels)
    switched = SwitchedImageTricks(
        brightness=jitter.brightness,
        saturation=jitter.saturation,
        hue=jitter.hue,
        pca_std=jitter.pca_std,
        trivial=tricks.trivial_augment,
        erasing_probability=erasing.probability,
        erasing_area=erasing.area,
        erasing_aspect=erasing.aspect,
    )
    on = jitter.brightness or jitter.saturation or jitter.hue or jitter.pca_std
    return switched if on or tricks.trivial_augment or erasing.probability else None


def _check_channels(jitter: ColorJitterConfig, channels: int) -> None:
    if channels == 3:
        return
    problems = [
        f"tricks.color_jitter.{name} needs colour images (3 channels), got {getattr(jitter, name):g} with {channels}; "
        f"set tricks.color_jitter.{name}=0"
        for name in ("saturation", "hue", "pca_std")
        if getattr(jitter, name) > 0
    ]
    if problems:
        raise ConfigError(problems)
