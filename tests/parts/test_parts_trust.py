"""Whose code runs, and which bytes of it: what a foreign directory leaves out or lies about changes nothing."""

import json
from pathlib import Path
import pickle
import shutil
import sys

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

import raytricks
from raytricks.config import load_config, loader
from raytricks.config.schemas import config_sent
from raytricks.errors import ClusterError, ConfigError
from raytricks.parts.bring import versions_of
from raytricks.tuning.study_directory import open_study

BROUGHT = Path(__file__).with_name("brought.py")
BASE = {
    "data": {"source": "digits", "horizontal_flip": False},
    "model": {"name": "resnet8", "width": 8},
    "recipe": {"epochs": 2, "global_batch_size": 64},
    "tricks.warmup.epochs": 0.2,
    "logging.tensorboard": False,
    "output_dir": "runs",
}
OWN_MODEL = {"model": {"name": "mine.py:tiny", "width": 12}}
OWN_METRIC = {"metrics": ["mine.py:confidence"]}
OWN_TRICK = {"parts.sharpen": "mine.py:SHARPEN", "tricks.sharpen.amount": 0.7}
PLANTED = """
from pathlib import Path
Path({canary!r}).write_text("the code ran")
def tiny(num_classes, width: int = 8):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
"""


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Path:
    """A user's folder with a file of parts; it is the current directory."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    folder = tmp_path / "bench"
    folder.mkdir()
    shutil.copy(BROUGHT, folder / "mine.py")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def canary(tmp_path) -> Path:
    return tmp_path / "canary"


def train(settings: dict, **options):
    result = raytricks.train(None, BASE | settings, **options)
    assert result is not None
    return result


def foreign_run(tmp_path: Path, canary: Path) -> Path:
    """Return a run of somebody else's that names planted code of its own, and has no run.json to say so."""
    foreign = tmp_path / "foreign"
    shutil.copytree(train({"name": "run"}).run_dir, foreign)
    (foreign / "evil.py").write_text(PLANTED.format(canary=str(canary)))
    config = (foreign / "config.yaml").read_text()
    assert "name: resnet8" in config
    (foreign / "config.yaml").write_text(config.replace("name: resnet8", "name: evil.py:tiny"))
    (foreign / "run.json").unlink()
    return foreign


def test_run_without_its_run_file_is_no_config_of_the_users_own(bench, tmp_path, canary):
    foreign = foreign_run(tmp_path, canary)
    with pytest.raises(ConfigError, match=r"names code \(evil.py\), and the run.json .* is missing"):
        raytricks.train(foreign / "config.yaml", {"name": "again"})
    student = {"tricks.distillation.teacher": str(foreign), "name": "student"}
    train(student)  # the model itself is one of ours; only the config beside it names code
    assert not canary.exists()
    (foreign / "model.safetensors").unlink()
    (foreign / "metrics.jsonl").unlink()
    attempts = {
        "resume": lambda: raytricks.train(resume=foreign),
        "same name": lambda: train({"output_dir": str(tmp_path), "name": "foreign"}, resume="auto"),
    }
    for name, attempt in attempts.items():
        with pytest.raises(ConfigError, match="names code"):
            attempt()
        assert not canary.exists(), name


def test_folders_beside_a_users_own_config_do_not_make_it_a_run(bench):
    (bench / "parts").mkdir()
    (bench / "checkpoints").mkdir()
    shutil.copy(BROUGHT, bench / "parts" / "mine.py")
    (bench / "x.yaml").write_text("model.name: parts/mine.py:tiny\n")
    assert load_config("x.yaml").config.brought


def test_code_of_a_foreign_study_is_not_imported(bench, tmp_path, canary):
    study = tmp_path / "study"
    study.mkdir()
    (study / "evil.py").write_text(PLANTED.format(canary=str(canary)))
    (study / "study.json").write_text("{}")
    for name in ("config.yaml", "best.yaml"):
        (study / name).write_text("data.source: digits\nmodel.name: evil.py:tiny\n")
    for attempt in (lambda: open_study(study), lambda: raytricks.train(study / "best.yaml", {"output_dir": "runs"})):
        with pytest.raises(ConfigError, match="names code"):
            attempt()
        assert not canary.exists()


def test_hash_of_a_trusted_file_opens_no_package(bench, tmp_path, canary, monkeypatch):
    run_dir = train(OWN_MODEL | {"name": "run"}).run_dir  # from here on this user trusts mine.py
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "evilmod.py").write_text(PLANTED.format(canary=str(canary)))
    monkeypatch.syspath_prepend(str(packages))
    file = run_dir / "model.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    described = json.loads(metadata["raytricks"])
    described["parts"] = [described["parts"][0] | {"name": "evilmod:tiny", "spec": "evilmod:tiny"}]
    save_file(tensors, file, {"raytricks": json.dumps(described)})
    with pytest.raises(ConfigError, match="what it says of its code is damaged"):
        raytricks.load(run_dir)
    assert not canary.exists() and "evilmod" not in sys.modules


def unfinished(settings: dict) -> Path:
    """Return a run whose last epoch is still to be trained."""
    run_dir = train(settings | {"name": "run", "checkpoint.keep": 5}).run_dir
    newest = max((run_dir / "checkpoints").iterdir(), key=lambda path: path.name)
    shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    (run_dir / "model.safetensors").unlink()
    return run_dir


def test_bytes_that_were_looked_at_are_the_ones_that_run(bench, canary, monkeypatch):
    """A file on a shared disk is exchanged after it was looked at and before it is imported."""
    run_dir = unfinished(OWN_MODEL)
    look = loader.require_trusted

    def look_then_exchange(*arguments):
        looked_at = look(*arguments)
        (bench / "mine.py").write_text(PLANTED.format(canary=str(canary)))
        monkeypatch.setattr(loader, "require_trusted", look)
        return looked_at

    monkeypatch.setattr(loader, "require_trusted", look_then_exchange)
    with pytest.raises(ConfigError, match="mine.py changed"):  # the next look, before the run goes on
        raytricks.train(resume=run_dir)
    assert not canary.exists()


def test_module_that_belongs_to_no_distribution_is_compared_by_its_source(bench, tmp_path, monkeypatch):
    package = tmp_path / "packages" / "mylab_of_a_test"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    source = package / "parts.py"
    shutil.copy(BROUGHT, source)
    monkeypatch.syspath_prepend(str(package.parent))
    run_dir = unfinished({"parts.mine": "mylab_of_a_test.parts:SHARPEN", "tricks.mine.amount": 0.4})
    source.write_text(source.read_text().replace("clamp(0, 255)", "clamp(0, 200)"))
    for name in ("mylab_of_a_test", "mylab_of_a_test.parts"):
        sys.modules.pop(name)
    with pytest.raises(ConfigError, match=r"mylab_of_a_test.parts changed \(.*source \w+ -> .*source \w+\)"):
        raytricks.train(resume=run_dir)
    assert "mylab_of_a_test" not in sys.modules


def test_process_with_another_version_of_a_package_refuses_before_it_imports(bench):
    config = load_config(None, BASE | {"optimizer.name": "torch.optim:AdamW"}).config
    (version,) = versions_of(config.brought).values()
    tree = config.model_dump(mode="json")
    assert config_sent(tree, {}, {"torch.optim:AdamW": version}).optimizer.name == "torch.optim:AdamW"
    with pytest.raises(ClusterError, match=r"torch.optim is .* and 1.0 where the run was started; install the same"):
        config_sent(tree, {}, {"torch.optim:AdamW": "1.0"})
    with pytest.raises(ClusterError, match="package_of_nobody is not installed on .* and 1.0 where the run was"):
        config_sent(tree, {}, {"package_of_nobody:X": "1.0"})


def test_file_that_is_edited_is_read_anew_after_a_model_or_a_config_was_loaded(bench):
    pickle.loads(pickle.dumps(load_config(None, BASE | OWN_METRIC).config))
    raytricks.load(train(OWN_MODEL | {"name": "first"}).run_dir)
    file = bench / "mine.py"
    file.write_text(file.read_text().replace(".amax(1)", ".amax(1) * 0 + 7"))
    assert train(OWN_METRIC | {"name": "second"}).last["val_confidence"] == 7


def test_accepted_change_is_noted_with_what_was_there_before(bench):
    run_dir = unfinished(OWN_TRICK)
    before = json.loads((run_dir / "run.json").read_text())["parts"][0]["sha256"]
    (bench / "mine.py").write_text((bench / "mine.py").read_text() + "\n# another line\n")
    raytricks.train(resume=run_dir, accept_changed=["sharpen"])
    first, second = json.loads((run_dir / "run.json").read_text())["launches"]
    assert "accepted_changes" not in first and second["accepted_changes"] == {"sharpen": before}


def test_optimizer_that_refuses_the_parameters_says_so_in_one_line(bench):
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    with pytest.raises(ConfigError, match=r"^optimizer.name: torch.optim:Muon: Muon only supports 2D parameters"):
        train({"optimizer.name": "torch.optim:Muon"})
