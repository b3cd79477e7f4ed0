"""The configuration tree: every setting of a run, its type, range, default and meaning.

One frozen pydantic model a section. Paper means He et al., *Bag of Tricks for Image
Classification with CNNs* (arXiv 1812.01187). `None` means "chosen from the data or the
hardware"; `raytricks.recipe` resolves it, prints it and saves it. Nothing here imports
torch or ray, so a config error costs no start-up time.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raytricks.config.hardware import CheckpointConfig, HardwareConfig, LoggingConfig, NumWorkers
from raytricks.config.section import Fraction, PositiveFloat, PositiveInt, Section
from raytricks.config.tuning import TuneConfig

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
SMALL_RESNETS = ("resnet8", "resnet14", "resnet20")
OWN_MODELS = SMALL_RESNETS + RESNETS

Side = Annotated[int, Field(ge=4, le=1024)]
Part = Annotated[float, Field(ge=0, le=1)]


class DataConfig(Section):
    """Where the images come from and how they are prepared."""

    source: Literal["auto", "digits", "fashion_mnist", "idx", "folder", "shards"] = "auto"
    """digits: embedded in scikit-learn. fashion_mnist: the IDX files of Debian's package, of
    `path`, or downloaded by torchvision. idx: a directory of the four IDX files. folder: class
    folders, or train/ + val/ of them. shards: what `raytricks data pack` wrote. auto: idx, folder
    or shards, by what `path` holds."""
    path: str | None = None
    """Directory of the data; not used by digits."""
    val_fraction: Fraction | None = None
    """Part of the training images held out (stratified, seeded) for evaluation. None: 0.2 when
    the data has no evaluation split of its own, else 0. When held out although a test split
    exists, that split is scored once, after the last epoch."""
    split_seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Seed of which images are held out. None: the run's seed, so runs of other seeds hold out others."""
    image_size: Side | None = None
    """Side of the square model input, pixels. None: the native side when all images are equal
    squares of at most 64, else 64 or 224 by the median size."""
    train_size: tuple[Side, Side] | None = None
    """[first, last] side of the training images, which rises over the epochs (progressive resizing, not
    in the paper). None: image_size throughout."""
    train_size_ramp: tuple[Part, Part] = (0.0, 0.75)
    """Parts of the run between which train_size rises, in steps of 32 pixels (4 below 128)."""
    eval_size: Side | None = None
    """Side of the images in evaluation. None: image_size."""
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
    augmentation_seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Seed of each image's augmentation. None: the run's seed. Runs that share it see the same
    images in the same epoch, and so may share a teacher's cached logits."""
    horizontal_flip: bool = True
    """Mirror half of the training images. Turn off for digits, text or anything chiral."""
    normalization: Literal["dataset", "imagenet"] = "dataset"
    """Mean and standard deviation measured on the training images, or ImageNet's."""
    cache: Literal["auto", "memory", "disk", "none"] = "auto"
    """Decode once, or in every epoch. auto: in memory where it fits, else none. memory: for all workers
    of a node together. disk: in one file a node, which all its processes map and later runs find
    again. none: decode whenever needed. What is trained on is the same."""
    cache_gib: Annotated[float, Field(ge=0)] | None = None
    """auto: memory that decoded images may take. None: half of what is free."""
    cache_dir: str | None = None
    """disk: where the decoded images are kept. None: ~/.cache/raytricks/decoded."""
    decoder: Literal["torchvision", "simplejpeg", "pil"] = "torchvision"
    """Of JPEG files. torchvision: antialiased, equal to Pillow within rounding. simplejpeg: faster,
    when it is installed. What the first two cannot read goes to pil."""
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
        if self.train_size is not None and self.train_size[0] > self.train_size[1]:
            raise ValueError(f"train_size must be [first, last] with first <= last, got {list(self.train_size)}")
        if self.train_size_ramp[0] > self.train_size_ramp[1]:
            raise ValueError(f"train_size_ramp must be [start, end], rising, got {list(self.train_size_ramp)}")
        if self.source in ("idx", "folder", "shards") and self.path is None:
            raise ValueError(f"source {self.source} needs data.path, the directory that holds the images")
        return self


class ModelConfig(Section):
    """The network."""

    name: str | None = None
    """resnet8/14/20 (small images), resnet18/34/50/101/152, torchvision:NAME, or timm:NAME (with
    the extra `raytricks[timm]`). None: by size."""
    variant: Literal["A", "B", "C", "D"] = "D"
    """Paper section 4: A original, B stride on the 3x3, C also the deep stem, D also the
    average-pooled shortcut. Not used by torchvision models."""
    stem: Literal["imagenet", "small", "small_stride2"] | None = None
    """imagenet: 7x7/2 (A, B) or three 3x3 (C, D), then 3x3/2 max pool. small: one 3x3/1, for 8-64
    px. small_stride2: one 3x3/2, four times cheaper. None: small up to 64 px, else imagenet."""
    width: Annotated[int, Field(ge=8, le=512)] | None = None
    """Channels of the first stage. None: 16 for resnet8/14/20, 64 for the others. (Below 8 the CPU
    kernel of torch 2.15 for strided 1x1 convolutions in channels_last writes beyond its memory.)"""
    norm: Literal["batch", "group"] = "batch"
    """group: GroupNorm, whose result does not depend on how a batch is spread over workers."""
    pretrained: bool = False
    """Start from the weights that torchvision or timm publish for the model (downloaded once)."""
    init_from: str | None = None
    """Start from weights on disk: a run's directory, a model.safetensors, or a state dict of the
    same architecture (.safetensors, .pth). The classifier is new when the classes differ."""

    @model_validator(mode="after")
    def _one_start(self) -> "ModelConfig":
        if self.pretrained and self.init_from is not None:
            raise ValueError("pretrained and init_from both say where to start from; leave one of them out")
        return self


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

    name: Literal["sgd", "lars", "lamb"] = "sgd"
    """lars (You 2017) and lamb (You 2020) scale each layer's step by its weights' norm: for global
    batches beyond 8k. Their lr is another: base_lr about 5 for lars, 0.02 for lamb."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """sgd, lars."""
    nesterov: bool = True
    """sgd, lars."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    trust_coefficient: PositiveFloat = 0.001
    """lars: the part of its norm by which a step of lr 1 moves a layer, before momentum."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """lamb: decay of the averages of gradient and squared gradient."""
    epsilon: PositiveFloat = 1e-6
    """lamb: added to the root of the squared average."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "OptimizerConfig":
        if self.name != "lamb" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0, got momentum 0; set nesterov=false")
        if self.name != "sgd" and self.weight_decay == 0:
            raise ValueError(
                f"{self.name} scales the layers that decay, got weight_decay 0, which leaves none; set weight_decay "
                "> 0 or name=sgd"
            )
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
    off_epochs: Annotated[int, Field(ge=0)] = 0
    """The last epochs, which train on unmixed images."""


class CutMixConfig(Section):
    """CutMix (Yun et al. 2019; not in the paper). With mixup on too, each step draws one of the two."""

    alpha: Annotated[float, Field(ge=0, le=10)] = 0.0
    """The part of the image that is kept ~ Beta(alpha, alpha), one a step (Yun: 1). 0: off."""
    off_epochs: Annotated[int, Field(ge=0)] = 0
    """The last epochs, which train on whole images."""


class DistillationConfig(Section):
    """Knowledge distillation (paper section 5.3; Hinton et al. 2015)."""

    teacher: str | None = None
    """A run's directory or its model.safetensors, or torchvision:NAME or timm:NAME. None: off."""
    teacher_weights: str | None = None
    """File of weights for a torchvision: or timm: teacher. None: the published ones."""
    temperature: PositiveFloat = 20.0
    """T, divides both logits (paper: 20)."""
    hard_weight: Annotated[float, Field(ge=0)] = 0.5
    """Of the loss to the labels. The paper's formula has 1 and 1, its authors' code 0.5 and 0.5."""
    soft_weight: PositiveFloat = 0.5
    """Of T^2 * KL to the teacher."""
    cache_dir: str | None = None
    """Keep the teacher's logits here and reuse them in every later run on the same images with the
    same augmentation seed. None: the teacher runs in every step. Not with mixup or CutMix."""


class ColorJitterConfig(Section):
    """Colour jitter and PCA noise, the paper's training augmentation (section 2.1)."""

    brightness: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Brightness is multiplied by U[1-x, 1+x] (paper: 0.4). 0: off."""
    saturation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Saturation is multiplied by U[1-x, 1+x] (paper: 0.4). 0: off."""
    hue: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Hue, in turns, is multiplied by U[1-x, 1+x] (paper: 0.4). 0: off."""
    pca_std: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Standard deviation of the noise along ImageNet's colour axes (paper: 0.1). 0: off."""


class RandomErasingConfig(Section):
    """Random erasing (Zhong et al. 2017; not in the paper)."""

    probability: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Part of the images that lose a rectangle (Zhong: 0.5). 0: off."""
    area: tuple[PositiveFloat, PositiveFloat] = (0.02, 0.33)
    """Range of the rectangle's part of the image."""
    aspect: tuple[PositiveFloat, PositiveFloat] = (0.3, 3.3)
    """Range of its height / width."""

    @model_validator(mode="after")
    def _ranges(self) -> "RandomErasingConfig":
        if not self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area must be [low, high] with low <= high <= 1, got {list(self.area)}")
        if self.aspect[0] > self.aspect[1]:
            raise ValueError(f"aspect must be [low, high] with low <= high, got {list(self.aspect)}")
        return self


class EmaConfig(Section):
    """Exponential moving average of the weights (Polyak & Juditsky 1992; not in the paper)."""

    decay: Fraction = 0.0
    """Weight of the old average at each step (0.999 is usual for 10k steps). 0: off. The average is
    evaluated beside the raw weights and saved as model_ema.safetensors."""


class GradientCompressionConfig(Section):
    """torch's DDP communication hooks, for networks slower than the GPUs. Only with workers > 1."""

    kind: Literal["none", "fp16", "bf16", "powersgd"] = "none"
    """fp16, bf16: half the bytes. powersgd: low-rank (Vogels et al. 2019), on GPUs only; its error
    feedback starts afresh after a resume."""
    rank: PositiveInt = 2
    """powersgd: rank of the approximation."""


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
    cutmix: CutMixConfig = CutMixConfig()
    distillation: DistillationConfig = DistillationConfig()
    color_jitter: ColorJitterConfig = ColorJitterConfig()
    trivial_augment: bool = False
    """One random operation of random strength an image (Müller & Hutter 2021; not in the paper)."""
    random_erasing: RandomErasingConfig = RandomErasingConfig()
    ema: EmaConfig = EmaConfig()
    sync_batch_norm: bool = False
    """Batch-norm statistics over all workers in each forward pass, on GPUs."""
    batch_norm_averaging: bool = True
    """Running statistics are averaged over the workers before evaluation; false: the first's."""
    gradient_compression: GradientCompressionConfig = GradientCompressionConfig()


class Change(Section):
    """Settings that change in the course of a run; `raytricks.config.changes` says which may."""

    epoch: PositiveInt
    """Finished epochs after which they apply."""
    values: dict[str, Any]
    """Dotted keys and their values, such as {recipe.base_lr: 0.3, tricks.mixup.alpha: 0.2}."""

    @field_validator("values")
    @classmethod
    def _as_yaml_has_them(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


class ExperimentConfig(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    """Name of the run's directory. None: the data's name and the time."""
    output_dir: str = "runs"
    """Directory that holds the runs; shared by all nodes of a cluster."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    workers: NumWorkers = 0
    """0: in this process, without Ray. N: N data-parallel Ray workers. [1, 8]: as many as the cluster has
    room for, from 1 to 8; they come and go while the run goes on."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    recipe: RecipeConfig = RecipeConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    tricks: TricksConfig = TricksConfig()
    hardware: HardwareConfig = HardwareConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    changes: tuple[Change, ...] = ()
    """What changes after some epochs, in rising order: [{epoch: 4, values: {recipe.base_lr: 0.3}}].
    The learning rate goes on along the curve of the changed settings."""
    tune: TuneConfig = TuneConfig()

    @property
    def fewest_workers(self) -> int:
        """The fewest Ray workers that the run goes on with; 0 without Ray."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """The most Ray workers; 0 without Ray."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def is_elastic(self) -> bool:
        """Whether workers may come and go."""
        return not isinstance(self.workers, int)

    @model_validator(mode="after")
    def _sections_agree(self) -> "ExperimentConfig":
        if self.tricks.warmup.epochs >= self.recipe.epochs:
            raise ValueError(
                f"tricks.warmup.epochs must be less than recipe.epochs ({self.recipe.epochs}), "
                f"got {self.tricks.warmup.epochs:g}; shorten the warmup or train longer"
            )
        for name in ("mixup", "cutmix"):
            off_epochs = getattr(self.tricks, name).off_epochs
            if off_epochs > self.recipe.epochs:
                raise ValueError(
                    f"tricks.{name}.off_epochs must be at most recipe.epochs ({self.recipe.epochs}), got {off_epochs}"
                )
        distillation = self.tricks.distillation
        mixing = [n for n in ("mixup", "cutmix") if getattr(self.tricks, n).alpha > 0]
        if distillation.cache_dir is not None and distillation.teacher is not None and mixing:
            raise ValueError(
                f"tricks.distillation.cache_dir holds the teacher's logits of single images, tricks.{mixing[0]}.alpha "
                "blends each with a neighbour that depends on the batch; leave one of them out"
            )
        if distillation.cache_dir is not None and distillation.teacher is not None and self.data.train_size is not None:
            raise ValueError(
                "tricks.distillation.cache_dir holds the teacher's logits of images of one size, data.train_size "
                "changes it over the epochs; leave one of them out"
            )
        return self
