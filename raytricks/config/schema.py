"""The configuration tree: every setting of a run, its type, range, default and meaning.

One frozen pydantic model a section. Paper means He et al., *Bag of Tricks for Image
Classification with CNNs* (arXiv 1812.01187). `None` means "chosen from the data or the
hardware"; `raytricks.recipe` resolves it, prints it and saves it. Nothing here imports
torch or ray, so a config error costs no start-up time.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
SMALL_RESNETS = ("resnet8", "resnet14", "resnet20")
OWN_MODELS = SMALL_RESNETS + RESNETS


class Section(BaseModel):
    """Strict (True is no number, "3" is no integer), frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class DataConfig(Section):
    """Where the images come from and how they are prepared."""

    source: Literal["auto", "digits", "fashion_mnist", "idx", "folder"] = "auto"
    """digits: embedded in scikit-learn. fashion_mnist: the IDX files of Debian's package, of
    `path`, or downloaded by torchvision. idx: a directory of the four IDX files. folder: class
    folders, or train/ + val/ of them. auto: idx or folder, by what `path` holds."""
    path: str | None = None
    """Directory of the data; not used by digits."""
    val_fraction: Fraction | None = None
    """Part of the training images held out (stratified, seeded) for evaluation. None: 0.2 when
    the data has no evaluation split of its own, else 0. When held out although a test split
    exists, that split is scored once, after the last epoch."""
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = None
    """Side of the square model input, pixels. None: the native side when all images are equal
    squares of at most 64, else 64 or 224 by the median size."""
    channels: Literal[1, 3] | None = None
    """1: grayscale, 3: RGB. None: 1 when every image is grayscale."""
    augmentation: Literal["none", "shift", "random_resized_crop"] | None = None
    """shift: zero-padded random translation. random_resized_crop: the paper's area crop.
    None: shift up to 64 px, random_resized_crop above."""
    shift_pixels: Annotated[int, Field(ge=0, le=64)] | None = None
    """Largest translation each way. None: an eighth of the image side."""
    crop_scale: tuple[PositiveFloat, PositiveFloat] = (0.08, 1.0)
    """Range of the area of a random resized crop (paper: 8% to 100%)."""
    crop_aspect: tuple[PositiveFloat, PositiveFloat] = (0.75, 4 / 3)
    """Range of its aspect ratio (paper: 3/4 to 4/3)."""
    horizontal_flip: bool = True
    """Mirror half of the training images. Turn off for digits, text or anything chiral."""
    normalization: Literal["dataset", "imagenet"] = "dataset"
    """Mean and standard deviation measured on the training images, or ImageNet's."""
    cache_gib: Annotated[float, Field(ge=0)] | None = None
    """Memory that decoded images may take. None: half of what is free. Above it they are
    decoded from their files whenever needed."""
    download: bool = False
    """Allow torchvision to download fashion_mnist when it is nowhere on disk."""

    @model_validator(mode="after")
    def _ranges(self) -> "DataConfig":
        low, high = self.crop_scale
        if not low <= high <= 1:
            raise ValueError(f"crop_scale must be [low, high] with low <= high <= 1, got [{low}, {high}]")
        low, high = self.crop_aspect
        if low > high:
            raise ValueError(f"crop_aspect must be [low, high] with low <= high, got [{low}, {high}]")
        if self.source in ("idx", "folder") and self.path is None:
            raise ValueError(f"source {self.source} needs data.path, the directory that holds the images")
        return self


class ModelConfig(Section):
    """The network."""

    name: str | None = None
    """resnet8/14/20 (small images), resnet18/34/50/101/152, or torchvision:NAME. None: by size."""
    variant: Literal["A", "B", "C", "D"] = "D"
    """Paper section 4: A original, B stride on the 3x3, C also the deep stem, D also the
    average-pooled shortcut. Not used by torchvision models."""
    stem: Literal["imagenet", "small", "small_stride2"] | None = None
    """imagenet: 7x7/2 (A, B) or three 3x3 (C, D), then 3x3/2 max pool. small: one 3x3/1, for 8-64
    px. small_stride2: one 3x3/2, four times cheaper. None: small up to 64 px, else imagenet."""
    width: Annotated[int, Field(ge=4, le=512)] | None = None
    """Channels of the first stage. None: 16 for resnet8/14/20, 64 for the others."""
    norm: Literal["batch", "group"] = "batch"
    """group: GroupNorm, whose result does not depend on how a batch is spread over workers."""


class RecipeConfig(Section):
    """What is trained for how long. Nothing here depends on the hardware."""

    epochs: PositiveInt = 120
    """Passes over the training images (paper: 120, 200 with mixup)."""
    global_batch_size: PositiveInt = 256
    """Images per optimizer step, over all workers and accumulation steps."""
    base_lr: PositiveFloat = 0.1
    """Learning rate at a global batch of 256; `tricks.lr_scaling` makes the peak lr of it."""
    clip_norm: PositiveFloat | None = None
    """Largest norm of the whole gradient, in true gradient units. None: not clipped."""


class OptimizerConfig(Section):
    """The update rule."""

    name: Literal["sgd"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "OptimizerConfig":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0, got momentum 0; set nesterov=false")
        return self


class WarmupConfig(Section):
    """Gradual warmup (paper section 3.1; Goyal et al. 2017)."""

    epochs: Annotated[float, Field(ge=0)] = 5.0
    """The lr rises linearly, per step, over this many epochs. 0: no warmup."""


class DecayConfig(Section):
    """How the lr falls after the warmup."""

    kind: Literal["cosine", "step", "constant"] = "cosine"
    milestones: tuple[Fraction, ...] = (0.25, 0.5, 0.75)
    """step: the parts of all epochs at which the lr falls (paper: 30, 60, 90 of 120)."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """step: what the lr is multiplied by at each milestone."""

    @model_validator(mode="after")
    def _rising(self) -> "DecayConfig":
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, got {list(self.milestones)}")
        return self


class LabelSmoothingConfig(Section):
    """Label smoothing (paper section 5.2; Szegedy et al. 2016)."""

    epsilon: Fraction = 0.1
    """Probability taken from the true class. 0: off."""
    form: Literal["paper", "torch"] = "paper"
    """paper: eps/(K-1) to each other class. torch: eps/K to every class (torch, timm)."""


class MixupConfig(Section):
    """Mixup (paper section 5.4; Zhang et al. 2018)."""

    alpha: Annotated[float, Field(ge=0, le=10)] = 0.0
    """mix_weight ~ Beta(alpha, alpha), one a step (paper: 0.2). 0: off."""


class TricksConfig(Section):
    """Each trick, switchable on its own."""

    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"
    """peak_lr = base_lr * b/256 (linear), * sqrt(b/256), or base_lr."""
    warmup: WarmupConfig = WarmupConfig()
    decay: DecayConfig = DecayConfig()
    zero_gamma: bool = True
    """The last normalisation gamma of each residual branch starts at 0."""
    no_bias_decay: bool = True
    """Weight decay on convolution and linear weights only."""
    label_smoothing: LabelSmoothingConfig = LabelSmoothingConfig()
    mixup: MixupConfig = MixupConfig()


class HardwareConfig(Section):
    """How the recipe is carried out. Changing any of it does not change the recipe."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Autocast type; weights stay fp32. auto: bf16 or fp16 on a GPU, the faster of bf16 and fp32
    on a CPU."""
    channels_last: bool = True
    images_per_device: PositiveInt | None = None
    """Largest micro-batch; more images per worker are accumulated. None: no limit."""
    cpus_per_worker: PositiveInt | None = None
    """Threads of a worker. None: the machine's cores shared evenly."""
    max_restarts: Annotated[int, Field(ge=0)] = 3
    """How often a run of several workers may lose one and go on from its newest checkpoint."""


class CheckpointConfig(Section):
    """When the state is saved, and how much of it is kept."""

    every_steps: PositiveInt | None = None
    """Also save every N optimizer steps. None: at the end of each epoch only."""
    keep: PositiveInt = 2
    """Newest checkpoints kept."""


class LoggingConfig(Section):
    """How often the training step reports."""

    every_steps: PositiveInt = 20
    """Steps between two lines of metrics.jsonl (one synchronisation with the device each)."""
    tensorboard: bool = True


class ExperimentConfig(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    """Name of the run's directory. None: the data's name and the time."""
    output_dir: str = "runs"
    """Directory that holds the runs; shared by all nodes of a cluster."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    workers: Annotated[int, Field(ge=0, le=4096)] = 0
    """0: in this process, without Ray. N: N data-parallel Ray workers."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    recipe: RecipeConfig = RecipeConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    tricks: TricksConfig = TricksConfig()
    hardware: HardwareConfig = HardwareConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()

    @model_validator(mode="after")
    def _sections_agree(self) -> "ExperimentConfig":
        if self.tricks.warmup.epochs >= self.recipe.epochs:
            raise ValueError(
                f"tricks.warmup.epochs must be less than recipe.epochs ({self.recipe.epochs}), "
                f"got {self.tricks.warmup.epochs:g}; shorten the warmup or train longer"
            )
        return self
