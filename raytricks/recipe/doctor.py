"""The recipe doctor: warns of settings that are valid together and known to train badly, or to do nothing."""

from collections.abc import Iterable, Sequence
from typing import Literal

from raytricks.config.schema import ExperimentConfig
from raytricks.errors import ConfigError
from raytricks.recipe.dataset_stats import DatasetStats
from raytricks.recipe.doctor_case import Case, Finding
from raytricks.recipe.doctor_rules import RULES
from raytricks.recipe.recipe import Recipe
from raytricks.recipe.teacher_facts import TeacherFacts, teacher_facts

__all__ = ["RULES", "Finding", "TeacherFacts", "diagnose", "refuse", "teacher_facts"]


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
        What was found, in the order of RULES; empty for a sound recipe.
    """
    case = Case(
        config=config,
        stats=stats,
        recipe=recipe,
        device_type=device_type,
        precision=precision,
        teacher=teacher if config.tricks.distillation.teacher is not None else None,
        class_names=None if class_names is None else tuple(class_names),
    )
    return [finding for rule in RULES if (finding := rule(case)) is not None]


def refuse(findings: Iterable[Finding]) -> None:
    """Raise ConfigError, with a line for each finding, if there are any."""
    if lines := [str(finding) for finding in findings]:
        raise ConfigError(lines)
