"""What the command line says of the tricks, before any work starts."""

from pathlib import Path

import pytest

import raytricks

TINY = {
    "data.source": "digits",
    "data.horizontal_flip": False,
    "model.name": "resnet8",
    "model.width": 8,
    "recipe.epochs": 1,
    "recipe.global_batch_size": 512,
    "tricks.warmup.epochs": 0.0,
    "hardware.precision": "fp32",
    "logging.tensorboard": False,
}
ARGUMENTS = [f"{key}={str(value).lower()}" for key, value in TINY.items()]


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (["tricks.distillation.teacher=runs/none"], ["tricks.distillation.teacher", "'runs/none' does not exist"]),
        (["tricks.color_jitter.hue=0.4"], ["tricks.color_jitter.hue needs colour images", "set tricks"]),
        (["tricks.sync_batch_norm=true", "workers=2"], ["tricks.sync_batch_norm", "GPUs only", "model.norm=group"]),
        (["model.pretrained=true"], ["our ResNets have no published weights", "model.init_from"]),
        (["model.init_from=none.pth"], ["model.init_from", "none.pth"]),
        (["optimizer.name=lars", "optimizer.weight_decay=0"], ["lars", "weight_decay"]),
        (["tricks.mixup.off_epochs=2"], ["tricks.mixup.off_epochs must be at most recipe.epochs (1), got 2"]),
        (
            ["tricks.mixup.alpha=0.2", "tricks.distillation.teacher=x", "tricks.distillation.cache_dir=y"],
            ["tricks.distillation.cache_dir", "depends on the batch"],
        ),
        (["tricks.ema.decay=1"], ["tricks.ema.decay", "< 1"]),
        (["tricks.random_erasing.probability=1.5"], ["tricks.random_erasing.probability", "<= 1"]),
    ],
)
def test_cli_refuses_a_trick_that_cannot_work_in_one_line(shell, settings, parts):
    code, out, err = shell("train", *ARGUMENTS, *settings)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1
    for part in parts:
        assert part in err
    assert not Path("runs").exists()


def test_cli_header_lists_the_tricks_that_are_on_and_off(shell):
    lines = shell("train", *ARGUMENTS, "tricks.mixup.alpha=0.3", "tricks.ema.decay=0.9", "--dry-run")[1].splitlines()
    on, off = (next(line for line in lines if line.split()[0] == label) for label in ("tricks", "off"))
    assert "mixup 0.3" in on and "EMA 0.9" in on and "label smoothing 0.1" in on and "linear lr scaling" in on
    assert "warmup" in off and "CutMix" in off and "distillation" in off and "mixup" not in off


def test_api_distils_from_any_directory_and_header_names_the_teacher(shell, tmp_path, monkeypatch, capsys):
    """Relative paths are kept as absolute ones, so that the run can be repeated from elsewhere."""
    raytricks.train(None, TINY | {"name": "teacher", "tricks.label_smoothing.epsilon": 0.0})
    student = ["name=student", "tricks.distillation.teacher=runs/teacher", "tricks.distillation.cache_dir=logits"]
    code, out, err = shell("train", *ARGUMENTS, *student)
    assert (code, err) == (0, "")
    teacher = next(line for line in out.splitlines() if line.startswith("teacher"))
    assert str(Path("runs/teacher").resolve()) in teacher and "logits kept in" in teacher and "T 20" in teacher
    run = Path("runs/student").resolve()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    code, out, err = shell("train", str(run / "config.yaml"), "name=again", f"output_dir={tmp_path}")
    assert (code, err) == (0, "")
    assert "teacher's logits" not in out  # the cache was found
