"""A dumped or shown configuration loads to the same one."""

import json
import pickle

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import numpy as np
from pydantic import ValidationError
import pytest
import yaml

from raytricks.config import (
    DataConfig,
    ExperimentConfig,
    LoadedConfig,
    TuneConfig,
    dotted_keys,
    dump_yaml,
    flatten,
    json_schema,
    load_config,
    show,
    to_nested,
)
from raytricks.config.schemas import config_of, schema_for, schema_of_all
from raytricks.config.search_space import Choice, Grid, LogUniform, QUniform, RandInt, Uniform
from raytricks.parts.part import CHOSEN_BY

ROOT: dict = json_schema()


def strategy(schema: dict) -> st.SearchStrategy:
    """Return values that a JSON schema of one key allows."""
    if "anyOf" in schema:
        return st.one_of([strategy(part) for part in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    if "pattern" in schema:
        names = st.from_regex(schema["pattern"].replace("$", r"\Z"))
        return names | st.sampled_from(["null", "true", "1e3", "010", "0o7", "yes", "1.5", "NaN", "2024-01-01"])
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if schema["type"] == "integer":
        return st.integers(low, high if below is None else below - 1)
    if schema["type"] == "number":
        limits: dict = {
            "min_value": low if above is None else above,
            "max_value": high if below is None else below,
        }
        open_ends: dict = {"exclude_min": above is not None, "exclude_max": below is not None}
        return st.floats(**limits, **open_ends, allow_nan=False, allow_infinity=False)
    return {"null": st.none(), "boolean": st.booleans(), "string": st.text()}[schema["type"]]


def key_schema(key: str) -> dict:
    """Return the part of the JSON schema that describes one key."""
    schema = ROOT
    for part in key.split("."):
        schema = schema["properties"][part]
        if "$ref" in schema:
            schema = ROOT["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


@st.composite
def ranges(draw, kind, smallest: float, largest: float, singles: tuple):
    """Draw a range, of which single values may be drawn too."""
    low, high = sorted(draw(st.lists(st.floats(smallest, largest), min_size=2, max_size=2, unique=True)))
    return kind(low=low, high=high, also=draw(st.sampled_from([(), singles])))


WORDS = st.text() | st.sampled_from(["null", "true", "1e3", "{a: b}", "[a, b]", "a, b", "yes", "#"])
SPACES = st.fixed_dictionaries(
    {},
    optional={
        "tricks.label_smoothing.epsilon": ranges(Uniform, 0.01, 0.99, (0.0,)),
        "tricks.mixup.alpha": ranges(LogUniform, 1e-3, 10, (0.0,)),
        "recipe.clip_norm": ranges(Uniform, 0.1, 1e9, (None, 0.01)),
        "recipe.global_batch_size": st.sampled_from([QUniform(low=32, high=256, q=32), RandInt(low=1, high=9)]),
        "optimizer.weight_decay": st.just(QUniform(low=0.1, high=0.7, q=0.1)),
        "tricks.zero_gamma": st.just(Grid(values=(True, False))),
        "data.crop_scale": st.lists(st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1)), min_size=1, unique=True).map(
            lambda values: Choice(values=values)
        ),
        "model.name": st.lists(WORDS | st.none(), min_size=1, unique=True).map(lambda values: Choice(values=values)),
    },
)
# keys that a rule between several values would nearly always reject
ORDERED = {
    "data.crop_scale": st.lists(st.floats(0.01, 1), min_size=2, max_size=2).map(sorted).map(tuple),
    "data.crop_aspect": st.lists(st.floats(0.01, 9), min_size=2, max_size=2).map(sorted).map(tuple),
    "workers": st.integers(0, 4096) | st.lists(st.integers(1, 4096), min_size=2, max_size=2).map(sorted).map(tuple),
    "data.train_size": st.none() | st.lists(st.integers(4, 1024), min_size=2, max_size=2).map(sorted).map(tuple),
    "data.train_size_ramp": st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted).map(tuple),
    "tricks.random_erasing.area": st.lists(st.floats(0.01, 1), min_size=2, max_size=2).map(sorted).map(tuple),
    "tricks.random_erasing.aspect": st.lists(st.floats(0.01, 9), min_size=2, max_size=2).map(sorted).map(tuple),
    "optimizer.betas": st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    "optimizer.weight_decay": st.floats(1e-9, 1e3),
    "model.pretrained": st.just(False),
    "tricks.distillation.cache_dir": st.none(),
    "tricks.mixup.off_epochs": st.integers(0, 6),
    "tricks.cutmix.off_epochs": st.integers(0, 6),
    "tricks.decay.milestones": st.lists(st.floats(0, 0.99), unique=True, max_size=5).map(sorted).map(tuple),
    "tricks.warmup.epochs": st.floats(0, 5.9),
    "recipe.epochs": st.integers(6),
    "optimizer.momentum": st.floats(0.01, 0.99),
    "data.source": st.sampled_from(["auto", "digits", "fashion_mnist"]),
    "metrics": st.just(()),
    "callbacks": st.just(()),
    "parts": st.just({}),
    "changes": st.just(()),
    "tune.space": SPACES,
    "tune.sampler": st.sampled_from(["random", "optuna"]),
    "tune.scheduler": st.sampled_from(["none", "asha", "hyperband"]),
}


STRATEGIES = {
    key: ORDERED[key] if key in ORDERED else strategy(key_schema(key)) for key in dotted_keys(schema_of_all())
}


@st.composite
def configs(draw) -> ExperimentConfig:
    """Draw a configuration of which some keys are set."""
    chosen = {key: draw(STRATEGIES[key]) for key in CHOSEN_BY.values() if key in STRATEGIES}
    schema = schema_for(chosen)
    keys = draw(st.sets(st.sampled_from([key for key in STRATEGIES if key in dotted_keys(schema)]), max_size=20))
    values = {key: draw(STRATEGIES[key]) for key in sorted(keys)} | chosen
    return schema.model_validate(to_nested(values))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(config=configs())
def test_dump_and_show_load_to_an_equal_config(config, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    for text in (dump_yaml(config), show(LoadedConfig(config, dict.fromkeys(dotted_keys(), "a: #b\n\tc")))):
        file.write_text(text, encoding="utf-8")
        loaded = load_config(file)
        assert loaded.config == config
        # equal is not enough: 1 == 1.0 == True
        assert repr(loaded.config) == repr(config)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(config=configs())
def test_config_goes_to_other_processes_as_it_is(config):
    """As pickle, and as JSON, which is how the workers of a run get it."""
    for copy in (pickle.loads(pickle.dumps(config)), config_of(json.loads(config.model_dump_json()))):
        assert type(copy) is type(config) and copy == config
        assert repr(copy) == repr(config)


@pytest.mark.parametrize(
    "text",
    ["", " ", "null", "~", "yes", "0x1", "1e3", ".inf", "a: b", "a #b", "- a", "'", '"', "\\", "a\nb", "a\tb",
     "\u2028", "\x85", "\x7f", "\ufeff", "\U0001f600", "\ud800", "é", "x" * 500, "a " * 100,
     "{a}", "[a]", "*a", "&a", "!a", "%a", "@a"],
)  # fmt: skip
def test_dump_quotes_text_that_means_something_else(text, tmp_path):
    config = ExperimentConfig(data=DataConfig(path=text))
    (tmp_path / "x.yaml").write_text(dump_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "x.yaml").config == config


def test_dump_writes_numpy_floats_as_numbers():
    config = load_config(None, {"recipe.base_lr": np.float64(0.25)}).config
    assert "base_lr: 0.25\n" in dump_yaml(config)


def test_dump_reads_the_same_in_other_yaml_readers():
    config = ExperimentConfig(name="yes", output_dir="2024-01-01", data=DataConfig(path="off"))
    tree = yaml.safe_load(dump_yaml(config))
    assert (tree["name"], tree["output_dir"], tree["data"]["path"]) == ("yes", "2024-01-01", "off")


def test_dump_leaves_out_a_search_that_is_not_described(tmp_path):
    assert "tune" not in dump_yaml(ExperimentConfig())
    (tmp_path / "x.yaml").write_text(dump_yaml(ExperimentConfig(tune=TuneConfig(num_trials=3))))
    assert load_config(tmp_path / "x.yaml").config.tune == TuneConfig(num_trials=3)


def test_dump_writes_each_distribution_on_one_line():
    space = {"recipe.base_lr": LogUniform(low=0.1, high=1, also=[2.0]), "recipe.global_batch_size": [64, 128]}
    lines = dump_yaml(ExperimentConfig(tune=TuneConfig(space=space))).splitlines()
    start = lines.index("  space:")
    assert lines[start + 1 : start + 3] == [
        "    recipe.base_lr: {kind: loguniform, low: 0.1, high: 1.0, also: [2.0]}",
        "    recipe.global_batch_size: [64, 128]",
    ]


def test_show_names_the_source_of_each_value_in_one_column(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text("recipe:\n  epochs: 30\n")
    loaded = load_config("x.yaml", ["seed=7"], {"model.width": 8}, "data (8x8, 1797 images)")
    lines = show(loaded).splitlines()
    column = lines[0].index("#")
    shown = {line[:column].strip(): line[column:] for line in lines if "#" in line}
    assert shown["epochs: 30"] == "# x.yaml:2"
    assert shown["seed: 7"] == "# command line"
    assert shown["width: 8"] == "# data (8x8, 1797 images)"
    assert shown["keep: 2"] == "# default"
    assert len([line for line in lines if "#" in line]) == len(flatten(loaded.config))


def test_strategy_draws_are_what_the_schema_allows():
    with pytest.raises(ValidationError):
        ExperimentConfig.model_validate({"recipe": {"epochs": 0}})
    assert key_schema("recipe.epochs")["minimum"] == 1
