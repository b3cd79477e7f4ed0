"""The recipe doctor: warns of settings that are valid together and known to train badly, or to do nothing.

The rules are in `doctor_rules`, or wherever the row of a part says; docs/doctor.md says why, at length.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Literal

from raytricks.config.schema import ExperimentConfig
from raytricks.data.splits import WARNING
from raytricks.errors import ConfigError
from raytricks.parts.part import CHOSEN_BY, Kind, Part
from raytricks.parts.registry import BUILT_IN, named
from raytricks.recipe.phases import make_phases
from raytricks.recipe.recipe import Recipe
from raytricks.recipe.resolve import DatasetStats
from raytricks.recipe.teacher_facts import TeacherFacts, teacher_facts

__all__ = [
    "DoctorContext",
    "Finding",
    "TeacherFacts",
    "data_findings",
    "diagnose",
    "refuse",
    "rules_of",
    "teacher_facts",
]

_RULES = "raytricks.recipe.doctor_rules"
_LAST = 10**9


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
class DoctorContext:
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

    def chosen(self, kind: Kind) -> Part:
        """Return the row of the one part of a kind that the config names."""
        row = named(kind, getattr(self.config, CHOSEN_BY[kind].partition(".")[0]).name, self.config.rows)
        assert row is not None, "the schema has checked the name"
        return row


Rule = Callable[[DoctorContext], "Finding | None"]


def rules_of(rows: Iterable[Part] = BUILT_IN) -> tuple[Rule, ...]:
    """Return every rule once: those of `doctor_rules` in the order of that file, then those that others bring."""
    rules: list[Rule] = list(import_module(_RULES).GENERAL)
    for name in dict.fromkeys(name for row in rows for name in row.rules):
        module, _, function = name.rpartition(":")
        rules.append(getattr(import_module(module or _RULES), function))
    return tuple(sorted(rules, key=lambda rule: rule.__code__.co_firstlineno if rule.__module__ == _RULES else _LAST))


def diagnose(
    config: ExperimentConfig,
    stats: DatasetStats,
    recipe: Recipe,
    *,
    device_type: Literal["cpu", "cuda"],
    precision: Literal["fp32", "fp16", "bf16"],
    teacher: TeacherFacts | None = None,
    class_names: Sequence[str] | None = None,
) -> list[Finding]:
    """Hold a run against every rule.

    Args:
        config: resolved.
        precision: resolved, not auto.
        teacher: None where there is none, or nothing is known about it.
        class_names: of the data, in the order of the labels; None: not compared with the teacher's.

    Returns:
        What was found, in the order of `rules_of`; empty for a sound recipe.
    """
    contexts = [
        DoctorContext(
            config=current,
            stats=stats,
            recipe=current_recipe,
            device_type=device_type,
            precision=precision,
            teacher=teacher if current.tricks.distillation.teacher is not None else None,
            class_names=None if class_names is None else tuple(class_names),
        )
        for current, current_recipe in _phases(config, recipe)
    ]
    return [finding for rule in rules_of(config.rows) if (finding := _first_found(rule, contexts)) is not None]


def _phases(config: ExperimentConfig, recipe: Recipe) -> list[tuple[ExperimentConfig, Recipe]]:
    if not config.changes:
        return [(config, recipe)]
    return [(phase.config, phase.recipe) for phase in make_phases(config, recipe.num_train_images)]


def _first_found(rule: Rule, contexts: Sequence[DoctorContext]) -> Finding | None:
    """Return what a rule finds in the first phase of a run in which it finds anything."""
    for context in contexts:
        if (finding := rule(context)) is not None:
            epoch = context.recipe.first_epoch
            return replace(finding, reason=f"after epoch {epoch}, {finding.reason}") if epoch else finding
    return None


def data_findings(notes: Iterable[str]) -> list[Finding]:
    """Return as findings what the scan of the data warns of.

    Args:
        notes: of `raytricks.data.splits.DatasetSplits`.
    """
    findings = []
    for note in notes:
        if note.startswith(WARNING):
            reason, _, remedy = note.removeprefix(WARNING).rpartition("; ")
            findings.append(Finding("data", "data.path", reason, remedy))
    return findings


def refuse(findings: Iterable[Finding]) -> None:
    """Raise ConfigError, with a line for each finding, if there are any."""
    if lines := [str(finding) for finding in findings]:
        raise ConfigError(lines)
