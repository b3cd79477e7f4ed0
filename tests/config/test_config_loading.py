"""Precedence, sources and the line each wrong key or value deserves."""

import math
from pathlib import Path

import pytest

from raytricks.config import (
    ExperimentConfig,
    RecipeConfig,
    dotted_keys,
    flatten,
    json_schema,
    load_config,
    to_nested,
)
from raytricks.config.schemas import listed
from raytricks.errors import ConfigError
from raytricks.parts.registry import of_kind


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    """Write x.yaml in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
        return "x.yaml"

    return write


def problems(*args, **kwargs) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(*args, **kwargs)
    assert all("\n" not in line for line in caught.value.problems)
    return caught.value.problems


def problem(override: str) -> str:
    """Return the only problem of one override, without its place."""
    (line,) = problems(None, [override])
    return line.removeprefix("command line: ")


def test_load_without_arguments_gives_the_schema_defaults():
    loaded = load_config()
    assert loaded.config == ExperimentConfig()
    assert set(loaded.sources) == set(dotted_keys())
    assert set(loaded.sources.values()) == {"default"}


def test_load_lets_each_layer_win_over_the_one_before(config_file):
    path = config_file("seed: 2\nrecipe:\n  epochs: 20\n  base_lr: 1e-1\n")
    loaded = load_config(
        path,
        ["recipe.epochs=30"],
        defaults={"seed": 1, "recipe.epochs": 10, "model.name": "resnet8", "recipe": {"clip_norm": 1}},
        defaults_source="data (28x28, 60000 images)",
    )
    assert (loaded.config.seed, loaded.config.recipe.epochs, loaded.config.model.name) == (2, 30, "resnet8")
    assert loaded.config.recipe.base_lr == 0.1
    assert loaded.sources["seed"] == "x.yaml:1"
    assert loaded.sources["recipe.epochs"] == "command line"
    assert loaded.sources["recipe.base_lr"] == "x.yaml:4"
    assert loaded.sources["recipe.clip_norm"] == "data (28x28, 60000 images)"
    assert loaded.sources["recipe.global_batch_size"] == "default"


def test_load_keeps_the_other_keys_of_a_section(config_file):
    path = config_file("tricks: {mixup: {alpha: 0.2}, decay: {kind: step}}\n")
    tricks = load_config(path, ["tricks.decay.factor=0.2"]).config.tricks
    assert (tricks.mixup.alpha, tricks.decay.kind, tricks.decay.factor) == (0.2, "step", 0.2)
    assert tricks.decay.milestones == (0.25, 0.5, 0.75)


def test_load_takes_nested_and_dotted_mappings_sections_and_paths():
    loaded = load_config(
        overrides={
            "tricks": {"mixup": {"alpha": 1}, "warmup.epochs": 2},
            "data.path": Path("/data"),
            "data.crop_scale": [0.5, 1],
            "recipe": RecipeConfig(epochs=9),
        }
    )
    assert loaded.config.tricks.mixup.alpha == 1.0
    assert loaded.config.data.path == "/data"
    assert loaded.config.data.crop_scale == (0.5, 1.0)
    assert loaded.config.recipe == RecipeConfig(epochs=9)
    assert loaded.sources["tricks.warmup.epochs"] == "overrides"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("recipe.base_lr=1", 1.0),
        ("recipe.base_lr=1e-3", 0.001),
        ("recipe.clip_norm=null", None),
        ("tricks.decay.milestones=[0.5]", (0.5,)),
        ("tricks.decay.milestones=[]", ()),
        ("data.crop_scale=[0.2, 1]", (0.2, 1.0)),
        ("data.channels=3", 3),
        ("tricks.lr_scaling=none", "none"),
        ("tricks.zero_gamma=false", False),
        ("name=2024", "2024"),
        ("name='null'", "null"),
        ("name=null", None),
        ("data.path=/a/b: c=d #e", "/a/b: c=d #e"),
        ("data.path=[x", "[x"),
        (" seed = 3 ", 3),
        ("tricks={mixup: {alpha: 0.5}}", None),
    ],
)
def test_override_value_is_read(override, value):
    key = override.partition("=")[0].strip()
    config = load_config(None, [override]).config
    if key == "tricks":
        assert config.tricks.mixup.alpha == 0.5
    else:
        assert flatten(config)[key] == value


OPTIMIZERS = ", ".join(row.name for row in of_kind("optimizer"))


@pytest.mark.parametrize(
    ("name", "setting", "value", "remedy"),
    [
        ("sgd", "betas", "[0.5,0.6]", "lamb"),
        ("sgd", "epsilon", "1e-3", "lamb"),
        ("sgd", "trust_coefficient", "0.01", "lars"),
        ("lamb", "trust_coefficient", "0.01", "lars"),
        ("lars", "betas", "[0.5,0.6]", "lamb"),
        ("adamw", "trust_coefficient", "0.01", "lars"),
        ("lamb", "nesterov", "false", "sgd"),
    ],
)
def test_setting_of_another_optimizer_is_one_line(name, setting, value, remedy):
    with pytest.raises(ConfigError) as caught:
        load_config(None, [f"optimizer.{setting}={value}", f"optimizer.name={name}"])
    rows = [row for row in of_kind("optimizer") if isinstance(row.settings, type)]
    owners = listed([row.name for row in rows if setting in row.settings.model_fields])
    assert caught.value.problems == [
        f"command line: optimizer.{setting} is a setting of {owners}, optimizer.name is {name}; "
        f"leave it out or set optimizer.name={remedy}"
    ]


def test_setting_of_another_optimizer_in_a_file_has_its_line(config_file):
    path = config_file("optimizer:\n  weight_decay: 1e-4\n  betas: [0.9, 0.99]\n")
    with pytest.raises(
        ConfigError, match=r"x.yaml:3: optimizer.betas is a setting of lamb and adamw, optimizer.name is sgd; "
    ):
        load_config(path)
    assert load_config(path, ["optimizer.name=lamb"]).config.optimizer.betas == (0.9, 0.99)


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer={name: lamb, betas: [0.5, 0.6]}"],
        [" optimizer.name = 'lamb' ", "optimizer.betas=[0.5, 0.6]"],
        ["optimizer.betas=[0.5, 0.6]", 'optimizer.name="lamb"'],
        {"optimizer": {"name": "lamb", "betas": [0.5, 0.6]}},
        {"optimizer.name": "lamb", "optimizer": {"betas": (0.5, 0.6)}},
    ],
)
def test_optimizer_is_chosen_in_every_form_of_an_override(config_file, overrides):
    config = load_config(config_file("optimizer.name: lars\n"), overrides).config
    assert config.optimizer.name == "lamb" and config.optimizer.betas == (0.5, 0.6)
    assert not hasattr(config.optimizer, "momentum")


@pytest.mark.parametrize("name", ["adam", "[lamb]", "null", "3"])
def test_optimizer_that_there_is_not_is_one_line(name):
    with pytest.raises(ConfigError) as caught:
        load_config(None, [f"optimizer.name={name}"])
    (line,) = caught.value.problems
    assert line.startswith(f"command line: optimizer.name: must be one of {OPTIMIZERS}, got ")


def test_setting_that_no_optimizer_has_is_an_unknown_key():
    with pytest.raises(ConfigError, match=r"unknown key optimizer.beta") as caught:
        load_config(None, ["optimizer.beta=0.5"])
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("name", ["sgd", "lars", "lamb", "adamw"])
def test_optimizer_has_its_own_settings_and_those_of_all(name):
    settings = {
        "sgd": {"momentum", "nesterov"},
        "lars": {"momentum", "nesterov", "trust_coefficient"},
        "lamb": {"betas", "epsilon"},
        "adamw": {"betas", "epsilon"},
    }[name]
    loaded = load_config(None, {"optimizer.name": name})
    keys = {key for key in flatten(loaded.config) if key.startswith("optimizer.")}
    assert keys == {f"optimizer.{setting}" for setting in {"name", "weight_decay"} | settings}
    assert loaded.sources["optimizer.name"] == "overrides"


def test_one_string_is_one_override():
    assert load_config(None, "seed=3").config.seed == 3


def test_empty_sections_change_nothing(config_file):
    assert load_config(config_file("tricks:\nrecipe: {}\ndata:\n  # path: x\n")).config == ExperimentConfig()


WRONG_VALUES = [
    ("tricks.mixup.alpha=-1", "tricks.mixup.alpha: must be >= 0, got -1"),
    ("tricks.mixup.alpha=11", "tricks.mixup.alpha: must be <= 10, got 11"),
    ("tricks.label_smoothing.epsilon=1.5", "tricks.label_smoothing.epsilon: must be < 1, got 1.5"),
    ("recipe.base_lr=0", "recipe.base_lr: must be > 0, got 0"),
    ("recipe.base_lr=.nan", "recipe.base_lr: must be a finite number, got nan"),
    ("recipe.base_lr=.inf", "recipe.base_lr: must be a finite number, got inf"),
    ("recipe.base_lr=1e999", "recipe.base_lr: must be a finite number, got inf"),
    ("recipe.base_lr=true", "recipe.base_lr: must be a number, got true"),
    ("recipe.base_lr='0.1'", "recipe.base_lr: must be a number, got '0.1'; write 0.1"),
    ("recipe.base_lr=nan", "recipe.base_lr: must be a number, got 'nan'"),
    ("recipe.epochs=ten", "recipe.epochs: must be a whole number, got 'ten'"),
    ("recipe.epochs=2.5", "recipe.epochs: must be a whole number, got 2.5"),
    ("recipe.epochs=1e2", "recipe.epochs: must be a whole number, got 100.0; write 100"),
    ("recipe.epochs=010", "recipe.epochs: must be a whole number, got '010'; write 10"),
    ("recipe.epochs=1_000", "recipe.epochs: must be a whole number, got '1_000'; write 1000"),
    ("recipe.epochs=1:30", "recipe.epochs: must be a whole number, got '1:30'"),
    ("recipe.epochs=true", "recipe.epochs: must be a whole number, got true"),
    ("recipe.epochs=", "recipe.epochs: must be a whole number, got null"),
    ("recipe.epochs=0", "recipe.epochs: must be >= 1, got 0"),
    ("recipe.epochs={}", "recipe.epochs: takes one value, not a section"),
    ("recipe.epochs={a: 1, b: 2}", "recipe.epochs: takes one value, not a section"),
    ("recipe.epochs.max=3", "recipe.epochs: takes one value, not a section"),
    ("recipe.clip_norm=None", "recipe.clip_norm: must be a number or null, got 'None'; write null"),
    ("seed=2147483648", "seed: must be < 2147483648, got 2147483648"),
    ("tricks.zero_gamma=yes", "tricks.zero_gamma: must be true or false, got 'yes'; write true"),
    ("tricks.zero_gamma=off", "tricks.zero_gamma: must be true or false, got 'off'; write false"),
    ("tricks.zero_gamma=1", "tricks.zero_gamma: must be true or false, got 1"),
    ("output_dir=null", "output_dir: must be text, got null"),
    ("name=a b", "name: must match ^[A-Za-z0-9][A-Za-z0-9._-]*$, got 'a b'"),
    ("model.variant=E", "model.variant: must be one of A, B, C, D, got 'E'"),
    ("model.variant=d", "model.variant: must be one of A, B, C, D, got 'd'; did you mean D?"),
    ("data.source=idxs", "data.source: must be one of auto, digits, fashion_mnist, shards, idx, parquet, table, "
     "folder, got 'idxs'; did you mean idx?"),
    ("data.channels=2", "data.channels: must be one of 1, 3 or null, got 2"),
    ("data.channels=true", "data.channels: must be one of 1, 3 or null, got true"),
    ("data.channels=3.0", "data.channels: must be one of 1, 3 or null, got 3.0"),
    ("data.channels=[1]", "data.channels: must be one of 1, 3 or null, got [1]"),
    ("data.crop_scale=1", "data.crop_scale: must be a list, got 1"),
    ("data.crop_scale=[0.1]", "data.crop_scale: needs at least 2 values, got [0.1]"),
    ("data.crop_scale=[1,2,3]", "data.crop_scale: takes at most 2 values, got [1, 2, 3]"),
    ("data.crop_scale=[0.1,x]", "data.crop_scale[1]: must be a number, got 'x'"),
    ("data.crop_scale=[0.1", "data.crop_scale: expected ',' or ']', but got '<stream end>' in '[0.1'"),
    ("tricks.decay.milestones=[0.5,1]", "tricks.decay.milestones[1]: must be < 1, got 1"),
    ("tricks.mixup=0.2", "tricks.mixup is a section, got 0.2; set tricks.mixup.alpha, tricks.mixup.off_epochs"),
    ("model=resnet18", "model is a section, got 'resnet18'; "
     "set model.name, model.variant, model.stem, model.width, ..."),
    ("tricks.mixup_alfa=1", "unknown key tricks.mixup_alfa; did you mean tricks.mixup.alpha?"),
    ("learning_rate=1", "unknown key learning_rate; did you mean recipe.base_lr?"),
    ("zzz=1", "unknown key zzz"),
    ("a\nb=1", "unknown key 'a\\nb'"),
    ("a..b=1", "unknown key a..b"),
    ("=1", "an override is key=value, got '=1'"),
    ("what", "an override is key=value, got 'what'"),
    ("recipe.epochs", "recipe.epochs needs a value; write recipe.epochs=VALUE"),
    ("data.source=idx", "data: source idx needs data.path, the directory that holds the images"),
    ("optimizer.momentum=0", "optimizer: nesterov needs momentum > 0, got momentum 0; set nesterov=false"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "line"), WRONG_VALUES, ids=[row[0] for row in WRONG_VALUES])
def test_wrong_override_gives_key_rule_value_and_remedy(override, line):
    assert problem(override) == line


def test_long_values_are_cut():
    assert len(problem(f"recipe.epochs={'x' * 9999}")) < 150


def test_override_set_twice_is_an_error():
    assert problems(None, ["seed=1", "seed=2"]) == ["command line: seed is set twice, to '1' and '2'"]
    assert problems(None, {"recipe.epochs": 8, "recipe": {"epochs": 9}}) == [
        "overrides: recipe.epochs is set twice, to 8 and 9"
    ]


def test_override_of_a_section_and_of_its_key_is_an_error():
    lines = problems(None, ["tricks={mixup: {alpha: 1}}", "tricks.mixup.alpha=2"])
    assert lines == ["command line: tricks.mixup.alpha is set twice, to 1 and 2"]


def test_number_as_text_in_a_file_is_to_be_quoted(config_file):
    assert problems(config_file("name: 1e3\n")) == [
        "x.yaml:1: name: must be text or null, got 1000.0; put it in quotes"
    ]


def test_all_problems_are_reported_at_once(config_file):
    path = config_file(
        "tricks:\n"
        "  mixup_alfa: 0.2\n"
        "  mixup.alpha: -1\n"
        "  decay: {milestones: [0.5, 0.2]}\n"
        "seed: 1\n"
        "seed: 2\n"
        "model: resnet18\n"
    )
    lines = problems(path, ["recipe.epochs=ten", "model.variant=E", "lr"])
    assert sorted(lines) == [
        "command line: an override is key=value, got 'lr'",
        "command line: model.variant: must be one of A, B, C, D, got 'E'",
        "command line: recipe.epochs: must be a whole number, got 'ten'",
        "x.yaml:2: unknown key tricks.mixup_alfa; did you mean tricks.mixup.alpha?",
        "x.yaml:3: tricks.mixup.alpha: must be >= 0, got -1",
        "x.yaml:4: tricks.decay: milestones must rise, got [0.5, 0.2]",
        "x.yaml:6: seed is set twice (first on line 5)",
        "x.yaml:7: model is a section, got 'resnet18'; set model.name, model.variant, model.stem, model.width, ...",
    ]


def test_rule_between_values_names_everyone_who_set_them(config_file):
    rule = "tricks.warmup.epochs must be less than recipe.epochs ({}), got {}; shorten the warmup or train longer"
    path = config_file("seed: 3\ntricks.warmup.epochs: 200\n")
    assert problems(path) == [f"x.yaml:2: {rule.format(120, 200)}"]
    assert problems(path, ["recipe.epochs=3"]) == [f"x.yaml:2 and command line: {rule.format(3, 200)}"]
    preset = {"defaults": {"recipe.epochs": 4}, "defaults_source": "data (8x8)"}
    assert problems(**preset) == [f"data (8x8): {rule.format(4, 5)}"]


def test_wrong_number_from_python_is_rejected():
    assert problems(None, {"recipe.base_lr": math.nan}) == [
        "overrides: recipe.base_lr: must be a finite number, got nan"
    ]
    assert problems(None, {"seed": object})[0].startswith("overrides: seed: must be a whole number, got <class")


def test_missing_file_is_an_error_and_not_the_defaults(config_file):
    assert problems("nope.yaml") == ["no such config file nope.yaml"]


def test_dotted_keys_and_flatten_agree():
    assert list(dotted_keys()) == list(flatten(ExperimentConfig()))
    assert dotted_keys(RecipeConfig)["epochs"].default == 120


def test_to_nested_inverts_flatten():
    config = ExperimentConfig(recipe=RecipeConfig(epochs=7))
    assert ExperimentConfig.model_validate(to_nested(flatten(config))) == config


@pytest.mark.parametrize("values", [{"a": 1, "a.b": 2}, {"a.b": 2, "a": 1}])
def test_to_nested_rejects_a_key_that_is_also_a_section(values):
    with pytest.raises(ValueError, match="a"):
        to_nested(values)


def test_json_schema_describes_the_sections():
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(ExperimentConfig.model_fields)  # type: ignore[arg-type]
