"""RandAugment, bit for bit against torchvision's own class under its own draws."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from raytricks.tricks.rand_augment import OPERATIONS, rand_augment


def images_of(count: int, channels: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, side, side), generator=generator).to(torch.uint8)


def torchvisions_draws(seed: int, num_operations: int) -> np.ndarray:
    """Return the uniforms for what RandAugment draws after `torch.manual_seed(seed)`."""
    torch.manual_seed(seed)
    signed = {name for name, (_, is_signed) in v2.RandAugment._AUGMENTATION_SPACE.items() if is_signed}
    draws: list[float] = []
    for _ in range(num_operations):
        operation = int(torch.randint(len(OPERATIONS), ()))
        sign = float(torch.rand(())) if OPERATIONS[operation] in signed else 1.0
        draws += [(operation + 0.5) / len(OPERATIONS), 0.25 if sign <= 0.5 else 0.75]
    return np.array(draws)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("operations", "magnitude", "side"), [(1, 30, 16), (2, 9, 33), (4, 0, 8)])
def test_rand_augment_equals_torchvision_bit_for_bit(channels, operations, magnitude, side):
    images, theirs = images_of(120, channels, side), v2.RandAugment(num_ops=operations, magnitude=magnitude)
    draws = np.stack([torchvisions_draws(seed, operations) for seed in range(120)])
    ours = rand_augment(images, draws, operations, magnitude)
    for seed, (image, got) in enumerate(zip(images, ours, strict=True)):
        torch.manual_seed(seed)
        assert torch.equal(got, theirs(image)), seed


def test_rand_augment_of_an_image_depends_on_its_own_draws_alone():
    images, draws = images_of(40, 3, 16), np.random.default_rng(1).random((40, 4))
    together = rand_augment(images, draws, 2, 9)
    alone = torch.cat([rand_augment(images[i : i + 1], draws[i : i + 1], 2, 9) for i in range(40)])
    assert torch.equal(together, alone)


def test_rand_augment_leaves_its_input_as_it_is_and_rounds_floats():
    images, draws = images_of(10, 3, 16), np.random.default_rng(2).random((10, 4))
    before = images.clone()
    whole = rand_augment(images, draws, 2, 9)
    assert torch.equal(images, before)
    assert torch.equal(rand_augment(images.float() + 0.3, draws, 2, 9), whole)


@pytest.mark.parametrize(("images", "draws"), [((2, 2, 8, 8), (2, 4)), ((2, 3, 8, 8), (2, 3)), ((2, 3, 8, 8), (1, 4))])
def test_rand_augment_rejects_other_shapes(images, draws):
    with pytest.raises(ValueError, match="must have the shape"):
        rand_augment(torch.zeros(images, dtype=torch.uint8), np.zeros(draws), 2, 9)
