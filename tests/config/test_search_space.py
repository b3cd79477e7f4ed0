"""The search space of a config: how it is written, and the line each mistake in it deserves."""

import pytest

from raytricks.config import ExperimentConfig, TuneConfig, dump_yaml, json_schema, load_config, show
from raytricks.config.search_space import Choice, Grid, LogUniform, QUniform, RandInt, Uniform
from raytricks.errors import ConfigError

EPSILON = "tricks.label_smoothing.epsilon"
ALPHA = "tricks.mixup.alpha"
BATCH = "recipe.global_batch_size"


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    """Write x.yaml in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
        return "x.yaml"

    return write


def problems(*args) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(*args)
    assert all("\n" not in line for line in caught.value.problems)
    return caught.value.problems


def problem(*overrides: str) -> str:
    """Return the only problem of overrides, without its place."""
    (line,) = problems(None, [f"tune.space.{override}" for override in overrides])
    assert line.startswith("command line: ")
    return line.removeprefix("command line: ").removeprefix("tune.space.")


def drawn(key: str, text: str):
    """Return the distribution of one key, given on the command line."""
    return load_config(None, [f"tune.space.{key}={text}"]).config.tune.space[key]


def test_space_of_a_file_takes_dotted_and_nested_keys(config_file):
    path = config_file(
        "tune:\n"
        "  num_trials: 8\n"
        "  space:\n"
        "    tricks.label_smoothing.epsilon: {kind: uniform, low: 0.02, high: 3e-1, also: [0]}\n"
        "    recipe.global_batch_size: [64, 128]\n"
        "    tricks:\n"
        "      mixup: {alpha: {kind: loguniform, low: 0.05, high: 1}}\n"
        "      decay.kind: [cosine, step]\n"
        "    optimizer.weight_decay:\n"
        "      kind: grid\n"
        "      values:\n"
        "        - 1e-4\n"
        "        - 0\n"
    )
    loaded = load_config(path)
    assert loaded.config.tune.space == {
        EPSILON: Uniform(low=0.02, high=0.3, also=(0.0,)),
        BATCH: Choice(values=(64, 128)),
        ALPHA: LogUniform(low=0.05, high=1.0),
        "tricks.decay.kind": Choice(values=("cosine", "step")),
        "optimizer.weight_decay": Grid(values=(0.0001, 0.0)),
    }
    assert loaded.sources[f"tune.space.{ALPHA}"] == "x.yaml:7"
    assert loaded.sources["tune.num_trials"] == "x.yaml:2"
    assert loaded.sources["tune.sampler"] == "default"
    assert loaded.sources["tune.space"] == "x.yaml:4 and x.yaml:5 and x.yaml:7 and x.yaml:8 and x.yaml:10"


def test_override_replaces_a_key_of_the_space_and_null_takes_it_out(config_file):
    path = config_file(
        f"tune.space: {{{EPSILON}: {{kind: uniform, low: 0.1, high: 0.2, also: [0]}}, {BATCH}: [64, 128], "
        f"{ALPHA}: [0, 1]}}\n"
    )
    overrides = [f"tune.space.{EPSILON}={{kind: uniform, low: 0.05, high: 0.3}}", f"tune.space.{BATCH}=null"]
    loaded = load_config(path, overrides)
    assert loaded.config.tune.space == {EPSILON: Uniform(low=0.05, high=0.3), ALPHA: Choice(values=(0.0, 1.0))}
    assert loaded.sources[f"tune.space.{EPSILON}"] == "command line"
    assert loaded.sources[f"tune.space.{ALPHA}"] == "x.yaml:1"
    assert f"tune.space.{BATCH}" not in loaded.sources
    assert load_config(path, ["tune.space=null", f"tune.space.{ALPHA}=[2]"]).config.tune.space == {
        ALPHA: Choice(values=(2.0,))
    }


@pytest.mark.parametrize(
    "overrides",
    [
        {f"tune.space.{ALPHA}": [0, 0.2]},
        {"tune": {"space": {ALPHA: (0, 0.2)}}},
        {"tune.space": {"tricks": {"mixup": {"alpha": {"kind": "choice", "values": [0, 0.2]}}}}},
        {"tune.space": {ALPHA: Choice(values=[0, 0.2])}},
        {"tune": TuneConfig(space={ALPHA: [0, 0.2]})},
        [f"tune.space={{{ALPHA}: [0, 0.2]}}"],
        ["tune={space: {tricks: {mixup.alpha: [0, 0.2]}}}"],
        [f"tune.space.{ALPHA}.kind=choice", f"tune.space.{ALPHA}.values=[0, 0.2]"],
    ],
)
def test_space_from_python_or_the_command_line_is_the_same(overrides):
    space = load_config(None, overrides).config.tune.space
    assert repr(space) == repr({ALPHA: Choice(values=(0.0, 0.2))})


@pytest.mark.parametrize(
    ("key", "text", "distribution"),
    [
        (ALPHA, "{kind: uniform, low: 0, high: 1}", Uniform(low=0.0, high=1.0)),
        (ALPHA, "[1e-3, 1]", Choice(values=(0.001, 1.0))),
        (BATCH, "{kind: quniform, low: 32, high: 256, q: 32}", QUniform(low=32, high=256, q=32)),
        (ALPHA, "{kind: quniform, low: 0, high: 1, q: 1}", QUniform(low=0.0, high=1.0, q=1.0)),
        (BATCH, "{kind: randint, low: 32, high: 64, also: [128]}", RandInt(low=32, high=64, also=(128,))),
        ("tricks.warmup.epochs", "{kind: randint, low: 1, high: 3, also: [0]}", RandInt(low=1, high=3, also=(0.0,))),
        ("recipe.clip_norm", "{kind: loguniform, low: 1, high: 9, also: [null]}",
         LogUniform(low=1.0, high=9.0, also=(None,))),
        ("data.crop_scale", "[[0.1, 1], [1, 1]]", Choice(values=((0.1, 1.0), (1.0, 1.0)))),
        ("tricks.zero_gamma", "[true, false]", Choice(values=(True, False))),
        ("model.name", "[resnet8, null]", Choice(values=("resnet8", None))),
    ],
)  # fmt: skip
def test_values_take_the_type_of_the_setting(key, text, distribution):
    assert repr(drawn(key, text)) == repr(distribution)  # equal is not enough: 1 == 1.0 == True


ALLOWED = "uniform, loguniform, quniform, randint, choice, grid"
WRONG = [
    # the setting
    ("tricks.mixup_alfa=[0, 1]", "tune.space: unknown key tricks.mixup_alfa; did you mean tricks.mixup.alpha?"),
    ("mixup_alpha={kind: uniform, low: 0, high: 1, step: 3}", "tune.space: unknown key mixup_alpha; "
     "did you mean tricks.mixup.alpha?"),
    ("tricks.mixup=[0, 1]", "tune.space: tricks.mixup is a section, got [0, 1]; "
     "set tricks.mixup.alpha, tricks.mixup.off_epochs"),
    ("seed=[0, 1]", "tune.space: seed cannot be searched: a lucky seed is no better recipe; "
     "tune.retrain_seeds trains the winner with several"),
    ("recipe.epochs={kind: randint, low: 1, high: 9}", "tune.space: recipe.epochs cannot be searched: "
     "every trial gets the same epochs, or the longest would win"),
    # the distribution
    (f"{ALPHA}=0.2", f"{ALPHA}: takes a list of values or {{kind: ...}}, got 0.2; to set {ALPHA} itself, "
     "leave out tune.space"),
    (f"{ALPHA}={{}}", f"{ALPHA}: needs a kind, one of {ALLOWED}"),
    (f"{ALPHA}={{low: 0, high: 1}}", f"{ALPHA}: needs a kind, one of {ALLOWED}"),
    (f"{ALPHA}={{kind: lognuiform, low: 0, high: 1}}", f"{ALPHA}.kind: must be one of {ALLOWED}, got 'lognuiform'; "
     "did you mean loguniform?"),
    (f"{ALPHA}={{kind: 3}}", f"{ALPHA}.kind: must be one of {ALLOWED}, got 3"),
    (f"{ALPHA}={{kind: uniform, low: 0, hgih: 1}}", f"{ALPHA}: uniform has no hgih, only low, high, also; "
     "did you mean high?"),
    (f"{ALPHA}={{kind: uniform, low: 0}}", f"{ALPHA}: uniform needs high; give "
     "{kind: uniform, low: ..., high: ...}"),
    (f"{BATCH}={{kind: quniform, low: 1, high: 9}}", f"{BATCH}: quniform needs q; give "
     "{kind: quniform, low: ..., high: ..., q: ...}"),
    (f"{ALPHA}={{kind: choice}}", f"{ALPHA}: choice needs values; give {{kind: choice, values: ...}}"),
    (f"{ALPHA}={{kind: uniform, low: 1, high: 1}}", f"{ALPHA}: low must be < high, got low 1 and high 1"),
    (f"{ALPHA}={{kind: randint, low: 3, high: 1}}", f"{ALPHA}: low must be < high, got low 3 and high 1"),
    (f"{ALPHA}={{kind: loguniform, low: 0, high: 1}}", f"{ALPHA}: low of a loguniform must be > 0, got 0; "
     "to draw 0 too, add also: [0]"),
    (f"{ALPHA}={{kind: uniform, low: 0.1, high: 1, also: [0.5]}}", f"{ALPHA}: also 0.5 lies between low 0.1 and "
     "high 1 already; leave it out"),
    (f"{ALPHA}={{kind: uniform, low: 0.1, high: 1, also: 0}}", f"{ALPHA}.also: must be a list, got 0; write [0]"),
    (f"{BATCH}={{kind: quniform, low: 1, high: 9, q: 0}}", f"{BATCH}: q must be > 0, got 0"),
    (f"{BATCH}={{kind: quniform, low: 1, high: 9, q: 0.5}}", f"{BATCH}.q: must be a whole number, got 0.5"),
    (f"{BATCH}={{kind: quniform, low: 1, high: 9, q: 10}}", f"{BATCH}: no multiple of q 10 lies between low 1 and "
     "high 9"),
    (f"{ALPHA}={{kind: quniform, low: 0, high: 1, q: .nan}}", f"{ALPHA}.q: must be a number, got nan"),
    (f"{BATCH}={{kind: quniform, low: 1, high: {10**400}, q: 2}}", f"{BATCH}: q 2 is too small a step for low 1 and "
     f"high {10**400}"),
    ("recipe.base_lr={kind: quniform, low: 1, high: 1e308, q: 1e-9}", "recipe.base_lr: q 1e-09 is too small a step "
     "for low 1 and high 1e+308"),
    (f"{BATCH}={{kind: randint, low: 1, high: {10**400}}}", f"{BATCH}: more whole numbers lie between low 1 and high "
     f"{10**400} than can be drawn; say quniform"),
    (f"{ALPHA}=[]", f"{ALPHA}: values is empty; give at least one value"),
    (f"{ALPHA}=[0, 1, 1.0, 1]", f"{ALPHA}: values holds 1 more than once"),
    # the values, through the setting
    (f"{EPSILON}={{kind: uniform, low: 0, high: 1.2}}", f"{EPSILON}.high: must be < 1, got 1.2"),
    (f"{EPSILON}={{kind: uniform, low: 0, high: 0.5, also: [-1]}}", f"{EPSILON}.also[0]: must be >= 0, got -1"),
    (f"{EPSILON}={{kind: uniform, low: 0, high: .inf}}", f"{EPSILON}.high: must be a finite number, got inf"),
    (f"{ALPHA}=[0, '1e-3']", f"{ALPHA}.values[1]: must be a number, got '1e-3'; write 0.001"),
    (f"{BATCH}=[64, 128.0]", f"{BATCH}.values[1]: must be a whole number, got 128.0; write 128"),
    (f"{BATCH}=[64, true]", f"{BATCH}.values[1]: must be a whole number, got true"),
    (f"{BATCH}={{kind: randint, low: 0, high: 9}}", f"{BATCH}.low: must be >= 1, got 0"),
    (f"{ALPHA}={{kind: randint, low: 0, high: 1.5}}", f"{ALPHA}.high: must be a whole number, got 1.5"),
    ("recipe.clip_norm={kind: uniform, low: null, high: 1}", "recipe.clip_norm.low: must be a number, got null"),
    ("tricks.zero_gamma=[yes]", "tricks.zero_gamma.values[0]: must be true or false, got 'yes'; write true"),
    ("model.variant=[A, d]", "model.variant.values[1]: must be one of A, B, C, D, got 'd'; did you mean D?"),
    ("data.crop_scale=[[0.1, 1], [1]]", "data.crop_scale.values[1]: needs at least 2 values, got [1]"),
    ("data.crop_scale=[[0.1, x]]", "data.crop_scale.values[0][1]: must be a number, got 'x'"),
    ("data.crop_scale=[[0.5, 0.1]]", "data.crop_scale.values[0]: crop_scale must be [low, high] with "
     "low <= high <= 1, got [0.5, 0.1]"),
    (f"{BATCH}={{kind: uniform, low: 1, high: 9}}", f"{BATCH}: uniform draws fractions, {BATCH} takes whole numbers; "
     "say randint, quniform or choice"),
    ("data.image_size={kind: loguniform, low: 8, high: 9}", "data.image_size: loguniform draws fractions, "
     "data.image_size takes whole numbers; say randint, quniform or choice"),
    ("model.name={kind: uniform, low: 1, high: 9}", "model.name: uniform draws numbers, model.name takes text; "
     "say choice"),
    ("tricks.zero_gamma={kind: randint, low: 0, high: 1}", "tricks.zero_gamma: randint draws numbers, "
     "tricks.zero_gamma takes true or false; say choice"),
    ("data.crop_scale={kind: uniform, low: 0.1, high: 1}", "data.crop_scale: uniform draws numbers, data.crop_scale "
     "takes a list; say choice"),
    ("model.norm={kind: uniform, low: 0, high: 1}", "model.norm: uniform draws numbers, model.norm takes one of "
     "batch, group; say choice"),
    # rules between settings
    ("optimizer.momentum=[0, 0.9]", "optimizer.momentum.values[0]: nesterov needs momentum > 0, got momentum 0; "
     "set nesterov=false"),
    ("tricks.warmup.epochs={kind: uniform, low: 1, high: 200}", "tricks.warmup.epochs.high: tricks.warmup.epochs must "
     "be less than recipe.epochs (120), got 200; shorten the warmup or train longer"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "line"), WRONG, ids=[row[0][:80] for row in WRONG])
def test_wrong_space_gives_key_rule_value_and_remedy(override, line):
    assert problem(override) == line


@pytest.mark.parametrize(
    "key",
    ["name", "output_dir", "workers", "changes", "tune.num_trials", "tune.space", "hardware.precision", "hardware",
     "checkpoint.keep", "logging.every_steps", "data.path", "data.source", "data.val_fraction", "data.channels",
     "data.augmentation_seed"],
)  # fmt: skip
def test_setting_that_does_not_belong_to_the_recipe_is_not_searched(key):
    assert problem(f"{key}=[1, 2]").startswith(f"tune.space: {key} cannot be searched: ")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("data.augmentation", "[none, shift]"),
        ("data.shift_pixels", "{kind: randint, low: 0, high: 4}"),
        ("data.crop_aspect", "[[1, 1], [0.5, 2]]"),
        ("data.horizontal_flip", "[true, false]"),
        ("data.normalization", "[dataset, imagenet]"),
        ("data.image_size", "{kind: quniform, low: 32, high: 64, q: 16, also: [null]}"),
    ],
)
def test_setting_of_the_images_can_be_searched(key, text):
    assert drawn(key, text)


def test_bounds_are_checked_with_the_settings_of_the_config():
    space = "tune.space.optimizer.momentum=[0, 0.9]"
    assert load_config(None, [space, "optimizer.nesterov=false"]).config.tune.space
    assert load_config(None, ["tune.space.tricks.warmup.epochs=[1, 200]", "recipe.epochs=300"]).config.tune.space
    # a config that is wrong by itself is reported once, for its own setting
    assert problems(None, [f"tune.space.{ALPHA}=[0, 1]", "tricks.warmup.epochs=200"]) == [
        "command line: tricks.warmup.epochs must be less than recipe.epochs (120), got 200; shorten the warmup or "
        "train longer"
    ]


def test_all_problems_of_a_space_and_of_the_settings_are_reported_at_once(config_file):
    path = config_file(
        "seed: -1\n"
        "tune:\n"
        "  num_trials: 0\n"
        "  retrain_seed: 3\n"
        "  space:\n"
        "    tricks.mixup.alpha:\n"
        "      kind: uniform\n"
        "      low: -1\n"
        "      high: 11\n"
        "      alos: [0]\n"
        "    recipe.global_batch_size: [64, 0, 1.5]\n"
        "    recipe.epochs: [1]\n"
        "    recipe.base_lr:\n"
        "    model:\n"
    )
    assert sorted(problems(path, ["tune.space.lr=[1]"])) == [
        "command line: tune.space: unknown key lr; did you mean recipe.base_lr or tricks.lr_scaling?",
        "x.yaml:10: tune.space.tricks.mixup.alpha: uniform has no alos, only low, high, also; did you mean also?",
        "x.yaml:11: tune.space.recipe.global_batch_size.values[1]: must be >= 1, got 0",
        "x.yaml:11: tune.space.recipe.global_batch_size.values[2]: must be a whole number, got 1.5",
        "x.yaml:12: tune.space: recipe.epochs cannot be searched: every trial gets the same epochs, or the longest "
        "would win",
        "x.yaml:1: seed: must be >= 0, got -1",
        "x.yaml:3: tune.num_trials: must be >= 1, got 0",
        "x.yaml:4: unknown key tune.retrain_seed; did you mean tune.retrain_seeds?",
        "x.yaml:8: tune.space.tricks.mixup.alpha.low: must be >= 0, got -1",
        "x.yaml:9: tune.space.tricks.mixup.alpha.high: must be <= 10, got 11",
    ]


def test_key_said_twice_in_one_layer_is_an_error(config_file):
    path = config_file(f"tune:\n  space:\n    {ALPHA}: [0]\n    tricks.mixup: {{alpha: {{kind: grid}}}}\n")
    assert problems(path) == [f"x.yaml:4: tune.space.{ALPHA} is set twice"]
    assert "set twice" in problem(f"{ALPHA}=[0]", f"{ALPHA}=[1]")


@pytest.mark.parametrize("space", ["3", "[1, 2]", "text"])
def test_space_that_maps_nothing_is_an_error(space):
    (line,) = problems(None, [f"tune.space={space}"])
    assert line.startswith("command line: tune.space: maps config keys to how they are drawn, got ")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ([f"tune.space.{ALPHA}={{kind: uniform, low: 0, high: 1}}", "tune.sampler=grid"],
         f"tune: sampler grid tries every value, tune.space.{ALPHA} is a range; list values instead or set "
         "sampler=random"),
        ([f"tune.space.{ALPHA}={{kind: grid, values: [0, 1]}}", "tune.scheduler=pbt"],
         f"tune: scheduler pbt changes settings while trials train, tune.space.{ALPHA} is a grid; say choice or set "
         "scheduler=asha"),
        (["tune.sampler=grid", "tune.scheduler=pbt"],
         "tune: scheduler pbt changes settings while trials train, sampler grid keeps them; set scheduler=asha or "
         "sampler=random"),
    ],
)  # fmt: skip
def test_sampler_or_scheduler_that_does_not_suit_the_space_is_an_error(overrides, line):
    assert problems(None, overrides) == [f"command line: {line}"]


def test_rule_between_sampler_and_space_names_both_places(config_file):
    path = config_file(f"tune.space: {{{ALPHA}: {{kind: uniform, low: 0, high: 1}}}}\n")
    (line,) = problems(path, ["tune.sampler=grid"])
    assert line.startswith("x.yaml:1 and command line: tune: ") or line.startswith("command line and x.yaml:1: tune: ")


def test_shown_space_loads_again_and_names_the_source_of_each_key(config_file):
    path = config_file(f"tune.space:\n  {ALPHA}: [0, 0.2]\n")
    loaded = load_config(path, [f"tune.space.{BATCH}={{kind: randint, low: 1, high: 9}}"])
    text = show(loaded)
    assert [" ".join(line.split()) for line in text.splitlines() if ALPHA in line or BATCH in line] == [
        f"{ALPHA}: [0.0, 0.2] # x.yaml:2",
        f"{BATCH}: {{kind: randint, low: 1, high: 9}} # command line",
    ]
    assert load_config(config_file(text)).config == loaded.config
    assert load_config(config_file(dump_yaml(loaded.config))).config == loaded.config


def test_space_survives_json_with_its_types():
    space = {
        ALPHA: LogUniform(low=0.1, high=1, also=[0.0]),
        BATCH: [64, 128],
        "data.crop_scale": [[0.1, 1.0]],
        "recipe.clip_norm": [1.0, None],
        "tricks.zero_gamma": [True, False],
        "model.name": ["resnet8"],
    }
    config = load_config(None, {"tune.space": space}).config
    assert repr(ExperimentConfig.model_validate_json(config.model_dump_json())) == repr(config)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (lambda: Uniform(low=2, high=1), "low must be < high"),
        (lambda: LogUniform(low=-1, high=1), "must be > 0, got -1"),
        (lambda: RandInt(low=1.5, high=3), "integer"),  # pyright: ignore[reportArgumentType]
        (lambda: Choice(values=()), "values is empty"),
        (lambda: Grid(values=(1, 2, 1)), "more than once"),
    ],
)
def test_distribution_made_in_python_keeps_its_rules(kind, message):
    with pytest.raises(ValueError, match=message):
        kind()


def test_true_and_one_are_different_values():
    assert Choice(values=(True, 1, False, 0)).values == (True, 1, False, 0)


def test_json_schema_describes_distributions_and_lists():
    schema = json_schema()
    items = schema["$defs"]["TuneConfig"]["properties"]["space"]["additionalProperties"]  # type: ignore[index]
    assert {"type": "array"}.items() <= next(part for part in items["anyOf"] if "type" in part).items()
    assert schema["$defs"]["LogUniform"]["required"] == ["low", "high"]  # type: ignore[index]


# -- settings of a part that is chosen by name ---------------------------------------------


LOW_HIGH = {"low": 1e-8, "high": 1e-3}


def test_space_holds_the_settings_of_the_chosen_optimizer():
    space = {"optimizer.betas": [[0.5, 0.6], [0.9, 0.99]], "optimizer.epsilon": {"kind": "loguniform"} | LOW_HIGH}
    config = load_config(None, {"optimizer.name": "lamb", "tune.space": space}).config
    assert config.tune.space == {
        "optimizer.betas": Choice(values=((0.5, 0.6), (0.9, 0.99))),
        "optimizer.epsilon": LogUniform(**LOW_HIGH),
    }
    with pytest.raises(ConfigError, match=r"tune.space.optimizer.betas.values\[0\]\[1\]: must be < 1, got 2"):
        load_config(None, {"optimizer.name": "lamb", "tune.space": {"optimizer.betas": [[0.5, 2]]}})


def test_space_of_another_optimizers_setting_is_one_line():
    assert problem("optimizer.trust_coefficient=[0.1]") == (
        "tune.space: optimizer.trust_coefficient is a setting of lars, optimizer.name is sgd; leave it out or set "
        "optimizer.name=lars"
    )


def test_space_of_the_optimizers_themselves_checks_each_with_its_own_rules():
    space = {"tune.space.optimizer.name": ["sgd", "lars"]}
    assert load_config(None, space).config.tune.space == {"optimizer.name": Choice(values=("sgd", "lars"))}
    (line,) = problems(None, space | {"optimizer.weight_decay": 0.0, "optimizer.momentum": 0.8})
    assert line.startswith("overrides: tune.space.optimizer.name.values[1]: lars scales the layers that decay, got ")
