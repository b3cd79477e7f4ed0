"""The default recipe for `raytricks train DATA_DIR`, where no config file says otherwise."""

from raytricks.recipe.facts import LARGEST_SMALL_IMAGE, DataFacts

_STEPS_WANTED = 30  # per epoch: fewer make noisy batch-norm statistics and a coarse schedule
_SMALL_SET = 20_000


def preset_for(facts: DataFacts) -> dict[str, object]:
    """Choose epochs, batch and warmup by the size and number of the images.

    Returns:
        Dotted config keys and values, of lower priority than any override.
    """
    batch = 256
    while batch > 16 and facts.num_train // batch < _STEPS_WANTED:
        batch //= 2
    is_small_image = facts.native_side <= LARGEST_SMALL_IMAGE
    epochs = 30 if is_small_image else 120
    if facts.num_train < _SMALL_SET and is_small_image:
        epochs = 60
    return {
        "recipe.epochs": epochs,
        "recipe.global_batch_size": batch,
        "tricks.warmup.epochs": 5.0 if epochs >= 60 else 2.0,
        "optimizer.weight_decay": 5e-4 if is_small_image else 1e-4,
    }
