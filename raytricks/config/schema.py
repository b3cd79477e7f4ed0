"""The configuration tree: every setting of a run, its type, range, default and meaning.

One frozen pydantic model a section. Paper means He et al., *Bag of Tricks for Image
Classification with CNNs* (arXiv 1812.01187). `None` means "chosen from the data or the
hardware"; `raytricks.recipe` resolves it, prints it and saves it. Nothing here imports
torch or ray, so a config error costs no start-up time.
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from raytricks.config.credentials import has_credentials, redacted
from raytricks.config.hardware import CheckpointConfig, HardwareConfig, NumWorkers
from raytricks.config.part_sections import with_choice, with_settings
from raytricks.config.tuning import TuneConfig
from raytricks.parts.part import Fraction, Part, PositiveFloat, PositiveInt, Proportion, Section
from raytricks.parts.registry import BUILT_IN, named, of_kind

if TYPE_CHECKING:
    SourceName = str
else:
    SourceName = Literal[("auto", *(row.name for row in of_kind("source")))]

_LARGEST_SIDE = 1024
Side = Annotated[int, Field(ge=4, le=_LARGEST_SIDE)]


class DataConfig(Section):
    """Where the images come from and how they are prepared."""

    source: SourceName = "auto"
    """digits: embedded in scikit-learn. fashion_mnist: the IDX files of Debian's package, of
    `path`, or downloaded by torchvision. idx: a directory of the four IDX files. folder: class
    folders, or train/ + val/ of them. table: a CSV or Parquet file of paths and labels. parquet:
    Parquet files of encoded images. shards: what `raytricks data pack` wrote. auto: by what `path`
    holds."""
    path: str | None = None
    """Directory or file of the data; not used by digits."""
    layout: Literal["auto", "splits", "classes"] = "auto"
    """Of a folder. splits: its folders are train, val, test, under any of their usual names. classes:
    each is a class, whatever its name. auto: by what they hold; an error where it can be read both ways."""
    path_column: str | None = None
    """Of a table: the column of the images' paths. None: the one with a usual name."""
    label_column: str | None = None
    """Of a table: the column of the classes. None: the one with a usual name."""
    group: str | None = None
    """What belongs together and is held out as a whole, such as a patient: a table's column, or a regular
    expression over the images' paths, whose parentheses (else whose match) are the group."""
    val_fraction: Fraction | None = None
    """Part of the training images held out (stratified, seeded) for evaluation. None: 0.2 when
    the data has no evaluation split of its own, else 0. When held out although a test split
    exists, that split is scored once, after the last epoch."""
    split_seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Seed of which images are held out. None: the run's seed, so runs of other seeds hold out others."""
    balanced_sampling: bool = False
    """Train on all classes equally often: an epoch has as many images as before, those of rare classes
    several times. For data whose classes have very different numbers of images."""
    image_size: Side | None = None
    """Side of the square model input, pixels. None: the native side when all images are equal
    squares of at most 64, else 64 or 224 by the median size."""
    train_size: tuple[Side, Side] | None = None
    """[first, last] side of the training images, which rises over the epochs (progressive resizing, not
    in the paper). None: image_size throughout."""
    train_size_ramp: tuple[Proportion, Proportion] = (0.0, 0.75)
    """Parts of the run between which train_size rises, in steps of 32 pixels (4 below 128)."""
    eval_size: Side | None = None
    """Side of the images in evaluation. None: image_size."""
    channels: Literal[1, 3] | None = None
    """1: grayscale, 3: RGB. None: 1 when every image is grayscale."""
    augmentation: Literal["none", "shift", "random_resized_crop"] | None = None
    """shift: zero-padded random translation. random_resized_crop: the paper's area crop.
    None: shift up to 64 px, random_resized_crop above."""
    shift_pixels: Annotated[int, Field(ge=0, le=_LARGEST_SIDE // 8)] | None = None
    """Largest translation each way, less than the image side. None: an eighth of it."""
    crop_scale: tuple[PositiveFloat, PositiveFloat] = (0.08, 1.0)
    """Range of the area of a random resized crop (paper: 8% to 100%)."""
    crop_aspect: tuple[PositiveFloat, PositiveFloat] = (0.75, 4 / 3)
    """Range of its aspect ratio (paper: 3/4 to 4/3)."""
    augmentation_seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Seed of each image's augmentation. None: the run's seed. Runs that share it see the same
    images in the same epoch, and so may share a teacher's cached logits."""
    horizontal_flip: bool = True
    """Mirror half of the training images. Turn off for digits, text or anything chiral."""
    normalization: Literal["dataset", "imagenet", "inception", "clip"] = "dataset"
    """Mean and standard deviation measured on the training images, or those of published weights: ImageNet's, 0.5
    and 0.5 (inception: most ViTs, tf_efficientnet), CLIP's."""
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

    part: ClassVar[Part | None] = None
    """The row of a source of the user's own, whose settings then stand in this section."""

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
        if self.augmentation == "shift" and (self.shift_pixels or 0) >= (self.image_size or _LARGEST_SIDE):
            raise ValueError(
                f"shift_pixels must be less than image_size, which is {self.image_size}, got {self.shift_pixels}: "
                "images would be empty"
            )
        row = named("source", self.source)
        if row is not None and "path" in row.needs and self.path is None:
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
    transform_input: bool | None = None
    """torchvision:googlenet and inception_v3 only: convert RGB inputs from ImageNet's normalisation to the one of
    0.5 and 0.5 that their published weights want. None: when the model starts from weights."""

    part: ClassVar[Part | None] = None
    """The row of a model of the user's own, whose settings then stand in this section."""

    @model_validator(mode="after")
    def _one_start(self) -> "ModelConfig":
        if self.pretrained and self.init_from is not None:
            raise ValueError("pretrained and init_from both say where to start from; leave one of them out")
        return self

    @property
    def is_resnet(self) -> bool:
        """Whether it is one of our ResNets, which `norm` and the like are for; others come with theirs."""
        return self.part is None and ":" not in (self.name or "")

    @property
    def converts_input(self) -> bool:
        """`transform_input`, decided."""
        starts_from_weights = self.pretrained or self.init_from is not None
        return starts_from_weights if self.transform_input is None else self.transform_input


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
    """The update rule; the settings of the one that `name` chooses come from its row in `raytricks.parts`."""

    name: str = "sgd"
    """Of `raytricks parts optimizer`. lars and lamb scale each layer's step by its weights' norm."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Pull towards 0; coupled (sgd, lars) or decoupled, as the optimizer has it."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class LossConfig(Section):
    """What an image's logits are held against its targets with; settings as of the optimizer."""

    name: str = "cross_entropy"
    """Of `raytricks parts loss`."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class TricksConfig(Section):
    """Each trick, switchable on its own; the fields come from the rows of `raytricks.parts.tricks`."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class LoggingConfig(Section):
    """How often the training step reports, and where to; trackers come from the rows of `raytricks.parts.trackers`."""

    every_steps: PositiveInt = 20
    """Steps between two lines of metrics.jsonl (one synchronisation with the device each)."""
    evaluate_every: PositiveInt = 1
    """Epochs between two evaluations; the last epoch is always evaluated."""
    noise_scale_every: PositiveInt | None = None
    """Also measure the gradient noise scale every N steps (one more backward pass each), which says
    up to which batch linear scaling is safe. None: not measured."""
    tensorboard: bool = True

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


if not TYPE_CHECKING:  # what a type checker cannot follow: fields from rows
    OptimizerConfig = with_choice(OptimizerConfig, "optimizer", "sgd", BUILT_IN)
    LossConfig = with_choice(LossConfig, "loss", "cross_entropy", BUILT_IN)
    TricksConfig = with_settings(TricksConfig, "trick", BUILT_IN)
    LoggingConfig = with_settings(LoggingConfig, "tracker", BUILT_IN)


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
    loss: LossConfig = LossConfig()
    tricks: TricksConfig = TricksConfig()
    hardware: HardwareConfig = HardwareConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    metrics: tuple[str, ...] = ()
    """Measured in every evaluation beside top-1 and cross-entropy: names of `raytricks parts metric`."""
    callbacks: tuple[str, ...] = ()
    """Given each record of the run, on the first worker: FILE.py:NAME or package.module:NAME."""
    parts: dict[str, str] = {}
    """Parts of your own: name -> FILE.py:ROW (from the config's directory) or package.module:ROW."""
    changes: tuple[Change, ...] = ()
    """What changes after some epochs, in rising order: [{epoch: 4, values: {recipe.base_lr: 0.3}}].
    The learning rate goes on along the curve of the changed settings."""
    tune: TuneConfig = TuneConfig()

    rows: ClassVar[tuple[Part, ...]] = BUILT_IN
    """The parts that this schema has settings for; `raytricks.config.schemas` makes those of other choices."""

    @property
    def brought(self) -> tuple[Part, ...]:
        """The parts that are not raytricks' own."""
        return self.rows[len(BUILT_IN) :]

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
    def _places(self) -> "ExperimentConfig":
        """Runs are written to directories; a URL is read from, and saved with the run."""
        distillation = self.tricks.distillation
        written = {
            "output_dir": self.output_dir,
            "data.cache_dir": self.data.cache_dir,
            "tricks.distillation.cache_dir": distillation.cache_dir,
        }
        read = {
            "data.path": self.data.path,
            "model.init_from": self.model.init_from,
            "tricks.distillation.teacher": distillation.teacher,
            "tricks.distillation.teacher_weights": distillation.teacher_weights,
        }
        for key, place in (written | read).items():
            if place is not None and has_credentials(place):
                raise ValueError(
                    f"{key} must be a URL without credentials, which would be saved with the run, got "
                    f"{redacted(place)}; leave them to the environment, such as AWS_ACCESS_KEY_ID or "
                    "GOOGLE_APPLICATION_CREDENTIALS"
                )
        for key, place in written.items():
            if place is not None and "://" in place:
                raise ValueError(
                    f"{key} must be a directory, which all nodes of a cluster share, got the URL {place}; mount it, "
                    f"and name the directory: {key}=/shared/runs"
                )
        return self

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
