"""TRICKS: every trick in one table, which the header, the docs and the tests of all pairs go through.

Plain data: dotted config keys and values. Only the recipe reads the switches themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Settings = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Trick:
    """One trick and its switches.

    Attributes:
        name: as the header and docs/tricks.md call it; "{}" stands for the value of `shown`.
        file: below raytricks/.
        source: section of the paper, or where else it is from.
        on: settings that turn it on, with the paper's values where it has some.
        off: settings of the same keys that turn it off.
        dormant: settings that have no effect while it is off.
        shown: the key whose value stands in `name`.
        has_own_row: the header shows it elsewhere, as part of the model, the optimizer or the hardware.
    """

    name: str
    file: str
    source: str
    on: Settings
    off: Settings
    dormant: Settings = field(default_factory=lambda: MappingProxyType({}))
    shown: str | None = None
    has_own_row: bool = False

    def is_on(self, values: Settings) -> bool:
        """Return whether a config, as dotted keys and values, has it on."""
        return any(values[key] != value for key, value in self.off.items())

    def label(self, values: Settings) -> str:
        """Return its name with its value in a config."""
        if self.shown is None:
            return self.name
        value = values[self.shown]
        return self.name.format(f"{value:g}" if isinstance(value, float) else value)

    @property
    def title(self) -> str:
        """Its name without a value."""
        return " ".join(self.name.replace("{}", "").split())


TEACHER = "<teacher>"
"""Stands for the path of a teacher in `on`."""

TRICKS: tuple[Trick, ...] = (
    Trick(
        name="{} lr scaling",
        file="tricks/linear_scaling.py",
        source="3.1",
        on={"tricks.lr_scaling": "linear"},
        off={"tricks.lr_scaling": "none"},
        shown="tricks.lr_scaling",
    ),
    Trick(
        name="warmup",
        file="tricks/warmup.py",
        source="3.1",
        on={"tricks.warmup.epochs": 1.0},
        off={"tricks.warmup.epochs": 0.0},
    ),
    Trick(
        name="{} decay",
        file="tricks/decay.py",
        source="5.1",
        on={"tricks.decay.kind": "cosine"},
        off={"tricks.decay.kind": "constant"},
        dormant={"tricks.decay.milestones": (0.1,), "tricks.decay.factor": 0.3},
        shown="tricks.decay.kind",
    ),
    Trick(
        name="zero gamma",
        file="tricks/zero_gamma.py",
        source="3.1",
        on={"tricks.zero_gamma": True},
        off={"tricks.zero_gamma": False},
    ),
    Trick(
        name="no bias decay",
        file="tricks/no_bias_decay.py",
        source="3.1",
        on={"tricks.no_bias_decay": True},
        off={"tricks.no_bias_decay": False},
    ),
    Trick(
        name="label smoothing {}",
        file="tricks/label_smoothing.py",
        source="5.2",
        on={"tricks.label_smoothing.epsilon": 0.1},
        off={"tricks.label_smoothing.epsilon": 0.0},
        dormant={"tricks.label_smoothing.form": "torch"},
        shown="tricks.label_smoothing.epsilon",
    ),
    Trick(
        name="distillation",
        file="tricks/distillation.py",
        source="5.3",
        on={"tricks.distillation.teacher": TEACHER},
        off={"tricks.distillation.teacher": None},
        dormant={"tricks.distillation.temperature": 3.0, "tricks.distillation.hard_weight": 0.1},
    ),
    Trick(
        name="mixup {}",
        file="tricks/mixup.py",
        source="5.4",
        on={"tricks.mixup.alpha": 0.2},
        off={"tricks.mixup.alpha": 0.0},
        dormant={"tricks.mixup.off_epochs": 1},
        shown="tricks.mixup.alpha",
    ),
    Trick(
        name="CutMix {}",
        file="tricks/cutmix.py",
        source="Yun et al. 2019",
        on={"tricks.cutmix.alpha": 1.0},
        off={"tricks.cutmix.alpha": 0.0},
        dormant={"tricks.cutmix.off_epochs": 1},
        shown="tricks.cutmix.alpha",
    ),
    Trick(
        name="colour jitter and PCA noise",
        file="tricks/color_jitter.py",
        source="2.1",
        on={
            "tricks.color_jitter.brightness": 0.4,
            "tricks.color_jitter.saturation": 0.4,
            "tricks.color_jitter.hue": 0.4,
            "tricks.color_jitter.pca_std": 0.1,
        },
        off={
            "tricks.color_jitter.brightness": 0.0,
            "tricks.color_jitter.saturation": 0.0,
            "tricks.color_jitter.hue": 0.0,
            "tricks.color_jitter.pca_std": 0.0,
        },
    ),
    Trick(
        name="TrivialAugment",
        file="tricks/trivial_augment.py",
        source="Müller & Hutter 2021",
        on={"tricks.trivial_augment": True},
        off={"tricks.trivial_augment": False},
    ),
    Trick(
        name="random erasing {}",
        file="tricks/random_erasing.py",
        source="Zhong et al. 2017",
        on={"tricks.random_erasing.probability": 0.5},
        off={"tricks.random_erasing.probability": 0.0},
        dormant={"tricks.random_erasing.area": (0.1, 0.2), "tricks.random_erasing.aspect": (1.0, 1.0)},
        shown="tricks.random_erasing.probability",
    ),
    Trick(
        name="EMA {}",
        file="tricks/ema.py",
        source="Polyak & Juditsky 1992",
        on={"tricks.ema.decay": 0.999},
        off={"tricks.ema.decay": 0.0},
        shown="tricks.ema.decay",
    ),
    Trick(
        name="ResNet-{}",
        file="models/resnet.py",
        source="4",
        on={"model.variant": "D"},
        off={"model.variant": "A"},
        shown="model.variant",
        has_own_row=True,
    ),
    Trick(
        name="{} in place of SGD",
        file="tricks/lars.py, tricks/lamb.py",
        source="You et al. 2017, 2020",
        on={"optimizer.name": "lars"},
        off={"optimizer.name": "sgd"},
        dormant={"optimizer.trust_coefficient": 0.5, "optimizer.betas": (0.5, 0.5), "optimizer.epsilon": 1e-3},
        shown="optimizer.name",
        has_own_row=True,
    ),
    Trick(
        name="gradient clipping",
        file="tricks/gradient_clipping.py",
        source="Pascanu et al. 2013",
        on={"recipe.clip_norm": 0.01},
        off={"recipe.clip_norm": None},
    ),
    Trick(
        name="{} precision",
        file="tricks/mixed_precision.py",
        source="3.2",
        on={"hardware.precision": "fp16"},
        off={"hardware.precision": "fp32"},
        shown="hardware.precision",
        has_own_row=True,
    ),
    Trick(
        name="gradient compression {}",
        file="tricks/gradient_compression.py",
        source="Vogels et al. 2019",
        on={"tricks.gradient_compression.kind": "fp16"},
        off={"tricks.gradient_compression.kind": "none"},
        dormant={"tricks.gradient_compression.rank": 4},
        shown="tricks.gradient_compression.kind",
    ),
    Trick(
        name="SyncBN",
        file="tricks/sync_batch_norm.py",
        source="torch",
        on={"tricks.sync_batch_norm": True},
        off={"tricks.sync_batch_norm": False},
    ),
    Trick(
        name="averaged batch-norm statistics",
        file="tricks/batch_norm_averaging.py",
        source="-",
        on={"tricks.batch_norm_averaging": True},
        off={"tricks.batch_norm_averaging": False},
    ),
    Trick(
        name="gradient noise scale",
        file="tricks/gradient_noise_scale.py",
        source="McCandlish et al. 2018",
        on={"logging.noise_scale_every": 1},
        off={"logging.noise_scale_every": None},
    ),
    Trick(
        name="progressive resizing",
        file="tricks/progressive_resizing.py",
        source="fast.ai 2018, ffcv",
        on={"data.train_size": (4, 8)},
        off={"data.train_size": None},
        dormant={"data.train_size_ramp": (0.25, 0.5)},
        has_own_row=True,
    ),
)
