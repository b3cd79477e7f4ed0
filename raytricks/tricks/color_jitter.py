"""Colour jitter and PCA noise: the paper's colour augmentation of the training images.

Pixels are on the scale 0..255, before normalisation. Every factor comes from a uniform that the
caller drew for its image, so an image's colours depend on nothing else in its batch.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from raytricks.parts.hooks import Hooks
from raytricks.parts.tricks import ColorJitterConfig

JITTER_DRAWS = 3  # uniforms an image: hue, saturation, brightness
PCA_DRAWS = 3

_LUMA = (0.2989, 0.587, 0.114)  # torchvision's
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])  # of ImageNet's pixels, on the scale 0..1
_EIGENVECTORS = np.array(  # rows: red, green, blue; a column an axis
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
_SMALLEST_UNIFORM = 2.0**-54  # below the smallest drawn one that is not 0


def jitter_color(images: Tensor, draws: np.ndarray, brightness: float, saturation: float, hue: float) -> Tensor:
    """Multiply hue, saturation and brightness, in this order, by a factor of U[1 - x, 1 + x] each.

    The hue is multiplied, in turns of HSV from red, and wrapped. torchvision's ColorJitter adds to
    the hue instead, so its 0.4 is another, mostly stronger setting. Saturation and brightness are
    torchvision's: a blend with the pixel's luma and a product, clamped to the range.

    Args:
        images: (N, C, H, W) float in [0, 255]; C is 3, or 1 with brightness alone.
        draws: (N, 3) uniforms in [0, 1), for hue, saturation and brightness, on or off.
        brightness, saturation, hue: x, in [0, 1] (paper: 0.4); 0: off.

    Returns:
        (N, C, H, W) in [0, 255]; `images` itself when all three are off.

    Raises:
        ValueError: x is out of range, the draws have another shape, or the images are integers or
            lack the colour.

    Source: He et al. 2018, section 2.1, step 4.
    """
    for name, x in (("brightness", brightness), ("saturation", saturation), ("hue", hue)):
        if not 0 <= x <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {x}; 0 turns it off")
    _check("draws", images, draws, JITTER_DRAWS, needs_rgb=hue > 0 or saturation > 0)
    strengths = np.array([hue, saturation, brightness])
    factors = torch.from_numpy(1 + strengths * (2 * draws - 1)).to(images)[:, :, None, None, None]
    if hue > 0:
        images = scale_hue(images, factors[:, 0, 0])
    if saturation > 0:
        images = scale_saturation(images, factors[:, 1])
    if brightness > 0:
        images = (images * factors[:, 2]).clamp_(0, 255)
    return images


def scale_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Move each pixel away from its luma, or towards it below 1.

    Args:
        images: (N, 3, H, W) in [0, 255].
        factors: (N, 1, 1, 1), >= 0.
    """
    red, green, blue = images.unbind(1)
    luma = (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])[:, None]
    return (images * factors).add_(luma * (1 - factors)).clamp_(0, 255)


def scale_hue(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply the hue in turns and wrap it.

    Args:
        images: (N, 3, H, W), >= 0, of any scale.
        factors: (N, 1, 1), >= 0.
    """
    hue, value, chroma = split_hue(images)
    return join_hue((hue * factors).frac_(), value, chroma)


def split_hue(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return hue, value and chroma of RGB images.

    Args:
        images: (N, 3, H, W), >= 0, of any scale.

    Returns:
        Three (N, H, W): the hue of HSV in turns, in [0, 1], 0 for grays; the largest channel; and
        the largest less the smallest, which is HSV's saturation times its value.
    """
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    is_red, is_green = value == red, value == green
    difference = torch.where(is_red, green - blue, torch.where(is_green, blue - red, red - green))
    sixths = difference.div_(chroma + (chroma == 0))
    sixths += torch.where(is_red, 6.0 * (sixths < 0), torch.where(is_green, 2.0, 4.0))
    return sixths / 6, value, chroma


def join_hue(hue: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """Return the (N, 3, H, W) RGB images of what `split_hue` returns."""
    sixths = hue * 6
    lacking = torch.stack(  # the part of the chroma that a channel is below the value
        [2 - (sixths - 3).abs_(), (sixths - 2).abs_() - 1, (sixths - 4).abs_() - 1], dim=1
    ).clamp_(0, 1)
    return value[:, None] - lacking.mul_(chroma[:, None])


def standard_normals(uniforms: np.ndarray) -> np.ndarray:
    """Return N(0, 1) draws by the inverse of its distribution function, finite also for 0.

    Args:
        uniforms: float64 in [0, 1), of any shape.
    """
    return torch.special.ndtri(torch.from_numpy(np.maximum(uniforms, _SMALLEST_UNIFORM))).numpy()


def pca_noise(images: Tensor, normals: np.ndarray, std: float) -> Tensor:
    """Shift the colour of each image along the principal axes of ImageNet's colours.

    Args:
        images: (N, 3, H, W) float on the scale 0..255.
        normals: (N, 3) standard normal, one for each axis.
        std: standard deviation of the noise, in eigenvalues (paper: 0.1); 0: off.

    Returns:
        (N, 3, H, W), not clamped, so that the noise is symmetric; `images` itself when off.

    Raises:
        ValueError: std is negative, the normals have another shape, or the images are integers or
            not RGB.

    Source: He et al. 2018, section 2.1, step 5; Krizhevsky et al. 2012, section 4.1.
    """
    if not std >= 0:
        raise ValueError(f"std must be >= 0, got {std}; 0 turns the noise off")
    _check("normals", images, normals, PCA_DRAWS, needs_rgb=True)
    if std == 0:
        return images
    along_axes = normals * (std * 255 * _EIGENVALUES)
    # no matrix product: the order of its sums may depend on the size of the batch
    shift = (_EIGENVECTORS * along_axes[:, None, :]).sum(axis=2)
    return images + torch.from_numpy(shift).to(images)[:, :, None, None]


def _check(name: str, images: Tensor, draws: np.ndarray, num_draws: int, *, needs_rgb: bool) -> None:
    if not images.is_floating_point():
        raise ValueError(f"images must be floats on the scale 0..255, got {images.dtype}")
    if needs_rgb and (images.ndim != 4 or images.shape[1] != 3):
        raise ValueError(f"images must have the shape (N, 3, H, W), got {tuple(images.shape)}; gray has no hue")
    if draws.shape != (len(images), num_draws):
        raise ValueError(f"{name} must have the shape {(len(images), num_draws)}, got {draws.shape}")


def _problems(channels: int, settings: ColorJitterConfig) -> Iterator[str]:
    for name in ("saturation", "hue", "pca_std"):
        if channels != 3 and getattr(settings, name) > 0:
            yield (
                f"tricks.color_jitter.{name} needs colour images (3 channels), got {getattr(settings, name):g} with "
                f"{channels}; set tricks.color_jitter.{name}=0"
            )


def _pixels(images: Tensor, draws: np.ndarray, settings: ColorJitterConfig) -> Tensor:
    if settings.brightness or settings.saturation or settings.hue:
        jitter = draws[:, :JITTER_DRAWS]
        images = jitter_color(images.float(), jitter, settings.brightness, settings.saturation, settings.hue)
    if settings.pca_std:
        images = pca_noise(images.float(), standard_normals(draws[:, JITTER_DRAWS:]), settings.pca_std)
    return images


HOOKS = Hooks(num_draws=JITTER_DRAWS + PCA_DRAWS, problems=_problems, pixels=_pixels)
