"""What the rules of the recipe doctor look at, and what they return."""

from dataclasses import dataclass
from typing import Literal

from raytricks.config.schema import ExperimentConfig
from raytricks.recipe.dataset_stats import DatasetStats
from raytricks.recipe.recipe import Recipe
from raytricks.recipe.teacher_facts import TeacherFacts


@dataclass(frozen=True)
class Finding:
    """Something wrong with a recipe; as text "code: reason; remedy".

    Attributes:
        code: stable name of the rule.
        key: dotted key of the setting to look at.
    """

    code: str
    key: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}; {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class Case:
    """All that a rule may look at; `doctor.diagnose` describes the fields."""

    config: ExperimentConfig
    stats: DatasetStats
    recipe: Recipe
    device_type: Literal["cpu", "cuda"]
    precision: Literal["fp32", "fp16", "bf16"]
    teacher: TeacherFacts | None
    class_names: tuple[str, ...] | None

    @property
    def is_library_model(self) -> bool:
        """The network is torchvision's or timm's."""
        return ":" in str(self.config.model.name)

    @property
    def mixing(self) -> list[tuple[str, int]]:
        """Name and off_epochs of mixup and CutMix, where they are on."""
        tricks = self.config.tricks
        sections = (("mixup", tricks.mixup), ("cutmix", tricks.cutmix))
        return [(name, section.off_epochs) for name, section in sections if section.alpha > 0]

    @property
    def has_idle_sync(self) -> bool:
        """There is nothing that synchronised batch norm could synchronise."""
        return self.config.most_workers <= 1 or self.config.model.norm == "group"
