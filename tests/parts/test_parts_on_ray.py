"""Brought parts on real Ray: two workers, a search over a part's own setting, a job."""

import json
from pathlib import Path
import shutil
import sys

import pytest
from safetensors.torch import load_file
import torch

import raytricks

sys.path.append(str(Path(__file__).parents[1] / "cluster"))
from ray_head import ray_head  # noqa: E402

_IGNORED = ("DeprecationWarning", "FutureWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(400),
    *(pytest.mark.filterwarnings(f"ignore::{category}") for category in _IGNORED),
]
CONFIG = """
parts: {pull: mine.py:PULL, sharpen: mine.py:SHARPEN}
data: {source: digits, horizontal_flip: false}
model: {name: "mine.py:tiny", width: 8}
loss: {name: "mine.py:focal", gamma: 1.0}
optimizer: {name: "mine.py:Sign"}
metrics: ["mine.py:confidence"]
recipe: {epochs: 2, global_batch_size: 64, base_lr: 0.02}
tricks: {warmup.epochs: 0.5, pull.strength: 0.1, sharpen.amount: 0.5}
hardware: {cpus_per_worker: 1, precision: fp32}
logging.tensorboard: false
"""


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    folder = tmp_path / "bench"
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("brought.py"), folder / "mine.py")
    (folder / "x.yaml").write_text(CONFIG)
    monkeypatch.chdir(folder)
    return folder


def test_brought_parts_on_two_ray_workers_give_the_weights_of_one_process(bench):
    alone = raytricks.train("x.yaml", {"name": "alone"})
    both = raytricks.train("x.yaml", {"name": "both", "workers": 2})
    assert alone is not None and both is not None
    first, second = (load_file(result.run_dir / "model.safetensors") for result in (alone, both))
    assert sum(v.numel() for v in first.values()) > 400
    close = [torch.isclose(first[name], second[name], rtol=1e-3, atol=2e-3).float().mean() for name in first]
    assert min(close) > 0.9  # a sign of the gradient turns where the gradient is nothing but rounding
    assert both.last["val_confidence"] == pytest.approx(alone.last["val_confidence"], abs=0.02)


def test_brought_parts_are_searched_over_their_own_settings(bench):
    study = raytricks.tune(
        "x.yaml",
        {"name": "study", "tune.retrain_seeds": 1},
        space={"tricks.sharpen.amount": {"kind": "uniform", "low": 0.0, "high": 2.0}, "model.width": [8, 12]},
        num_trials=4,
    )
    values = [json.loads(path.read_text()) for path in (bench / "runs" / "study").glob("trials/*/*.json")]
    assert values and study.study_dir.name == "study"
    best = (bench / "runs" / "study" / "best.yaml").read_text()
    assert "sharpen" in best and "mine.py:PULL" in best
    again = raytricks.train(bench / "runs" / "study" / "best.yaml", {"name": "again", "recipe.epochs": 1})
    assert again is not None


def test_brought_parts_travel_with_a_job(bench):
    with ray_head() as head:
        done = head.raytricks("submit", "--follow", "--", "train", "x.yaml", "name=job", "workers=2", cwd=bench)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (bench / "runs" / "job" / "model.safetensors").is_file()
        (bench / "away").mkdir()
        shutil.move(bench / "mine.py", bench.parent / "mine.py")
        config = (bench / "x.yaml").read_text().replace("mine.py", "../mine.py")
        (bench / "x.yaml").write_text(config)
        refused = head.raytricks("submit", "--", "train", "x.yaml", "name=other", cwd=bench)
        assert refused.returncode == 2 and "would not travel with the job; copy it into" in refused.stderr
