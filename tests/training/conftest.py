"""Small training jobs on the embedded digits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fleet import Fleet
import pytest

from raytricks.config import load_config
from raytricks.data.loading import find_data
from raytricks.data.prepared import LabelledImages, PreparedData, prepare_data
from raytricks.data.store import UniformStore
from raytricks.recipe.resolve import resolve_config, stats_of
from raytricks.training.loop import TrainingJob

TINY = {
    "data.source": "digits",
    "data.horizontal_flip": False,
    "model.name": "resnet8",
    "model.width": 8,
    "recipe.epochs": 3,
    "recipe.global_batch_size": 16,
    "tricks.warmup.epochs": 1.0,
    "hardware.precision": "fp32",
    "logging.every_steps": 1,
    "logging.tensorboard": False,
}
MakeJob = Callable[..., TrainingJob]


@pytest.fixture(scope="session")
def digits_catalog():
    """The digits, as every job here finds them."""
    config = load_config(None, TINY).config
    return find_data(config.data, config.seed)


@pytest.fixture
def make_job(tmp_path, digits_catalog) -> MakeJob:
    """Return a function that makes a job: `make_job("name", num_train=64, recipe__epochs=2)`."""

    def make(name: str = "run", num_train: int = 64, num_evaluation: int = 50, **changes: object) -> TrainingJob:
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        config, _ = resolve_config(load_config(None, TINY | dotted).config, stats_of(digits_catalog))
        data = prepare_data(digits_catalog, config.data)
        data = replace(data, train=_first(data.train, num_train), evaluation=_first(data.evaluation, num_evaluation))
        run_dir = tmp_path / name
        run_dir.mkdir()
        return TrainingJob(config=config, data=data, run_dir=Path(run_dir))

    return make


def _first(split: LabelledImages, count: int) -> LabelledImages:
    assert isinstance(split.images, UniformStore)
    return LabelledImages(UniformStore(split.images.pixels[:count]), split.labels[:count], split.origin)


def poisoned(data: PreparedData) -> PreparedData:
    """Return data whose every normalised image is infinite or NaN."""
    return replace(data, transform=replace(data.transform, std=(0.0,)))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    yield fleet
    fleet.close()
