"""A whole study through the Python API: search, certificate, files; gone on with, failed, too small a cluster."""

from dataclasses import asdict
import json
from pathlib import Path

import pandas
import pyarrow.parquet as parquet
import pytest

import raytricks
from raytricks.cluster.session import ray_session
from raytricks.config import flatten, load_config
from raytricks.errors import ClusterError, ConfigError, NoGoodTrial
from raytricks.report.progress import Reporter

_IGNORED = ("DeprecationWarning", "FutureWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(400),
    *(pytest.mark.filterwarnings(f"ignore::{category}") for category in _IGNORED),
]
TINY = {
    "data.source": "digits",
    "data.horizontal_flip": False,
    "model.name": "resnet8",
    "model.width": 8,
    "recipe.epochs": 3,
    "recipe.global_batch_size": 64,
    "tricks.warmup.epochs": 0.0,
    "hardware.precision": "fp32",
    "hardware.cpus_per_worker": 1,
    "logging.tensorboard": False,
    "tune.retrain_seeds": 2,
    "tune.scheduler": "none",
}
SPACE = {"recipe.base_lr": {"kind": "loguniform", "low": 0.003, "high": 0.6}, "tricks.mixup.alpha": [0, 0.2]}


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with ray_session():
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory, cluster):
    """A study whose default is so bad that a trial beats it."""
    folder = tmp_path_factory.mktemp("study")
    settings = TINY | {"recipe.base_lr": 0.003, "name": "s", "output_dir": str(folder)}
    return raytricks.tune(None, settings, space=SPACE, num_trials=4)


def test_study_ranks_all_trials_the_default_first(study):
    trials = study.trials
    assert isinstance(trials, pandas.DataFrame) and list(trials["number"]) == [0, 1, 2, 3]
    assert list(trials["status"]) == ["finished"] * 4
    assert trials.loc[0, "recipe.base_lr"] == 0.003
    assert study.result.best == trials["score"].idxmax() != 0
    assert study.best_config.recipe.base_lr == trials.loc[study.result.best, "recipe.base_lr"]


def test_study_certificate_is_of_fresh_seeds_on_images_that_no_trial_saw(study):
    certificate = study.result.certificate
    assert certificate.default.seeds == certificate.winner.seeds == (1, 2)
    assert certificate.num_test_images == 359 == study.result.provenance["test images"]
    assert certificate.difference == pytest.approx(
        sum(certificate.winner.test_top1) / 2 - sum(certificate.default.test_top1) / 2
    )
    assert json.loads((study.study_dir / "certificate.json").read_text()) == json.loads(json.dumps(asdict(certificate)))
    for number, (name, seed) in enumerate([("default", 1), ("winner", 1), ("default", 2), ("winner", 2)]):
        run = study.study_dir / "retrain" / f"{study.result.best:03d}" / f"{number:03d}"
        config = load_config(run / "config.yaml").config
        assert (config.seed, config.logging.evaluate_every) == (seed, 3)
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        evaluated = [r for r in records if "val_top1" in r]
        assert len(evaluated) == 1 and evaluated[0]["epoch"] == 3  # the test images are looked at once
        arm = getattr(certificate, name)
        assert arm.test_top1[seed - 1] == evaluated[0]["val_top1"]
        assert config.recipe.base_lr == arm.values["recipe.base_lr"]


def test_study_files_agree_with_each_other(study):
    table = parquet.read_table(study.study_dir / "results.parquet").to_pandas()
    assert list(table["score"]) == list(study.trials["score"])
    assert len((study.study_dir / "trials.csv").read_text().splitlines()) == 5
    assert study.report().read_text().startswith("<!")


def test_best_yaml_is_the_winner_and_trains_as_it_is(study, tmp_path):
    path = study.study_dir / "best.yaml"
    best = load_config(path).config
    assert flatten(best) == flatten(study.best_config)
    assert not best.tune.space and best.logging.evaluate_every == 1
    assert "verdict" in path.read_text() and "labels sha256" in path.read_text()
    # the same run as in the certificate, when its seed is taken
    again = raytricks.train(path, {"seed": 1, "name": "again", "output_dir": str(tmp_path)})
    assert again.last["val_top1"] == study.result.certificate.winner.test_top1[0]


def test_finished_study_goes_on_without_training_anything_again(study):
    before = {path: path.stat().st_mtime_ns for path in study.study_dir.rglob("metrics.jsonl")}
    again = raytricks.tune(resume=study.study_dir)
    assert {path: path.stat().st_mtime_ns for path in study.study_dir.rglob("metrics.jsonl")} == before
    assert len(before) == 8
    assert again.result.best == study.result.best and again.result.certificate == study.result.certificate


def test_study_takes_more_trials_and_keeps_the_others(study):
    scores = {trial.number: trial.score for trial in study.result.trials}
    more = raytricks.tune(None, {"tune.num_trials": 5, "tune.retrain_seeds": 0}, resume=study.study_dir)
    assert {t.number: t.score for t in more.result.trials if t.number < 4} == scores
    assert len(more.result.trials) == 5 and more.result.certificate is None


def test_another_winner_is_trained_again_itself(study):
    """A trial that is better than the winner, as if more trials had found it, gets runs of its own."""
    number = next(t.number for t in study.result.trials if t.number not in (0, study.result.best))
    trial = study.study_dir / "trials" / f"{number:03d}"
    metrics = trial / "metrics.jsonl"
    original = metrics.read_text()
    lines = [json.loads(line) for line in original.splitlines()]
    metrics.write_text("".join(json.dumps(r | ({"val_top1": 1.0} if "val_top1" in r else {})) + "\n" for r in lines))
    try:
        again = raytricks.tune(None, {"tune.retrain_seeds": 1}, resume=study.study_dir)
    finally:
        metrics.write_text(original)
    assert again.result.best == number
    run = study.study_dir / "retrain" / f"{number:03d}" / "001"
    values = again.result.certificate.winner.values
    assert load_config(run / "config.yaml").config.recipe.base_lr == values["recipe.base_lr"]
    (record,) = [r for r in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "val_top1" in r]
    assert again.result.certificate.winner.test_top1 == (record["val_top1"],)


def test_study_of_which_every_trial_fails_says_why_and_exits_with_5(tmp_path):
    settings = TINY | {"recipe.base_lr": 1e30, "name": "s", "output_dir": str(tmp_path)}
    with pytest.raises(
        NoGoodTrial, match="none of 2 trials finished, the first because: step .* gradient is"
    ) as caught:
        raytricks.tune(None, settings, space={"recipe.base_lr": [1e29, 1e28]}, num_trials=2)
    assert caught.value.exit_code == 5 and len(str(caught.value).splitlines()) == 1
    assert "failed" in (tmp_path / "s" / "trials.csv").read_text()
    assert (tmp_path / "s" / "report.html").exists() and not (tmp_path / "s" / "best.yaml").exists()


def test_study_of_trials_that_the_cluster_cannot_hold_is_refused(tmp_path):
    settings = TINY | {"hardware.cpus_per_worker": 999, "name": "s", "output_dir": str(tmp_path)}
    with pytest.raises(ClusterError, match="999"):
        raytricks.tune(None, settings, space=SPACE, num_trials=2)
    assert not list(tmp_path.iterdir())


def test_space_beside_a_list_of_overrides_is_refused():
    with pytest.raises(ConfigError, match="overrides must be a mapping"):
        raytricks.tune(None, ["recipe.epochs=3"], space=SPACE)


def test_study_prints_its_story_as_plain_lines(tmp_path, capsys):
    settings = TINY | {"name": "s", "output_dir": str(tmp_path), "tune.retrain_seeds": 1}
    raytricks.tune(None, settings, space={"tricks.mixup.alpha": [0.2]}, num_trials=2, reporter=Reporter("text"))
    printed = capsys.readouterr().out
    for label in ("study", "ranked", "test", "trials", "search", "retrain", "best", "verdict", "time", "files"):
        assert f"\n{label:9} " in "\n" + printed, label
    assert "\ntrial   0 " in printed and "\ntrial   1 " in printed and "best so far" in printed
    assert "\x1b" not in printed
    assert (Path(tmp_path) / "s" / "log.txt").read_text() == printed
