"""The configuration of a run: its schema, and how it is read, checked, shown and saved."""

from raytricks.config.dump import dump_yaml, show
from raytricks.config.keys import dotted_keys, flatten, to_nested
from raytricks.config.loader import LoadedConfig, json_schema, load_config
from raytricks.config.schema import (
    CheckpointConfig,
    DataConfig,
    ExperimentConfig,
    HardwareConfig,
    LoggingConfig,
    ModelConfig,
    OptimizerConfig,
    RecipeConfig,
    Section,
    TricksConfig,
)
from raytricks.config.search_space import Distribution
from raytricks.config.tuning import TuneConfig
from raytricks.suggest import did_you_mean

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "Distribution",
    "ExperimentConfig",
    "HardwareConfig",
    "LoadedConfig",
    "LoggingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RecipeConfig",
    "Section",
    "TricksConfig",
    "TuneConfig",
    "did_you_mean",
    "dotted_keys",
    "dump_yaml",
    "flatten",
    "json_schema",
    "load_config",
    "show",
    "to_nested",
]
