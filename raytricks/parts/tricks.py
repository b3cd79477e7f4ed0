"""The bag of tricks: settings and one row each, in the order in which they are applied within a slot.

A trick is this row and the file of its code. docs/tricks.md explains each of them.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raytricks.parts.part import Fraction, Part, PositiveFloat, PositiveInt, Section, Setting

TEACHER = "<teacher>"
"""Stands for the path of a teacher in `on`."""


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


class RandAugmentConfig(Section):
    """RandAugment (Cubuk et al. 2020; not in the paper)."""

    operations: Annotated[int, Field(ge=0, le=4)] = 0
    """Operations an image, one after another (Cubuk: 2). 0: off."""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Strength of all of them (Cubuk: 9 for a ResNet-50)."""


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


ROWS: tuple[Part, ...] = (
    Part(
        kind="trick",
        name="lr_scaling",
        title="{} lr scaling",
        source="3.1",
        formula="peak = base * b/256, b the global batch with accumulation",
        gain="part of 75.3 to 76.2 at b = 1024",
        code="raytricks.tricks.linear_scaling:HOOKS",
        settings=Setting(
            annotation=Literal["linear", "sqrt", "none"],
            default="linear",
            doc="peak_lr = base_lr * b/256 (linear), * sqrt(b/256), or base_lr.",
        ),
        on={"": "linear"},
        off={"": "none"},
        shown="",
        rules=("lr_not_following_batch",),
    ),
    Part(
        kind="trick",
        name="warmup",
        title="warmup",
        source="3.1",
        formula="lr = peak * i/m for update i of the first m",
        gain="+0.8 at b = 1024",
        code="raytricks.tricks.warmup:HOOKS",
        settings=WarmupConfig,
        on={"epochs": 1.0},
        off={"epochs": 0.0},
        rules=("warmup_long", "warmup_missing"),
    ),
    Part(
        kind="trick",
        name="decay",
        title="{} decay",
        source="5.1",
        formula="lr = peak/2 * (1 + cos(pi t/T)) after the warmup; step: * 0.1 at 1/4, 1/2, 3/4",
        gain="+0.75",
        measured="see below",
        code="raytricks.tricks.decay:HOOKS",
        settings=DecayConfig,
        on={"kind": "cosine"},
        off={"kind": "constant"},
        dormant={"milestones": (0.1,), "factor": 0.3},
        shown="kind",
    ),
    Part(
        kind="trick",
        name="zero_gamma",
        title="zero gamma",
        source="3.1",
        formula="last normalisation gamma of a residual branch = 0",
        gain="+0.4 at b = 1024",
        code="raytricks.tricks.zero_gamma:HOOKS",
        settings=Setting(
            annotation=bool,
            default=True,
            doc="The last normalisation gamma of each residual branch starts at 0.",
        ),
        on={"": True},
        off={"": False},
        rules=("sync_bn_zero_gamma",),
    ),
    Part(
        kind="trick",
        name="no_bias_decay",
        title="no bias decay",
        source="3.1",
        formula="weight decay on convolution and linear weights only",
        gain="-0.3 at b = 1024",
        code="raytricks.tricks.no_bias_decay:HOOKS",
        settings=Setting(
            annotation=bool,
            default=True,
            doc="Weight decay on convolution and linear weights only.",
        ),
        on={"": True},
        off={"": False},
    ),
    Part(
        kind="trick",
        name="label_smoothing",
        title="label smoothing {}",
        source="5.2",
        formula="q_true = 1-eps, q_other = eps/(K-1); `form: torch` for eps/K",
        gain="+0.4",
        measured="see below",
        code="raytricks.tricks.label_smoothing:HOOKS",
        settings=LabelSmoothingConfig,
        on={"epsilon": 0.1},
        off={"epsilon": 0.0},
        dormant={"form": "torch"},
        shown="epsilon",
        changeable=("epsilon",),
        rules=("double_smoothing",),
    ),
    Part(
        kind="trick",
        name="mixup",
        title="mixup {}",
        source="5.4",
        formula="w x_i + (1-w) x_j, labels alike, w ~ Beta(alpha, alpha), one a step",
        gain="+0.5 to +0.8, with longer training",
        code="raytricks.tricks.mixup:HOOKS",
        settings=MixupConfig,
        on={"alpha": 0.2},
        off={"alpha": 0.0},
        dormant={"off_epochs": 1},
        shown="alpha",
        changeable=("*",),
        rules=("mixup_short_schedule", "mixup_never_on"),
    ),
    Part(
        kind="trick",
        name="cutmix",
        title="CutMix {}",
        source="Yun et al. 2019",
        formula="a rectangle of x_j in x_i, labels by area",
        code="raytricks.tricks.cutmix:HOOKS",
        settings=CutMixConfig,
        on={"alpha": 1.0},
        off={"alpha": 0.0},
        dormant={"off_epochs": 1},
        shown="alpha",
        changeable=("*",),
        rules=("mixup_short_schedule", "mixup_never_on"),
    ),
    Part(
        kind="trick",
        name="distillation",
        title="distillation",
        source="5.3",
        formula="hard * CE + soft * T^2 * KL(softmax(r/T) || softmax(z/T)), r the teacher's logits",
        gain="+0.4; it hurt two other networks",
        measured="+0.45 +- 0.17 (small student)",
        code="raytricks.training.distillation:HOOKS",
        file="tricks/distillation.py, training/distillation.py",
        settings=DistillationConfig,
        on={"teacher": TEACHER},
        off={"teacher": None},
        dormant={"temperature": 3.0, "hard_weight": 0.1},
        changeable=("temperature", "hard_weight", "soft_weight"),
        rules=("double_smoothing", "teacher_classes", "low_temperature"),
    ),
    Part(
        kind="trick",
        name="trivial_augment",
        title="TrivialAugment",
        source="Müller & Hutter 2021",
        formula="one random operation of random strength an image",
        code="raytricks.tricks.trivial_augment:HOOKS",
        settings=Setting(
            annotation=bool,
            default=False,
            doc="One random operation of random strength an image (Müller & Hutter 2021; not in the paper).",
        ),
        on={"": True},
        off={"": False},
        changeable=("",),
        changes_images=True,
    ),
    Part(
        kind="trick",
        name="rand_augment",
        title="RandAugment {}",
        source="Cubuk et al. 2020",
        formula="N random operations of strength M, one after another, an image",
        code="raytricks.tricks.rand_augment:HOOKS",
        settings=RandAugmentConfig,
        on={"operations": 2},
        off={"operations": 0},
        dormant={"magnitude": 15},
        shown="operations",
        changeable=("*",),
        changes_images=True,
    ),
    Part(
        kind="trick",
        name="color_jitter",
        title="colour jitter and PCA noise",
        source="2.1",
        formula="hue, saturation, brightness * U[1-x, 1+x]; + N(0, std) along ImageNet's colour axes",
        gain="in the baseline",
        code="raytricks.tricks.color_jitter:HOOKS",
        settings=ColorJitterConfig,
        on={"brightness": 0.4, "saturation": 0.4, "hue": 0.4, "pca_std": 0.1},
        off={"brightness": 0.0, "saturation": 0.0, "hue": 0.0, "pca_std": 0.0},
        changeable=("*",),
        changes_images=True,
    ),
    Part(
        kind="trick",
        name="random_erasing",
        title="random erasing {}",
        source="Zhong et al. 2017",
        formula="a random rectangle becomes the mean pixel",
        measured="see below",
        code="raytricks.tricks.random_erasing:HOOKS",
        settings=RandomErasingConfig,
        on={"probability": 0.5},
        off={"probability": 0.0},
        dormant={"area": (0.1, 0.2), "aspect": (1.0, 1.0)},
        shown="probability",
        changeable=("*",),
        changes_images=True,
    ),
    Part(
        kind="trick",
        name="ema",
        title="EMA {}",
        source="Polyak & Juditsky 1992",
        formula="average = d * average + (1-d) * weights each step, d = min(decay, (1+i)/(10+i))",
        measured="see below",
        code="raytricks.tricks.ema:HOOKS",
        settings=EmaConfig,
        on={"decay": 0.999},
        off={"decay": 0.0},
        shown="decay",
        rules=("ema_too_slow",),
    ),
    Part(
        kind="trick",
        name="resnet_variant",
        title="ResNet-{}",
        source="4",
        formula="stride on the 3x3; three 3x3 in the stem; pooled shortcut",
        gain="+0.5, +0.2, +0.3",
        file="models/resnet.py",
        at="model.variant",
        on={"": "D"},
        off={"": "A"},
        shown="",
        has_own_row=True,
    ),
    Part(
        kind="trick",
        name="clip_norm",
        title="gradient clipping",
        source="Pascanu et al. 2013",
        formula="g * min(1, c/norm) of the whole gradient, in true units",
        code="raytricks.tricks.gradient_clipping:HOOKS",
        at="recipe.clip_norm",
        on={"": 0.01},
        off={"": None},
        changeable=("",),
    ),
    Part(
        kind="trick",
        name="precision",
        title="{} precision",
        source="3.2",
        formula="fp16 or bf16 autocast, fp32 weights; fp16: dynamic loss scale, overflowing steps skipped and counted",
        gain="+0.1, 2-3x speed",
        file="tricks/mixed_precision.py",
        at="hardware.precision",
        on={"": "fp16"},
        off={"": "fp32"},
        shown="",
        has_own_row=True,
        rules=("fp16_on_cpu",),
    ),
    Part(
        kind="trick",
        name="sync_batch_norm",
        title="SyncBN",
        source="torch",
        formula="batch-norm statistics of all workers' images",
        code="raytricks.tricks.sync_batch_norm:HOOKS",
        settings=Setting(
            annotation=bool,
            default=False,
            doc="Batch-norm statistics over all workers in each forward pass, on GPUs.",
        ),
        on={"": True},
        off={"": False},
        does="communication",
        rules=("sync_bn_zero_gamma", "sync_bn_idle"),
    ),
    Part(
        kind="trick",
        name="batch_norm_averaging",
        title="averaged batch-norm statistics",
        source="-",
        formula="running statistics averaged over the workers before evaluation",
        code="raytricks.tricks.batch_norm_averaging:HOOKS",
        settings=Setting(
            annotation=bool,
            default=True,
            doc="Running statistics are averaged over the workers before evaluation; false: the first's.",
        ),
        on={"": True},
        off={"": False},
        does="communication",
    ),
    Part(
        kind="trick",
        name="gradient_compression",
        title="gradient compression {}",
        source="Vogels et al. 2019",
        formula="torch's DDP hooks: fp16, bf16, PowerSGD",
        gain="network bytes / 2 or more",
        code="raytricks.tricks.gradient_compression:HOOKS",
        settings=GradientCompressionConfig,
        on={"kind": "fp16"},
        off={"kind": "none"},
        dormant={"rank": 4},
        shown="kind",
        does="communication",
        rules=("gradient_compression_idle",),
    ),
    Part(
        kind="trick",
        name="noise_scale",
        title="gradient noise scale",
        source="McCandlish et al. 2018",
        formula="tr(Sigma)/abs(G)^2 from the gradients of two batch sizes",
        gain="a measurement",
        measured="-",
        code="raytricks.tricks.gradient_noise_scale:HOOKS",
        at="logging.noise_scale_every",
        on={"": 1},
        off={"": None},
        does="measurement",
    ),
    Part(
        kind="trick",
        name="train_size",
        title="progressive resizing",
        source="fast.ai 2018, ffcv",
        formula="side = first + (last-first) * (e-s)/(f-s) in steps of 32 px (4 below 128) between epochs s and f",
        file="tricks/progressive_resizing.py",
        at="data",
        on={"train_size": (4, 8)},
        off={"train_size": None},
        dormant={"train_size_ramp": (0.25, 0.5)},
        has_own_row=True,
    ),
)
