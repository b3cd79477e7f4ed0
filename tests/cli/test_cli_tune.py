"""`raytricks tune` before anything is trained: one line, the right exit code, nothing left behind."""

import pytest

DIGITS = ["data.source=digits", "model.name=resnet8", "model.width=8", "recipe.epochs=3", "tricks.warmup.epochs=0"]
ALPHA = "tune.space.tricks.mixup.alpha"


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        ([], 2, "nothing to tune"),
        (["nope.yaml"], 2, "no such config file nope.yaml"),
        ([*DIGITS, f"{ALPHA}=[]"], 2, "tune.space.tricks.mixup.alpha"),
        ([*DIGITS, f"{ALPHA}=[0,20]"], 2, "must be <= 10, got 20"),
        ([*DIGITS, f"{ALPHA}={{kind: uniform, low: 1, high: 0.5}}"], 2, "low must be < high"),
        ([*DIGITS, f"{ALPHA}={{kind: loguniform, low: 0, high: 0.5}}"], 2, "low of a loguniform must be > 0"),
        ([*DIGITS, f"{ALPHA}={{kind: unifrom, low: 0, high: 0.5}}"], 2, "did you mean uniform"),
        ([*DIGITS, "tune.space.tricks.mixup.alfa=[0,0.2]"], 2, "did you mean tricks.mixup.alpha"),
        ([*DIGITS, "tune.space.recipe.epochs=[3,4]"], 2, "recipe.epochs"),
        ([*DIGITS, "tune.space.recipe.global_batch_size=[32,4096]"], 3, "at most"),
        ([*DIGITS, "tune.scheduler=ashaa"], 2, "did you mean asha?"),
        ([*DIGITS, "tune.sampler=grid"], 2, "nothing to list"),
        ([*DIGITS, "tune.sampler=optuna", "tune.scheduler=pbt"], 2, "tune.scheduler pbt changes them"),
        ([*DIGITS, "--budget", "soon"], 2, "--budget must be trials (40) or a time (30m, 2h), got 'soon'"),
        ([*DIGITS, "--budget", "0"], 2, "--budget must be"),
        ([*DIGITS, "--price", "2"], 2, "add --plan"),
        (["--resume", "."], 2, "no study"),
        (["photos", "--resume", "runs/s"], 2, "photos"),
        ([*DIGITS[1:], "data.source=folder", "data.path=missing"], 3, "missing"),
    ],
)
def test_bad_search_is_one_line_and_leaves_nothing(shell, tmp_path, arguments, code, line):
    ended, _, err = shell("tune", *arguments)
    assert (ended, len(err.splitlines())) == (code, 1), err
    assert err.startswith("error: ") and line in err
    assert not (tmp_path / "runs").exists()


def test_plan_prints_what_a_study_costs_and_writes_nothing(shell, tmp_path):
    ended, out, err = shell("tune", *DIGITS, "tune.num_trials=9", "--plan", "--price", "2.5")
    assert (ended, err) == (0, "")
    for label in ("search", "speed", "trials    9 of 3 epochs", "retrain", "total", "cost"):
        assert f"\n{label}" in "\n" + out, label
    assert not (tmp_path / "runs").exists()
