"""What the recipe doctor knows: one small function a rule, named after its code.

Each looks at a resolved run and returns what it found, or None. docs/doctor.md says why, at length.
"""

import re

from raytricks.data.prepared import PUBLISHED_STATISTICS
from raytricks.models.weights import published_weights
from raytricks.recipe.doctor import DoctorContext, Finding, Rule
from raytricks.recipe.resolve import LARGEST_SMALL_IMAGE
from raytricks.tricks.linear_scaling import BASE_BATCH_SIZE

BATCH_NORM_FEWEST_IMAGES = 8
"""Wu & He 2018, ResNet-50: the error is 1.2 points higher at 8 images than at 32, 3.7 at 4."""
COOLEST_TEMPERATURE = 1.0
"""Hinton et al. 2015 soften with T > 1; T < 1 makes the targets harder than the teacher's answers."""
MIXING_FEWEST_EPOCHS = 100
"""He et al. 2018 go from 120 to 200 epochs for mixup; the shortest schedule of Wightman et al. 2021
(A3), which mixes too, has 100."""
WARMUP_PARTS = 10
"""Warmup of at most one part in ten: twice the 5 of 90 and 120 epochs of Goyal 2017 and He 2018."""
WARMUP_NEEDED_FROM = 1024
"""Images a step: without a warmup He et al. 2018, table 4, lose 0.8 points here, 0.2 at 256."""
SGD_LARGEST_BATCH = 8192
"""Goyal et al. 2017: the error is that of a batch of 256 up to here, and rises beyond."""
LAYERWISE_SMALLEST_BATCH = 2048
"""Far below the 8k from which You et al. 2017 need LARS."""
BATCH_PARTS = 10
"""A batch of at most one part in ten of the data: fewer steps an epoch leave schedule and warmup nothing to follow."""
EMA_PARTS = 5
"""A horizon of at most one part in five: a longer one averages over most of the lr's fall."""
SMALLEST_BATCH = 16
"""Images; a smaller batch is no remedy, whatever the data."""
LARGEST_IMBALANCE = 10
"""Buda et al. 2018 see little loss on CIFAR-10 up to here, and much beyond."""
CHIRAL_DATA = ("digit", "digits", "mnist", "emnist", "kmnist", "qmnist", "notmnist", "svhn", "usps", "omniglot")
"""Words in the names of data whose images mean something else, or nothing, when mirrored."""
FEWEST_LETTERS = 10
"""Classes of one letter or digit each; fewer may be a person's short names."""
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LEFT = re.compile(r"(?<![a-z])left(?![a-z])")


def sync_bn_zero_gamma(context: DoctorContext) -> Finding | None:
    """Source: timm, issue 54."""
    tricks = context.config.tricks
    if not (tricks.sync_batch_norm and tricks.zero_gamma) or context.has_idle_sync:
        return None
    reason = "synchronised batch norm with zero gamma has trained a ResNet-50-D with mixup to 50% instead of 78%"
    return Finding("sync-bn-zero-gamma", "tricks.zero_gamma", reason, "set tricks.zero_gamma=false")


def sync_bn_idle(context: DoctorContext) -> Finding | None:
    """Source: what it does."""
    if not context.config.tricks.sync_batch_norm or not context.has_idle_sync:
        return None
    why = "model.norm is group" if context.config.model.norm == "group" else "there is one worker"
    reason = f"synchronised batch norm has no effect: {why}"
    return Finding("sync-bn-idle", "tricks.sync_batch_norm", reason, "set tricks.sync_batch_norm=false")


def batch_norm_few_images(context: DoctorContext) -> Finding | None:
    """Source: Wu & He 2018, figure 1. Library models are left out: they may have no batch norm."""
    config = context.config
    if config.model.norm != "batch" or config.tricks.sync_batch_norm or context.is_library_model:
        return None
    share = max(1, config.recipe.global_batch_size // max(1, config.most_workers))
    num_pieces = -(-share // (config.hardware.fixed_limit or share))
    images = share // num_pieces
    if images >= BATCH_NORM_FEWEST_IMAGES:
        return None
    reason = f"batch norm takes its statistics from {images} images, fewer than {BATCH_NORM_FEWEST_IMAGES}"
    remedy = "set model.norm=group, or give each forward pass more images"
    return Finding("batch-norm-few-images", "model.norm", reason, remedy)


def elastic_batch_norm(context: DoctorContext) -> Finding | None:
    """Source: what it does; Goyal et al. 2017, section 2.3, on statistics per worker."""
    config = context.config
    if (
        not config.is_elastic
        or config.model.norm != "batch"
        or config.tricks.sync_batch_norm
        or context.is_library_model
    ):
        return None
    reason = "batch norm takes its statistics from a worker's share of the batch, which changes with the workers"
    remedy = "set model.norm=group, whose results do not depend on them, or a fixed number of workers"
    return Finding("elastic-batch-norm", "workers", reason, remedy)


def double_smoothing(context: DoctorContext) -> Finding | None:
    """Source: Müller et al. 2019, section 4."""
    epsilon = context.config.tricks.label_smoothing.epsilon
    if context.teacher is None or not context.teacher.smoothing_epsilon or epsilon == 0:
        return None
    reason = (
        f"the labels are smoothed here ({epsilon:g}) and were for the teacher ({context.teacher.smoothing_epsilon:g}), "
        "and a smoothed teacher distils worse"
    )
    remedy = "train the teacher with tricks.label_smoothing.epsilon=0, or set it to 0 here"
    return Finding("double-smoothing", "tricks.label_smoothing.epsilon", reason, remedy)


def teacher_classes(context: DoctorContext) -> Finding | None:
    """Source: the soft loss compares logits by their position."""
    if context.teacher is None or context.class_names is None or context.teacher.class_names == context.class_names:
        return None
    theirs, ours = set(context.teacher.class_names), set(context.class_names)
    unshared = (("teacher", theirs - ours), ("data", ours - theirs))
    parts = [f"only the {owner} has {_some(names)}" for owner, names in unshared if names]
    reason = " and ".join(parts) or "the teacher has the data's classes in another order"
    remedy = "take a teacher that was trained on the same class names"
    return Finding("teacher-classes", "tricks.distillation.teacher", reason, remedy)


def _some(names: set[str], limit: int = 3) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(repr(name) for name in listed[:limit]) + more


def low_temperature(context: DoctorContext) -> Finding | None:
    """Source: Hinton et al. 2015, section 2."""
    distillation = context.config.tricks.distillation
    if distillation.teacher is None or distillation.temperature >= COOLEST_TEMPERATURE:
        return None
    reason = f"a temperature of {distillation.temperature:g} hardens the teacher's answers instead of softening them"
    remedy = "set tricks.distillation.temperature to 1 or more (paper: 20)"
    return Finding("low-temperature", "tricks.distillation.temperature", reason, remedy)


def mixup_short_schedule(context: DoctorContext) -> Finding | None:
    """Source: He et al. 2018, section 5.4."""
    epochs = context.recipe.epochs
    names = [name for name, off_epochs in context.mixing if off_epochs < epochs]
    if not names or epochs >= MIXING_FEWEST_EPOCHS:
        return None
    reason = f"{' and '.join(names)} in {epochs} epochs: mixed images take longer to learn (paper: 200 instead of 120)"
    remedy = f"set recipe.epochs to {MIXING_FEWEST_EPOCHS} or more, or tricks.{names[0]}.alpha=0"
    return Finding("mixup-short-schedule", f"tricks.{names[0]}.alpha", reason, remedy)


def mixup_never_on(context: DoctorContext) -> Finding | None:
    """Source: what it does."""
    epochs = context.recipe.epochs
    names = [name for name, off_epochs in context.mixing if off_epochs >= epochs]
    if not names:
        return None
    reason = f"{' and '.join(names)} is off in the last {epochs} epochs, which are all there are"
    remedy = f"lower tricks.{names[0]}.off_epochs, or set tricks.{names[0]}.alpha=0"
    return Finding("mixup-never-on", f"tricks.{names[0]}.off_epochs", reason, remedy)


def warmup_long(context: DoctorContext) -> Finding | None:
    """Source: Goyal et al. 2017; He et al. 2018. You et al. 2020 warm lamb up for 20 of 90 epochs."""
    warmup, epochs = context.config.tricks.warmup.epochs, context.recipe.epochs
    if context.config.optimizer.name != "sgd" or warmup <= epochs / WARMUP_PARTS:
        return None
    reason = f"the warmup takes {warmup:g} of {epochs} epochs, more than a tenth"
    remedy = f"set tricks.warmup.epochs to {epochs / WARMUP_PARTS:g} or less"
    return Finding("warmup-long", "tricks.warmup.epochs", reason, remedy)


def warmup_missing(context: DoctorContext) -> Finding | None:
    """Source: He et al. 2018, table 4; Goyal et al. 2017."""
    batch = context.recipe.global_batch_size
    if context.recipe.warmup_steps > 0 or batch < WARMUP_NEEDED_FROM:
        return None
    lr = context.recipe.peak_lr
    reason = f"no warmup at a batch of {batch:,}: the first steps, at the full lr of {lr:g}, are unstable"
    remedy = f"set tricks.warmup.epochs={min(5, context.recipe.epochs / WARMUP_PARTS):g}"
    return Finding("warmup-missing", "tricks.warmup.epochs", reason, remedy)


def weight_decay_range(context: DoctorContext) -> Finding | None:
    """Source: the optimizer's row; He et al. 2018 (1e-4); You et al. 2020 and Wightman et al. 2021 (0.01 to 0.03)."""
    optimizer = context.config.optimizer
    usual = context.chosen("optimizer").usual.get("optimizer.weight_decay")
    if usual is None or optimizer.weight_decay == 0 or usual.low <= optimizer.weight_decay <= usual.high:
        return None
    reason = (
        f"weight decay {optimizer.weight_decay:g} is outside the usual {usual.low:g} to {usual.high:g} of "
        f"{optimizer.name}"
    )
    return Finding(
        "weight-decay-range", "optimizer.weight_decay", reason, f"set optimizer.weight_decay={usual.start:g}"
    )


def lr_not_following_batch(context: DoctorContext) -> Finding | None:
    """Source: He et al. 2018, section 3.1."""
    recipe = context.recipe
    if context.config.tricks.lr_scaling != "none" or recipe.global_batch_size == BASE_BATCH_SIZE:
        return None
    reason = f"the lr is that of {BASE_BATCH_SIZE} images a step, and there are {recipe.global_batch_size:,}"
    same = recipe.base_lr * BASE_BATCH_SIZE / recipe.global_batch_size
    remedy = f"set tricks.lr_scaling=linear (recipe.base_lr={same:.3g} would keep this lr)"
    return Finding("lr-not-following-batch", "tricks.lr_scaling", reason, remedy)


def batch_of_data(context: DoctorContext) -> Finding | None:
    """Source: arithmetic."""
    batch, num_images = context.recipe.global_batch_size, context.recipe.num_train_images
    if batch <= max(SMALLEST_BATCH, num_images // BATCH_PARTS):
        return None
    steps = context.recipe.steps_per_epoch
    reason = f"a batch of {batch:,} is more than a tenth of the {num_images:,} training images: {steps} steps an epoch"
    remedy = f"set recipe.global_batch_size={max(SMALLEST_BATCH, 2 ** ((num_images // BATCH_PARTS).bit_length() - 1))}"
    return Finding("batch-of-data", "recipe.global_batch_size", reason, remedy)


def large_batch_sgd(context: DoctorContext) -> Finding | None:
    """Source: Goyal et al. 2017, figure 1."""
    batch = context.recipe.global_batch_size
    if context.config.optimizer.name != "sgd" or batch <= SGD_LARGEST_BATCH:
        return None
    reason = f"sgd loses accuracy beyond {SGD_LARGEST_BATCH:,} images a step, and there are {batch:,}"
    remedy = "set optimizer.name=lars, or lower recipe.global_batch_size"
    return Finding("large-batch-sgd", "optimizer.name", reason, remedy)


def lars_small_batch(context: DoctorContext) -> Finding | None:
    """Source: You et al. 2017; Goyal et al. 2017."""
    name, batch = context.config.optimizer.name, context.recipe.global_batch_size
    if name not in ("lars", "lamb") or batch >= LAYERWISE_SMALLEST_BATCH:
        return None
    reason = f"{name} is for thousands of images a step, and there are {batch:,}, where sgd needs no layer-wise lr"
    return Finding("lars-small-batch", "optimizer.name", reason, "set optimizer.name=sgd")


def layerwise_lr(context: DoctorContext) -> Finding | None:
    """Source: the optimizer's row, measured on digits with this package; see docs/tricks.md."""
    recipe, usual = context.recipe, context.chosen("optimizer").usual.get("peak_lr")
    if usual is None or usual.low <= recipe.peak_lr <= usual.high:
        return None
    reason = (
        f"the lr of {context.config.optimizer.name} is that of no other optimizer: its peak would be "
        f"{recipe.peak_lr:.4g} at a batch of {recipe.global_batch_size:,}, {usual.low:g} to {usual.high:g} is usual"
    )
    base_lr = recipe.base_lr * usual.start / recipe.peak_lr
    return Finding("layerwise-lr", "recipe.base_lr", reason, f"set recipe.base_lr={base_lr:.3g}")


def ema_too_slow(context: DoctorContext) -> Finding | None:
    """Source: arithmetic; `tricks.ema` ramps the decay up, so such a one is never reached."""
    decay, steps = context.config.tricks.ema.decay, context.recipe.total_steps
    if decay == 0 or 1 / (1 - decay) <= steps / EMA_PARTS:
        return None
    reason = f"the average of the weights spans {1 / (1 - decay):,.0f} steps, more than a fifth of the run's {steps:,}"
    remedy = f"set tricks.ema.decay={1 - 1 / max(1.0, steps / (2 * EMA_PARTS)):.6g} or less"
    return Finding("ema-too-slow", "tricks.ema.decay", reason, remedy)


def imagenet_stem_small_images(context: DoctorContext) -> Finding | None:
    """Source: He K. et al. 2016, section 4.2 (CIFAR-10). The libraries' ResNets all have this stem."""
    model, side = context.config.model, context.config.data.image_size or 0
    has_it = "resne" in str(model.name) if context.is_library_model else model.stem == "imagenet"
    if not has_it or side > LARGEST_SMALL_IMAGE:
        return None
    reason = f"the ImageNet stem shrinks images of {side} px to {-(-side // 4)} before the first block"
    if context.is_library_model:
        remedy = "set data.image_size=224, or take one of our ResNets"
        return Finding("imagenet-stem-small-images", "model.name", reason, remedy)
    return Finding("imagenet-stem-small-images", "model.stem", reason, "set model.stem=small")


def pretrained_normalization(context: DoctorContext) -> Finding | None:
    """Source: torchvision's and timm's model cards. Our own runs are no .pth."""
    model = context.config.model
    is_published = model.pretrained or (context.is_library_model and str(model.init_from).endswith(".pth"))
    published = published_weights(str(model.name)) if is_published else None
    if published is None:
        return None
    wanted = (published.mean, published.std)
    given = context.config.data.normalization
    if PUBLISHED_STATISTICS.get(given) == wanted:
        return None
    name = next((name for name, known in PUBLISHED_STATISTICS.items() if known == wanted), None)
    expected = f"mean {published.mean} and standard deviation {published.std}"
    reason = f"the weights of {model.name} expect {expected}, not {given}'s"
    remedy = f"set data.normalization={name}" if name else "take weights of another model"
    return Finding("pretrained-normalization", "data.normalization", reason, remedy)


def mirrored_digits(context: DoctorContext) -> Finding | None:
    """Source: a mirrored 2 is no 2, a mirrored b is a d."""
    if not _flips(context):
        return None
    words = re.split(r"[^a-z]+", context.stats.name.lower())
    names = [name.lower() for name in context.class_names or ()]
    are_letters = len(names) >= FEWEST_LETTERS and all(len(name) == 1 and name.isalnum() for name in names)
    if are_letters or sorted(names) in (sorted("0123456789"), sorted(DIGIT_NAMES)):
        reason = (
            f"half of the training images are mirrored, and the classes are letters or digits, such as {names[0]!r}"
        )
    elif "fashion" not in words and any(word in CHIRAL_DATA for word in words):
        reason = f"half of the training images of {context.stats.name} are mirrored, and a mirrored 2 is no 2"
    else:
        return None
    return Finding("mirrored-digits", "data.horizontal_flip", reason, "set data.horizontal_flip=false")


def mirrored_classes(context: DoctorContext) -> Finding | None:
    """Source: a mirrored left is a right."""
    if not _flips(context):
        return None
    names = {name.lower(): name for name in context.class_names or ()}
    for name, shown in names.items():
        twin = _LEFT.sub("right", name)
        if twin != name and twin in names:
            reason = f"half of the training images are mirrored, which makes {shown!r} look like {names[twin]!r}"
            return Finding("mirrored-classes", "data.horizontal_flip", reason, "set data.horizontal_flip=false")
    return None


def _flips(context: DoctorContext) -> bool:
    data = context.config.data
    return data.horizontal_flip and data.augmentation != "none"


def class_imbalance(context: DoctorContext) -> Finding | None:
    """Source: Buda et al. 2018, section 5: oversampling to equal numbers helped most. A loss of one's own may weigh."""
    counts = [count for count in context.stats.class_counts if count]
    if context.config.data.balanced_sampling or context.chosen("loss").origin != "raytricks" or not counts:
        return None
    most, fewest = max(counts), min(counts)
    if most <= LARGEST_IMBALANCE * fewest:
        return None
    reason = (
        f"a class has {most:,} training images and another {fewest:,} (1:{most / fewest:.0f}): the rare one may never "
        "be learned, and top-1 hardly shows it"
    )
    remedy = "set data.balanced_sampling=true, and metrics=[balanced_accuracy] to see it"
    return Finding("class-imbalance", "data.balanced_sampling", reason, remedy)


def fp16_on_cpu(context: DoctorContext) -> Finding | None:
    """Source: measured with this package; see docs/tricks.md."""
    if context.device_type != "cpu" or context.precision != "fp16":
        return None
    reason = "a CPU computes fp16 20 to 50 times slower than fp32"
    return Finding("fp16-on-cpu", "hardware.precision", reason, "set hardware.precision=auto")


def gradient_compression_idle(context: DoctorContext) -> Finding | None:
    """Source: what it does."""
    kind = context.config.tricks.gradient_compression.kind
    if kind == "none" or context.config.most_workers > 1:
        return None
    reason = f"{kind} gradient compression has no effect: there is no second worker to send gradients to"
    remedy = "set tricks.gradient_compression.kind=none"
    return Finding("gradient-compression-idle", "tricks.gradient_compression.kind", reason, remedy)


GENERAL: tuple[Rule, ...] = (
    batch_norm_few_images,
    elastic_batch_norm,
    weight_decay_range,
    batch_of_data,
    large_batch_sgd,
    imagenet_stem_small_images,
    pretrained_normalization,
    mirrored_digits,
    mirrored_classes,
    class_imbalance,
)
"""Those that are about no part; the others are named by the rows of `raytricks.parts`."""
