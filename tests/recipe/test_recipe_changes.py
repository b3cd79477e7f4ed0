"""Changes in the course of a run: which are allowed, the config of each epoch, steps and lr by hand."""

from fnmatch import fnmatchcase
import math

import pytest

from raytricks.config import ExperimentConfig, dotted_keys, dump_yaml, flatten, load_config
from raytricks.config.changes import changeable, changeable_keys, changed_config
from raytricks.config.schema import Change
from raytricks.config.schemas import schema_for
from raytricks.errors import ConfigError, DataError
from raytricks.recipe.phases import config_at, epoch_ends, make_phases
from raytricks.recipe.recipe import make_recipe

BASE = {
    "data.source": "digits",
    "data.shift_pixels": 1,
    "recipe.epochs": 10,
    "recipe.global_batch_size": 16,
    "recipe.base_lr": 0.1,
    "tricks.warmup.epochs": 2.0,
}
CAN = f"these can: {', '.join(changeable())}"
KNOWN = f"these can change: {', '.join(changeable())}"


def config_of(*changes: tuple[int, dict], **base: object) -> ExperimentConfig:
    listed = [{"epoch": epoch, "values": values} for epoch, values in changes]
    dotted = {key.replace("__", "."): value for key, value in base.items()}
    return load_config(None, BASE | dotted | {"changes": listed}).config


def problems(*changes: tuple[int, dict], **base: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config_of(*changes, **base)
    assert all("\n" not in line for line in caught.value.problems)
    return [line.removeprefix("overrides: ") for line in caught.value.problems]


# -- the config of an epoch ---------------------------------------------------------------


def test_config_at_makes_all_changes_up_to_the_epoch():
    config = config_of((3, {"recipe.base_lr": 0.3, "data.crop_scale": [0.5, 1]}), (7, {"recipe.base_lr": 0.2}))
    rates = [config_at(config, epoch).recipe.base_lr for epoch in range(10)]
    assert rates == [0.1] * 3 + [0.3] * 4 + [0.2] * 3
    assert [config_at(config, epoch).data.crop_scale for epoch in (2, 3, 9)] == [(0.08, 1.0), (0.5, 1.0), (0.5, 1.0)]
    assert all(config_at(config, epoch).changes == () for epoch in range(10))
    assert config.recipe.base_lr == 0.1 and len(config.changes) == 2


def test_config_at_of_a_run_without_changes_is_its_config():
    config = config_of()
    assert config_at(config, 9) == config


OTHER_VALUES = {
    "recipe.base_lr": 0.2,
    "recipe.global_batch_size": 24,
    "recipe.clip_norm": 2.0,
    "optimizer.momentum": 0.5,
    "optimizer.weight_decay": 0.01,
    "tricks.label_smoothing.epsilon": 0.2,
    "tricks.mixup.alpha": 0.2,
    "tricks.mixup.off_epochs": 2,
    "tricks.cutmix.alpha": 1,
    "tricks.cutmix.off_epochs": 1,
    "tricks.color_jitter.brightness": 0.4,
    "tricks.color_jitter.saturation": 0.4,
    "tricks.color_jitter.hue": 0.4,
    "tricks.color_jitter.pca_std": 0.1,
    "tricks.trivial_augment": True,
    "tricks.rand_augment.operations": 2,
    "tricks.rand_augment.magnitude": 5,
    "tricks.random_erasing.probability": 0.5,
    "tricks.random_erasing.area": [0.1, 0.2],
    "tricks.random_erasing.aspect": [1, 2],
    "tricks.distillation.temperature": 4.0,
    "tricks.distillation.hard_weight": 0.1,
    "tricks.distillation.soft_weight": 0.9,
    "data.shift_pixels": 2,
    "data.crop_scale": [0.5, 1.0],
    "data.crop_aspect": [1.0, 1.0],
    "data.horizontal_flip": False,
}


OF_OPTIMIZERS = {
    "sgd": {"optimizer.momentum": 0.5},
    "lars": {"optimizer.momentum": 0.5, "optimizer.trust_coefficient": 0.01},
    "lamb": {"optimizer.betas": [0.5, 0.6], "optimizer.epsilon": 1e-3},
    "adamw": {"optimizer.betas": [0.5, 0.6], "optimizer.epsilon": 1e-3},
    "muon": {"optimizer.momentum": 0.5},
}


@pytest.mark.parametrize("name", OF_OPTIMIZERS)
def test_changeable_keys_are_all_known_here(name):
    schema = schema_for({"optimizer.name": name})
    assert set(changeable_keys(schema)) == set(OTHER_VALUES) - {"optimizer.momentum"} | set(OF_OPTIMIZERS[name])
    assert all(any(fnmatchcase(key, pattern) for key in dotted_keys(schema)) for pattern in changeable(schema))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        *(("sgd", key, value) for key, value in OTHER_VALUES.items()),
        *((name, key, value) for name, values in OF_OPTIMIZERS.items() for key, value in values.items()),
    ],
)
def test_change_of_one_key_leaves_the_others(name, key, value):
    config = config_of(optimizer__name=name)
    before, after = flatten(config), flatten(changed_config(config, {key: value}))
    assert [k for k in before if before[k] != after[k]] == [key]
    assert after[key] == (tuple(value) if isinstance(value, list) else value)
    assert type(after[key]) is type(before[key]) or before[key] is None


# -- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize("key", sorted(set(dotted_keys()) - set(OTHER_VALUES)))
def test_change_of_any_other_key_is_refused(key):
    assert problems((3, {key: 1})) == [f"changes[0]: {key} cannot change in the course of a run; {CAN}"]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"tricks.mixup.alfa": 1},
            f"unknown key tricks.mixup.alfa; did you mean tricks.mixup.alpha or tricks.cutmix.alpha?; {KNOWN}",
        ),
        ({"lr": 1}, f"unknown key lr; did you mean recipe.base_lr?; {KNOWN}"),
        ({"zzz": 1}, f"unknown key zzz; {KNOWN}"),
        ({"recipe.base_lr": 0}, "recipe.base_lr: must be > 0, got 0"),
        ({"recipe.base_lr": "1e-3"}, "recipe.base_lr: must be a number, got '1e-3'; write 0.001"),
        ({"recipe.base_lr": math.nan}, "recipe.base_lr: must be a finite number, got nan"),
        ({"recipe.global_batch_size": 8.0}, "recipe.global_batch_size: must be a whole number, got 8.0; write 8"),
        (
            {"optimizer.trust_coefficient": 0.1},
            "optimizer.trust_coefficient is a setting of lars, optimizer.name is sgd; leave it out or set "
            "optimizer.name=lars",
        ),
        ({"tricks.trivial_augment": 1}, "tricks.trivial_augment: must be true or false, got 1"),
        ({"data.crop_scale": [0.1]}, "data.crop_scale: needs at least 2 values, got [0.1]"),
        (
            {"data.crop_scale": [0.5, 0.1]},
            "data: crop_scale must be [low, high] with low <= high <= 1, got [0.5, 0.1]",
        ),
        (
            {"data.shift_pixels": None},
            "data.shift_pixels: must be a value, got null; what is chosen from the data stays as it was at the start",
        ),
        (
            {"optimizer.momentum": 0.0},
            "optimizer: nesterov needs momentum > 0, got momentum 0; set nesterov=false",
        ),
        (
            {"tricks.mixup.off_epochs": 11},
            "tricks.mixup.off_epochs must be at most recipe.epochs (10), got 11",
        ),
    ],
)
def test_change_to_a_wrong_value_is_one_line(values, line):
    assert problems((3, values)) == [f"changes[0]: {line}"]


def test_change_to_a_wrong_value_of_the_chosen_optimizer_is_one_line():
    line = "changes[0]: optimizer.betas[1]: must be < 1, got 1.5"
    assert problems((3, {"optimizer.betas": [0.1, 1.5]}), optimizer__name="lamb") == [line]


def test_change_is_checked_beside_the_changes_before():
    changes = (2, {"tricks.distillation.temperature": 4.0}), (4, {"tricks.mixup.alpha": 0.2})
    cached = {"tricks__distillation__teacher": "t", "tricks__distillation__cache_dir": "c"}
    assert problems(*changes, **cached) == [
        "changes[1]: tricks.distillation.cache_dir holds the teacher's logits of single images, tricks.mixup.alpha "
        "blends each with a neighbour that depends on the batch; leave one of them out"
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [("data.horizontal_flip", False), ("tricks.trivial_augment", True), ("tricks.random_erasing.probability", 0.5)],
)
def test_change_of_images_is_refused_where_the_teacher_remembers_them(key, value):
    teacher = {"tricks__distillation__teacher": "t"}
    assert problems((2, {key: value}), **teacher, tricks__distillation__cache_dir="c") == [
        f"changes[0]: {key} cannot change while tricks.distillation.cache_dir keeps the teacher's logits of the "
        "images; leave one of them out"
    ]
    config_of((2, {key: value}), **teacher)
    config_of((2, {"data.horizontal_flip": True}), **teacher, tricks__distillation__cache_dir="c")  # as it was


@pytest.mark.parametrize(
    ("epochs", "lines"),
    [
        ((10,), ["changes[0]: epoch must be less than recipe.epochs (10), got 10; change earlier or train longer"]),
        (
            (4, 4, 3),
            [
                "changes[1]: epoch must be greater than that of the change before (4), got 4; put them in order",
                "changes[2]: epoch must be greater than that of the change before (4), got 3; put them in order",
            ],
        ),
        ((0,), ["changes[0].epoch: must be >= 1, got 0"]),
        ((2.0,), ["changes[0].epoch: must be a whole number, got 2.0; write 2"]),
    ],
)
def test_change_epochs_must_rise_within_the_run(epochs, lines):
    assert problems(*[(epoch, {"recipe.base_lr": 0.2}) for epoch in epochs]) == lines


FORM = "{epoch: 4, values: {recipe.base_lr: 0.3}}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("changes: 5", f"changes: must be a list of {FORM}, got 5"),
        ("changes: [5]", f"changes[0]: a change is {FORM}, got 5"),
        ("changes: [{epoch: 1}]", f"changes[0]: a change is {FORM}, got {{epoch: 1}}"),
        ("changes: [{epoch: 1, values: 3}]", f"changes[0]: a change is {FORM}, got 3"),
        ("changes: [{epoch: 1, value: 3, values: {}}]", f"changes[0].value: unknown key; a change is {FORM}"),
        (
            "changes:\n  - {epoch: 1, values: {seed: 1}}",
            f"changes[0]: seed cannot change in the course of a run; {CAN}",
        ),
    ],
)
def test_changes_of_another_form_are_one_line_with_the_place(tmp_path, monkeypatch, text, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(f"seed: 1\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load_config("x.yaml")
    assert caught.value.problems == [f"x.yaml:2: {line}"]


def test_all_problems_of_changes_are_reported_at_once():
    found = problems((3, {"seed": 1, "recipe.base_lr": 0}), (3, {"optimizer.momentum": 2}))
    assert [line.partition(":")[0] for line in found] == ["changes[0]", "changes[1]", "changes[1]"]


def test_changes_made_in_python_are_checked_when_they_are_used():
    config = config_of().model_copy(update={"changes": (Change(epoch=2, values={"recipe.epochs": 3}),)})
    assert config_at(config, 1).recipe.epochs == 10
    with pytest.raises(ConfigError, match=r"^changes\[0\]: recipe.epochs cannot change"):
        config_at(config, 2)
    with pytest.raises(ConfigError, match=r"^changes\[0\]: recipe.epochs cannot change"):
        make_phases(config, 100)


# -- files --------------------------------------------------------------------------------


def test_changes_round_trip_through_yaml_and_json(tmp_path):
    config = config_of(
        (1, {"recipe.base_lr": 1, "data.crop_scale": (0.25, 1), "recipe.clip_norm": None}),
        (5, {}),
        (9, {"tricks.trivial_augment": True, "optimizer.epsilon": 1e-9}),
        optimizer__name="lamb",
    )
    (tmp_path / "x.yaml").write_text(dump_yaml(config))
    assert repr(load_config(tmp_path / "x.yaml").config) == repr(config)
    assert type(config).model_validate_json(config.model_dump_json()) == config
    assert "changes: []\n" in dump_yaml(config_of())


def test_changes_are_read_like_other_values(tmp_path):
    text = "changes:\n- {epoch: 4, values: {tricks.mixup.alpha: 1e-1, data.crop_scale: [0.5, 1]}}\n"
    (tmp_path / "x.yaml").write_text(text)
    config = config_at(load_config(tmp_path / "x.yaml").config, 4)
    assert (config.tricks.mixup.alpha, config.data.crop_scale) == (0.1, (0.5, 1.0))
    override = "changes=[{epoch: 4, values: {tricks.mixup.alpha: 1e-1, data.crop_scale: [0.5, 1]}}]"
    assert config_at(load_config(None, [override]).config, 4) == config


# -- steps and learning rates -------------------------------------------------------------


def test_phases_count_steps_by_hand():
    config = config_of((3, {"recipe.global_batch_size": 24}), (7, {"recipe.global_batch_size": 100}))
    phases = make_phases(config, 100)
    recipes = [phase.recipe for phase in phases]
    assert [r.steps_per_epoch for r in recipes] == [6, 4, 1]  # 100 // 16, 100 // 24, 100 // 100
    assert [(r.first_epoch, r.first_step) for r in recipes] == [(0, 0), (3, 18), (7, 34)]
    assert [(s.end_epoch, s.end_step) for s in phases] == [(3, 18), (7, 34), (10, 37)]
    assert epoch_ends(phases) == [6, 12, 18, 22, 26, 30, 34, 35, 36, 37]
    assert [recipes[1].epoch_of(step) for step in (19, 22, 23, 34)] == [3, 3, 4, 6]
    assert [step for step in range(19, 35) if recipes[1].ends_epoch(step)] == [22, 26, 30, 34]
    assert [recipes[1].steps_before(epoch) for epoch in (3, 4, 7)] == [18, 22, 34]


@pytest.mark.parametrize(("scaling", "factor"), [("linear", 24 / 256), ("sqrt", math.sqrt(24 / 256)), ("none", 1.0)])
@pytest.mark.parametrize("epoch", [1, 3])
def test_phase_lr_goes_on_along_the_changed_curve(scaling, factor, epoch):
    config = config_of((epoch, {"recipe.global_batch_size": 24, "recipe.base_lr": 0.4}), tricks__lr_scaling=scaling)
    recipe = make_phases(config, 100)[1].recipe  # 4 steps an epoch, warmup of 8 steps, 40 in all
    for made in range(4 * (10 - epoch)):
        position = 4 * epoch + made  # updates that a run with this batch would have made
        warmup = min(1, (position + 1) / 8)
        decay = (1 + math.cos(math.pi * max(position - 8, 0) / 32)) / 2
        assert recipe.lr(6 * epoch + made + 1) == pytest.approx(0.4 * factor * warmup * decay, rel=1e-12)


def test_phase_lr_of_a_milestone_falls_at_the_same_epoch():
    step_decay = {"tricks__decay__kind": "step", "tricks__decay__milestones": (0.5,), "tricks__lr_scaling": "none"}
    recipe = make_phases(config_of((3, {"recipe.global_batch_size": 24}), **step_decay), 100)[1].recipe
    assert [recipe.lr(step) for step in (18 + 8, 18 + 9)] == pytest.approx([0.1, 0.01])  # after two more epochs


def test_phase_without_changes_is_the_recipe():
    config = config_of()
    (phase,) = make_phases(config, 100)
    assert phase.recipe == make_recipe(config, 100)
    assert phase.config == config and phase.end_step == phase.recipe.total_steps == 60


def test_phase_landmarks_are_those_of_its_curve():
    config = config_of((3, {"recipe.base_lr": 0.2}))
    changed = make_phases(config, 100)[1].recipe.as_dict()
    assert changed["lr_at"] == make_recipe(config_at(config, 3), 100).as_dict()["lr_at"]
    assert (changed["first_epoch"], changed["first_step"]) == (3, 18)


def test_phase_batch_larger_than_the_data_is_refused():
    with pytest.raises(DataError, match=r"^changes\[1\]: recipe.global_batch_size is 101, .*use at most 100$"):
        make_phases(config_of((1, {}), (3, {"recipe.global_batch_size": 101})), 100)
