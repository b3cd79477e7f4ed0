"""What a run will be, worked out before anything is decoded, built or written: config, data, recipe.

    config file and overrides -> schema of its parts -> config
    config -> the data is scanned -> what it leaves open is filled in -> phases, each with its recipe

torch is imported no earlier than a valid config has been seen; `raytricks.run` carries a plan out.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytricks.config import ExperimentConfig, LoadedConfig, load_config
from raytricks.data.loading import find_data
from raytricks.data.splits import DatasetSplits
from raytricks.errors import ConfigError
from raytricks.parts.sources import is_data_place
from raytricks.recipe.phases import Phase, make_phases
from raytricks.recipe.recipe import Recipe
from raytricks.recipe.resolve import DatasetStats, preset_for, resolve_config, stats_of

Overrides = Sequence[str] | Mapping[str, Any]
RESUME_AUTO = "auto"
"""Resume the run of the same name, where there is one."""


def with_override(overrides: Overrides, key: str, value: Any) -> Overrides:
    """Return overrides with one more, which counts."""
    if isinstance(overrides, Mapping):
        return {**overrides, key: value}
    return [*([overrides] if isinstance(overrides, str) else overrides), f"{key}={value}"]


@dataclass(frozen=True)
class Plan:
    """A run worked out from its config and data; nothing is decoded or written yet.

    Attributes:
        config: resolved.
        sources: where each of its values comes from.
        splits: what is trained on, evaluated, scored once.
        phases: of the run, one more than its config has `changes`.
    """

    config: ExperimentConfig
    sources: dict[str, str]
    splits: DatasetSplits
    stats: DatasetStats
    phases: tuple[Phase, ...]

    @property
    def recipe(self) -> Recipe:
        """What the run starts with."""
        return self.phases[0].recipe


def plan_run(target: str | Path | None = None, overrides: Overrides = (), accept_changed: Collection[str] = ()) -> Plan:
    """Load a config, scan its data and resolve the recipe.

    Args:
        target: a config file, or a directory of images or a table of their paths and labels, for which a recipe is
            chosen; None for overrides alone.
        overrides: `recipe.epochs=3` strings, or a mapping of dotted keys.
        accept_changed: of a run's config, names of parts of the user's own whose code may have changed since.

    Raises:
        ConfigError: every problem of the config at once.
        DataError: the data cannot be used.
    """
    if target is not None and is_data_place(target):
        _refuse_run_directory(Path(target).expanduser())
        return _plan_data(Path(target), overrides)
    loaded = load_config(target, overrides, accept_changed=accept_changed)
    return _plan(loaded, _find_data(loaded.config))


def plan_of(config: ExperimentConfig) -> Plan:
    """Plan the run of a config that was loaded before, such as that of a run or study that goes on."""
    return _plan(LoadedConfig(config, {}), _find_data(config))


def _refuse_run_directory(directory: Path) -> None:
    """A run's directory was meant to be resumed or repeated, not to be searched for images."""
    if (directory / "config.yaml").is_file() and (directory / "run.json").is_file():
        raise ConfigError(
            f"{directory} is a run, not a directory of images; go on with `--resume {directory}`, or repeat it "
            f"with `{directory}/config.yaml name=NEW_NAME`"
        )


def _plan_data(place: Path, overrides: Overrides) -> Plan:
    """Choose the recipe by the images; the overrides still decide."""
    data: dict[str, object] = {"data.path": str(place)}
    # without a warmup, so that few epochs are no conflict before the preset has fitted its own to them
    first = load_config(None, overrides, data | {"tricks.warmup.epochs": 0.0}, "the data given")
    splits = _find_data(first.config)
    stats = stats_of(splits)
    source = f"preset for {stats.size_text}, {stats.num_train:,} images"
    epochs = first.config.recipe.epochs if first.sources["recipe.epochs"] != "default" else None
    return _plan(load_config(None, overrides, data | preset_for(stats, epochs), source), splits)


def _find_data(config: ExperimentConfig) -> DatasetSplits:
    return find_data(config.data, config.seed)


def _plan(loaded: LoadedConfig, splits: DatasetSplits) -> Plan:
    stats = stats_of(splits)
    config, filled = resolve_config(loaded.config, stats)
    return Plan(config, loaded.sources | filled, splits, stats, make_phases(config, stats.num_train))
