"""`raytricks doctor`, `train --strict` and the doctor's lines in a run's header."""

from pathlib import Path
import sys

import pytest

import raytricks
from raytricks.errors import ConfigError

SOUND = ["data.source=digits", "data.horizontal_flip=false", "model.name=resnet8", "model.width=8", "workers=0"]
SOUND += ["recipe.global_batch_size=64", "hardware.precision=fp32", "logging.tensorboard=false"]
WRONG = ["optimizer.weight_decay=0.1", "recipe.epochs=40"]
"""Two findings: 5 of 40 epochs are a long warmup."""
LINES = [
    "warmup-long: the warmup takes 5 of 40 epochs, more than a tenth; set tricks.warmup.epochs to 4 or less",
    "weight-decay-range: weight decay 0.1 is outside the usual 1e-05 to 0.001 of sgd; "
    "set optimizer.weight_decay=0.0001",
]
CLEAN = "no findings: the recipe is sound as far as the doctor knows\n"


@pytest.fixture
def digits_yaml(repository) -> str:
    return str(repository / "configs/digits.yaml")


@pytest.mark.parametrize("options", [[], ["--strict"]])
def test_cli_doctor_finds_nothing_in_a_sound_recipe(shell, digits_yaml, options):
    assert shell("doctor", digits_yaml, *options) == (0, CLEAN, "")
    assert shell("doctor", *SOUND, *options) == (0, CLEAN, "")
    assert list(Path().iterdir()) == []


def test_cli_doctor_warns_on_stdout_and_exits_with_0(shell):
    code, out, err = shell("doctor", *SOUND, *WRONG)
    assert (code, err) == (0, "")
    assert out.splitlines() == [*(f"warning: {line}" for line in LINES), "2 findings"]
    assert shell("doctor", *SOUND, "optimizer.weight_decay=0.1")[1].splitlines()[1:] == ["1 finding"]


@pytest.mark.parametrize("command", [["doctor"], ["train"], ["train", "--dry-run"], ["train", "--json"]])
def test_cli_strict_refuses_on_stderr_with_2(shell, command):
    code, out, err = shell(*command, *SOUND, *WRONG, "--strict")
    assert (code, out) == (2, "")
    assert err.splitlines() == [f"error: {line}" for line in LINES]
    assert list(Path().iterdir()) == []


def test_cli_strict_trains_a_sound_recipe(shell):
    settings = ["recipe.epochs=1", "tricks.warmup.epochs=0", "recipe.global_batch_size=128", "name=a"]
    code, out, err = shell("train", *(s for s in SOUND if "batch" not in s), *settings, "--strict")
    assert (code, err) == (0, "")
    assert "\nepoch 1/1" in out and "\ndoctor" not in out
    assert Path("runs/a/model.safetensors").is_file()


def test_cli_header_holds_the_doctors_lines(shell):
    _, out, _ = shell("train", *SOUND, *WRONG, "--dry-run")
    assert [line for line in out.splitlines() if line.startswith("doctor")] == [f"doctor    warning {x}" for x in LINES]
    assert "doctor" not in shell("train", *SOUND, "--dry-run")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        ([], 2, ["nothing to diagnose", "raytricks doctor configs/digits.yaml"]),
        (["digits"], 2, ["did you mean data.source=digits?"]),
        (["nowhere.yaml"], 2, ["nowhere.yaml"]),
        (["data.source=digits", "recipe.epoch=3"], 2, ["unknown key recipe.epoch", "did you mean recipe.epochs"]),
        (["data.source=digits", "model.name=resnet5d"], 2, ["'resnet5d'", "did you mean resnet50"]),
        (["data.path=nowhere"], 3, ["nowhere"]),
        (["data.source=digits", "recipe.global_batch_size=5000"], 3, ["use at most"]),
    ],
)
def test_cli_doctor_bad_input_is_one_clear_line(shell, arguments, code, parts):
    for options in ([], ["--strict"]):
        got, out, err = shell("doctor", *arguments, *options)
        assert (got, out) == (code, "") and err.startswith("error: ") and err.count("\n") == 1
        for part in parts:
            assert part in err


def test_api_diagnose_knows_the_teachers_run(tmp_path, monkeypatch):
    """End to end: the teacher is a run that really trained, with smoothed labels, on the digits."""
    monkeypatch.chdir(tmp_path)
    short = {"recipe.epochs": 1, "tricks.warmup.epochs": 0.0, "recipe.global_batch_size": 128}
    sound = {"data.source": "digits", "data.horizontal_flip": False, "model.name": "resnet8", "model.width": 8}
    sound |= {"hardware.precision": "fp32", "logging.tensorboard": False} | short
    result = raytricks.train(None, sound | {"name": "teacher"})
    assert result is not None and raytricks.diagnose(None, sound) == []
    distil = sound | {"tricks.distillation.teacher": str(result.run_dir)}
    assert [finding.code for finding in raytricks.diagnose(None, distil)] == ["double-smoothing"]
    assert raytricks.diagnose(None, distil | {"tricks.label_smoothing.epsilon": 0.0}) == []
    unknown = sound | {"tricks.distillation.teacher": "torchvision:resnet18"}
    assert raytricks.diagnose(None, unknown) == []


def test_api_strict_training_raises_all_findings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        raytricks.train(None, [*SOUND, *WRONG], strict=True)
    assert refused.value.problems == LINES == [str(finding) for finding in raytricks.diagnose(None, [*SOUND, *WRONG])]


def test_cli_models_lists_those_of_timm_on_request(shell):
    pytest.importorskip("timm")
    plain, more = shell("models")[1].splitlines(), shell("models", "--timm")[1].splitlines()
    assert not any(name.startswith("timm:") for name in plain)
    assert more[: len(plain)] == plain and "timm:resnet18" in more
    assert all(name.startswith("timm:") for name in more[len(plain) :])


def test_cli_models_without_timm_names_the_extra(shell, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # makes its import fail
    code, out, err = shell("models", "--timm")
    assert (code, out) == (2, "") and err == "error: --timm: timm is not installed; pip install 'raytricks[timm]'\n"
