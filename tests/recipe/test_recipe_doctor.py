"""Each rule of the doctor: the settings that trip it alone, and the nearest ones that do not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from raytricks.config import dotted_keys, load_config
from raytricks.data.loading import find_data
from raytricks.errors import ConfigError
from raytricks.recipe.doctor import Finding, TeacherFacts, diagnose, refuse, rules_of, teacher_facts
from raytricks.recipe.recipe import make_recipe
from raytricks.recipe.resolve import DatasetStats, preset_for, resolve_config, stats_of

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
CODES = [rule.__name__.replace("_", "-") for rule in rules_of()]
CLASSES = tuple("abc")


def named(name: str) -> DatasetStats:
    return DatasetStats(name, 51_200, 10, 32, True, False)


def counted(*class_counts: int) -> DatasetStats:
    return DatasetStats("tiles", 51_200, len(class_counts), 32, True, False, class_counts)


TILES = named("tiles")
PHOTOS = DatasetStats("photos", 51_200, 10, 375, False, False)
IMAGENET = DatasetStats("imagenet", 1_281_167, 1000, 375, False, False)
DISTIL = {"tricks.distillation.teacher": "runs/teacher"}
TEACHER = TeacherFacts(CLASSES, 0.0)
SMOOTHED = TeacherFacts(CLASSES, 0.1)


def findings_of(settings: dict[str, Any], stats: DatasetStats = TILES, **machine: Any) -> list[Finding]:
    """Diagnose the defaults with some settings changed, on a GPU unless `machine` says otherwise."""
    config, _ = resolve_config(load_config(None, settings).config, stats)
    machine = {"device_type": "cuda", "precision": "bf16", "class_names": CLASSES} | machine
    return diagnose(config, stats, make_recipe(config, stats.num_train), **machine)


FEW = DatasetStats("few", 90, 3, 32, True, False)
LARS_OF_8K = {"stats": IMAGENET, "recipe.global_batch_size": 8192, "optimizer.name": "lars"}
LAMB_OF_2048 = {"optimizer.name": "lamb", "recipe.global_batch_size": 2048, "recipe.base_lr": 0.01}
DECAY = {"optimizer.weight_decay": 0.01}

# code: (settings that trip it, the nearest that do not); keys without a dot go to findings_of
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "sync-bn-zero-gamma",
        {"tricks.sync_batch_norm": True, "workers": 2},
        {"tricks.sync_batch_norm": True, "workers": 2, "tricks.zero_gamma": False},
    ),
    ("sync-bn-zero-gamma", {"tricks.sync_batch_norm": True, "workers": 2}, {"workers": 2}),
    (
        "sync-bn-idle",
        {"tricks.sync_batch_norm": True, "workers": 1, "tricks.zero_gamma": False},
        {"tricks.sync_batch_norm": True, "workers": 2, "tricks.zero_gamma": False},
    ),
    (
        "sync-bn-idle",
        {"tricks.sync_batch_norm": True, "workers": 2, "model.norm": "group"},
        {"workers": 2, "model.norm": "group"},
    ),
    (
        "batch-norm-few-images",
        {"recipe.global_batch_size": 31, "workers": 4},
        {"recipe.global_batch_size": 32, "workers": 4},
    ),
    (
        "batch-norm-few-images",
        {"recipe.global_batch_size": 36, "hardware.images_per_device": 8},  # 7, 7, 7, 7 and 8
        {"recipe.global_batch_size": 40, "hardware.images_per_device": 8},
    ),
    (
        "batch-norm-few-images",
        {"recipe.global_batch_size": 4},
        {"recipe.global_batch_size": 4, "model.norm": "group"},
    ),
    (
        "batch-norm-few-images",
        {"recipe.global_batch_size": 4},
        {"recipe.global_batch_size": 4, "model.name": "torchvision:vit_b_16"},
    ),
    (
        "batch-norm-few-images",
        {"recipe.global_batch_size": 8, "workers": 2},
        {
            "recipe.global_batch_size": 8,
            "workers": 2,
            "tricks.sync_batch_norm": True,
            "tricks.zero_gamma": False,
        },
    ),
    ("elastic-batch-norm", {"workers": (1, 2)}, {"workers": 2}),
    ("elastic-batch-norm", {"workers": (1, 2)}, {"workers": (1, 2), "model.norm": "group"}),
    ("double-smoothing", DISTIL | {"teacher": SMOOTHED}, DISTIL | {"teacher": TEACHER}),
    ("double-smoothing", DISTIL | {"teacher": SMOOTHED}, {"teacher": SMOOTHED}),
    ("double-smoothing", DISTIL | {"teacher": SMOOTHED}, DISTIL | {"teacher": TeacherFacts(CLASSES, None)}),
    (
        "double-smoothing",
        DISTIL | {"teacher": SMOOTHED},
        DISTIL | {"teacher": SMOOTHED, "tricks.label_smoothing.epsilon": 0.0},
    ),
    (
        "teacher-classes",
        DISTIL | {"teacher": TEACHER, "class_names": ("b", "a", "c")},
        DISTIL | {"teacher": TEACHER, "class_names": ("a", "b", "c")},
    ),
    ("teacher-classes", DISTIL | {"teacher": TEACHER, "class_names": ("a", "b")}, DISTIL | {"class_names": ("a", "b")}),
    (
        "low-temperature",
        DISTIL | {"tricks.distillation.temperature": 0.99},
        DISTIL | {"tricks.distillation.temperature": 1.0},
    ),
    (
        "low-temperature",
        DISTIL | {"tricks.distillation.temperature": 0.5},
        {"tricks.distillation.temperature": 0.5},
    ),
    (
        "mixup-short-schedule",
        {"tricks.mixup.alpha": 0.2, "recipe.epochs": 99},
        {"tricks.mixup.alpha": 0.2, "recipe.epochs": 100},
    ),
    (
        "mixup-short-schedule",
        {"tricks.cutmix.alpha": 1.0, "recipe.epochs": 99},
        {"tricks.cutmix.alpha": 0.0, "recipe.epochs": 99},
    ),
    (
        "mixup-never-on",
        {"tricks.mixup.alpha": 0.2, "tricks.mixup.off_epochs": 120},
        {"tricks.mixup.alpha": 0.2, "tricks.mixup.off_epochs": 119},
    ),
    (
        "mixup-never-on",
        {"tricks.cutmix.alpha": 1.0, "tricks.cutmix.off_epochs": 60, "recipe.epochs": 60},  # and not the short one
        {"tricks.cutmix.alpha": 0.0, "tricks.cutmix.off_epochs": 60, "recipe.epochs": 60},
    ),
    (
        "warmup-long",
        {"recipe.epochs": 40, "tricks.warmup.epochs": 4.01},
        {"recipe.epochs": 40, "tricks.warmup.epochs": 4.0},
    ),
    (
        "warmup-long",
        {"recipe.epochs": 40, "recipe.global_batch_size": 1024},
        {"recipe.epochs": 40, "recipe.global_batch_size": 2048, "optimizer.name": "lars", "recipe.base_lr": 5.0},
    ),
    (
        "warmup-missing",
        {"tricks.warmup.epochs": 0.0, "recipe.global_batch_size": 1024},
        {"tricks.warmup.epochs": 0.0, "recipe.global_batch_size": 1023},
    ),
    (
        "warmup-missing",
        {"tricks.warmup.epochs": 0.0, "recipe.global_batch_size": 1024},
        {"tricks.warmup.epochs": 0.1, "recipe.global_batch_size": 1024},
    ),
    ("weight-decay-range", {"optimizer.weight_decay": 1.01e-3}, {"optimizer.weight_decay": 1e-3}),
    ("weight-decay-range", {"optimizer.weight_decay": 0.99e-5}, {"optimizer.weight_decay": 1e-5}),
    ("weight-decay-range", {"optimizer.weight_decay": 1e-9}, {"optimizer.weight_decay": 0.0}),
    (
        "weight-decay-range",
        LAMB_OF_2048,  # sgd's decay of 1e-4
        LAMB_OF_2048 | {"optimizer.weight_decay": 1e-3},
    ),
    (
        "lr-not-following-batch",
        {"tricks.lr_scaling": "none", "recipe.global_batch_size": 257},
        {"tricks.lr_scaling": "none", "recipe.global_batch_size": 256},
    ),
    (
        "lr-not-following-batch",
        {"tricks.lr_scaling": "none", "recipe.global_batch_size": 128},
        {"tricks.lr_scaling": "sqrt", "recipe.global_batch_size": 128},
    ),
    ("batch-of-data", {"recipe.global_batch_size": 5121}, {"recipe.global_batch_size": 5120}),
    (
        "batch-of-data",
        {"stats": FEW, "recipe.global_batch_size": 17},
        {"stats": FEW, "recipe.global_batch_size": 16},
    ),
    (
        "large-batch-sgd",
        {"stats": IMAGENET, "recipe.global_batch_size": 8193},
        {"stats": IMAGENET, "recipe.global_batch_size": 8192},
    ),
    (
        "large-batch-sgd",
        {"stats": IMAGENET, "recipe.global_batch_size": 16384},
        {"stats": IMAGENET, "recipe.global_batch_size": 16384, "optimizer.name": "lars", "recipe.base_lr": 0.5},
    ),
    ("layerwise-lr", LARS_OF_8K | {"recipe.base_lr": 5.0}, LARS_OF_8K | {"recipe.base_lr": 0.3125}),  # 160, 10
    ("layerwise-lr", LARS_OF_8K | {"recipe.base_lr": 0.015}, LARS_OF_8K | {"recipe.base_lr": 0.016}),
    ("layerwise-lr", LAMB_OF_2048 | DECAY | {"recipe.base_lr": 0.1}, LAMB_OF_2048 | DECAY),
    (  # in a later phase of the run
        "layerwise-lr",
        LAMB_OF_2048 | DECAY | {"changes": [{"epoch": 4, "values": {"recipe.base_lr": 0.1}}]},
        LAMB_OF_2048 | DECAY | {"changes": [{"epoch": 4, "values": {"recipe.base_lr": 0.005}}]},
    ),
    ("lars-small-batch", LAMB_OF_2048 | DECAY | {"recipe.global_batch_size": 2047}, LAMB_OF_2048 | DECAY),
    (  # 128 steps an epoch; 1/(1 - decay) = 2,048 is a fifth of 80 epochs
        "ema-too-slow",
        {"tricks.ema.decay": 1 - 2**-11, "recipe.global_batch_size": 400, "recipe.epochs": 79},
        {"tricks.ema.decay": 1 - 2**-11, "recipe.global_batch_size": 400, "recipe.epochs": 80},
    ),
    (
        "imagenet-stem-small-images",
        {"model.stem": "imagenet", "data.image_size": 64},
        {"model.stem": "imagenet", "data.image_size": 65},
    ),
    ("imagenet-stem-small-images", {"model.stem": "imagenet"}, {"model.stem": "small_stride2"}),
    (
        "imagenet-stem-small-images",
        {"model.name": "torchvision:wide_resnet50_2"},
        {"model.name": "torchvision:mobilenet_v3_small"},
    ),
    (
        "imagenet-stem-small-images",
        {"model.name": "timm:resnext50_32x4d"},
        {"model.name": "timm:resnext50_32x4d", "stats": PHOTOS},
    ),
    (
        "pretrained-normalization",
        {"stats": PHOTOS, "model.name": "torchvision:resnet18", "model.pretrained": True},
        {
            "stats": PHOTOS,
            "model.name": "torchvision:resnet18",
            "model.pretrained": True,
            "data.normalization": "imagenet",
        },
    ),
    (
        "pretrained-normalization",
        {"stats": PHOTOS, "model.name": "torchvision:resnet18", "model.init_from": "resnet18-f37072fd.pth"},
        {"stats": PHOTOS, "model.name": "torchvision:resnet18", "model.init_from": "runs/a"},
    ),
    (
        "pretrained-normalization",
        {"stats": PHOTOS, "model.name": "timm:resnet18", "model.init_from": "w.pth"},
        {"stats": PHOTOS, "model.name": "resnet18", "model.init_from": "w.pth"},
    ),
    (
        "pretrained-normalization",
        {"model.name": "timm:tf_efficientnet_lite0", "model.init_from": "w.pth", "data.normalization": "imagenet"},
        {"model.name": "timm:tf_efficientnet_lite0", "model.init_from": "w.pth", "data.normalization": "inception"},
    ),
    (
        "pretrained-normalization",
        {"model.name": "timm:vit_base_patch32_clip_224", "model.pretrained": True, "data.normalization": "imagenet"},
        {"model.name": "timm:vit_base_patch32_clip_224", "model.pretrained": True, "data.normalization": "clip"},
    ),
    ("mirrored-digits", {"stats": named("MNIST")}, {"stats": named("fashion_mnist")}),
    ("mirrored-digits", {"stats": named("digits")}, {"stats": named("digits"), "data.horizontal_flip": False}),
    ("mirrored-digits", {"stats": named("emnist-letters")}, {"stats": named("dataset-fashion-mnist")}),
    ("mirrored-digits", {"stats": named("svhn_2")}, {"stats": named("svhn_2"), "data.augmentation": "none"}),
    ("mirrored-digits", {"stats": named("mnist")}, {"stats": named("pathmnist")}),
    ("mirrored-digits", {"class_names": tuple("0123456789")}, {"class_names": tuple("012345678")}),
    ("mirrored-digits", {"class_names": tuple("ABCDEFGHIJ")}, {"class_names": ("A1", *"BCDEFGHIJ")}),
    ("mirrored-classes", {"class_names": ("turn left", "turn right")}, {"class_names": ("turn left", "turn back")}),
    ("mirrored-classes", {"class_names": ("Left", "RIGHT")}, {"class_names": ("cleft", "cright")}),
    (
        "mirrored-classes",
        {"class_names": ("left_hand", "right_hand")},
        {"class_names": ("left_hand", "right_hand"), "data.horizontal_flip": False},
    ),
    ("class-imbalance", {"stats": counted(5000, 101, 0, 10, 0)}, {"stats": counted(5000, 500, 0)}),
    ("class-imbalance", {"stats": counted(240, 12)}, {"stats": counted(240, 12), "data.balanced_sampling": True}),
    ("class-imbalance", {"stats": counted(1001, 100)}, {"stats": counted(1000, 100)}),
    ("fp16-on-cpu", {"device_type": "cpu", "precision": "fp16"}, {"device_type": "cuda", "precision": "fp16"}),
    ("fp16-on-cpu", {"device_type": "cpu", "precision": "fp16"}, {"device_type": "cpu", "precision": "bf16"}),
    (
        "gradient-compression-idle",
        {"tricks.gradient_compression.kind": "powersgd", "workers": 1},
        {"tricks.gradient_compression.kind": "powersgd", "workers": 2},
    ),
    (
        "gradient-compression-idle",
        {"tricks.gradient_compression.kind": "fp16", "workers": 0},
        {"tricks.gradient_compression.kind": "none", "workers": 0},
    ),
]


def of_case(values: dict[str, Any]) -> list[Finding]:
    keys = dotted_keys()
    settings = {key: value for key, value in values.items() if key in keys}
    return findings_of(settings, **{key: value for key, value in values.items() if key not in keys})


@pytest.mark.parametrize(("code", "sick", "sound"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_doctor_rule_finds_exactly_its_case(code, sick, sound):
    found = of_case(sick)
    assert [finding.code for finding in found] == [code]
    assert found[0].key in dotted_keys()
    assert str(found[0]) == f"{code}: {found[0].reason}; {found[0].remedy}"
    assert "\n" not in str(found[0]) and len(str(found[0])) < 240
    assert of_case(sound) == []


def test_doctor_every_rule_has_a_case_and_a_row_in_the_docs():
    assert sorted(set(CODES)) == sorted(CODES)
    assert {code for code, _, _ in CASES} == set(CODES)
    rows = [
        line.split("`")[1] for line in (REPOSITORY / "docs/doctor.md").read_text().splitlines() if line[:3] == "| `"
    ]
    assert rows == CODES


def test_doctor_defaults_are_sound():
    for stats in (TILES, PHOTOS, IMAGENET):
        assert findings_of({}, stats) == []


def test_doctor_reports_all_that_is_wrong_in_the_order_of_the_rules():
    wrong = {"optimizer.weight_decay": 0.1, "workers": 2, "tricks.sync_batch_norm": True, "tricks.warmup.epochs": 30.0}
    found = [finding.code for finding in findings_of(wrong, device_type="cpu", precision="fp16")]
    assert found == ["sync-bn-zero-gamma", "warmup-long", "weight-decay-range", "fp16-on-cpu"]


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (("b", "a", "c"), "the teacher has the data's classes in another order"),
        (("a", "b"), "only the teacher has 'c'"),
        (("a", "b", "c", "d"), "only the data has 'd'"),
        (tuple("vwxyz"), "only the teacher has 'a', 'b', 'c' and only the data has 'v', 'w', 'x' and 2 more"),
    ],
)
def test_doctor_names_the_classes_that_differ(classes, reason):
    (found,) = findings_of(DISTIL, teacher=TEACHER, class_names=classes)
    assert found.reason == reason


def test_doctor_remedies_with_a_number_heal():
    """The value that a warning names is one that the doctor does not warn of."""
    batch = {"tricks.lr_scaling": "none", "recipe.global_batch_size": 512}
    assert "recipe.base_lr=0.05 would keep" in findings_of(batch)[0].remedy
    healed = load_config(None, {"recipe.global_batch_size": 512, "recipe.base_lr": 0.05}).config
    assert make_recipe(healed, 51_200).peak_lr == pytest.approx(0.1)
    for steps in (1, 7, 1000, 3_000_000):
        stats = DatasetStats("tiles", 8 * steps, 10, 32, True, False)
        settings = {"recipe.epochs": 1, "recipe.global_batch_size": 8, "tricks.warmup.epochs": 0.0}
        (found,) = findings_of(settings | {"tricks.ema.decay": 1 - 1e-9}, stats)
        decay = float(found.remedy.split("=")[1].split()[0])
        assert 0 <= decay < 1
        assert findings_of(settings | {"tricks.ema.decay": decay}, stats) == []
    long = {"recipe.epochs": 7, "tricks.warmup.epochs": 1.0}
    assert findings_of(long)[0].remedy == "set tricks.warmup.epochs to 0.7 or less"
    assert findings_of(long | {"tricks.warmup.epochs": 0.7}) == []


@pytest.mark.parametrize("epochs", [None, *range(1, 131)])
def test_doctor_finds_nothing_in_a_preset(epochs):
    for stats in (TILES, PHOTOS, IMAGENET, DatasetStats("few", 300, 3, 28, True, True)):
        assert findings_of(preset_for(stats, epochs), stats) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_doctor_finds_nothing_in_a_shipped_config(path):
    config = load_config(path).config
    if config.data.source == "digits":
        stats = stats_of(find_data(config.data, config.seed))
    elif config.data.source == "fashion_mnist":
        stats = DatasetStats("fashion_mnist", 60_000, 10, 28, True, True)
    else:
        stats = IMAGENET
    config, _ = resolve_config(config, stats)
    recipe = make_recipe(config, stats.num_train)
    for device_type, precision in (("cpu", "fp32"), ("cuda", "bf16")):
        assert diagnose(config, stats, recipe, device_type=device_type, precision=precision) == []


def test_doctor_refuses_all_findings_at_once():
    refuse([])
    found = [Finding("a-b", "recipe.epochs", "why", "what"), Finding("c-d", "seed", "how", "so")]
    with pytest.raises(ConfigError) as refused:
        refuse(found)
    assert refused.value.problems == ["a-b: why; what", "c-d: how; so"] and refused.value.exit_code == 2


def run_of(directory: Path, metadata: dict[str, str] | None, config: str | None) -> Path:
    """Write what teacher_facts reads of a run."""
    directory.mkdir()
    save_file({"w": np.zeros(1, np.float32)}, directory / "model.safetensors", metadata)
    if config is not None:
        (directory / "config.yaml").write_text(config)
    return directory


def test_doctor_reads_a_teachers_classes_and_smoothing(tmp_path):
    smoothed = "tricks: {label_smoothing: {epsilon: 0.2}}\n"
    run = run_of(tmp_path / "a", {"class_names": '["cat", "dog"]'}, smoothed)
    expected = TeacherFacts(("cat", "dog"), 0.2)
    assert teacher_facts(str(run)) == teacher_facts(str(run / "model.safetensors")) == expected
    assert teacher_facts(str(run_of(tmp_path / "b", {"class_names": '["cat"]'}, None))) == TeacherFacts(("cat",), None)
    broken = run_of(tmp_path / "c", {"class_names": '["cat"]'}, "tricks: 3\n")
    assert teacher_facts(str(broken)) == TeacherFacts(("cat",), None)


def test_doctor_knows_nothing_of_other_teachers(tmp_path):
    garbage = tmp_path / "weights.pth"
    garbage.write_bytes(b"no safetensors")
    for path in ("torchvision:resnet50", "timm:resnet18", "nowhere", str(tmp_path), str(garbage)):
        assert teacher_facts(path) is None
    assert teacher_facts(str(run_of(tmp_path / "a", None, None))) is None
    assert teacher_facts(str(run_of(tmp_path / "b", {"class_names": "cat, dog"}, None))) is None
    assert teacher_facts(str(run_of(tmp_path / "c", {"class_names": "3"}, None))) is None
