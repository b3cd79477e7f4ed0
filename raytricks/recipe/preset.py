"""The default recipe for `raytricks train DATA_DIR`, where no config file says otherwise."""

from raytricks.recipe.dataset_stats import LARGEST_SMALL_IMAGE, DatasetStats

_STEPS_WANTED = 30  # per epoch: fewer make noisy batch-norm statistics and a coarse schedule
_SMALL_SET = 20_000


def preset_for(stats: DatasetStats, epochs: int | None = None) -> dict[str, object]:
    """Choose epochs, batch and warmup by the size and number of the images.

    Args:
        epochs: those the user chose; the warmup is shortened to a tenth of them.

    Returns:
        Dotted config keys and values, of lower priority than any override.
    """
    batch = 256
    while batch > 16 and stats.num_train // batch < _STEPS_WANTED:
        batch //= 2
    is_small_image = stats.native_side <= LARGEST_SMALL_IMAGE
    if epochs is None:
        epochs = 120 if not is_small_image else 60 if stats.num_train < _SMALL_SET else 30
    return {
        "recipe.epochs": epochs,
        "recipe.global_batch_size": min(batch, stats.num_train),
        "tricks.warmup.epochs": min(5.0 if epochs >= 60 else 2.0, epochs / 10),
        "optimizer.weight_decay": 5e-4 if is_small_image else 1e-4,
    }
