"""Workers that die, again and again: the run ends with the weights of one that nothing befell.

`make chaos` prints what each fault costs; `make test` kills two workers.
"""

from functools import partial
from pathlib import Path
import signal
from statistics import median

from faults import Faults, are_equal, settings
from processes import kill_worker
import pytest

import raytricks
from raytricks.cluster.session import ray_session

_IGNORED = ("DeprecationWarning", "FutureWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(1200),
    *(pytest.mark.filterwarnings(f"ignore::{category}") for category in _IGNORED),
]


@pytest.fixture(scope="module")
def cluster():
    with ray_session() as resources:
        yield resources


@pytest.fixture(scope="module")
def clean(cluster, tmp_path_factory) -> Path:
    """The run that nothing befalls."""
    return raytricks.train(None, settings(tmp_path_factory.mktemp("clean"), name="clean", workers=2)).run_dir


@pytest.mark.parametrize(
    ("number", "times"),
    [
        pytest.param(signal.SIGKILL, 2, id="twice"),
        pytest.param(signal.SIGKILL, 10, id="SIGKILL", marks=pytest.mark.chaos),
        pytest.param(signal.SIGTERM, 4, id="SIGTERM", marks=pytest.mark.chaos),
    ],
)
def test_killed_workers_cost_some_seconds_and_the_steps_since_the_checkpoint(
    clean, tmp_path, record_property, number, times
):
    run_dir = tmp_path / "killed"
    steps = [7 + 81 * turn // times for turn in range(times)]  # of 88, at all distances from a checkpoint
    planned = [(step, partial(kill_worker, run_dir, turn % 2, number)) for turn, step in enumerate(steps)]
    faults = Faults(planned)
    result = raytricks.train(None, settings(tmp_path, name="killed", workers=2), reporter=faults)  # type: ignore[arg-type]
    assert len(faults.seconds) == times and not faults.planned
    assert are_equal(result.run_dir, clean)
    assert faults.again <= 5 * times  # checkpoint.every_steps is 5
    record_property(
        f"worker {number.name}, ranks 0 and 1 in turn",
        f"{len(faults.seconds)} of {times} recovered, weights equal bit for bit; {faults.again} steps made again; "
        f"{median(faults.seconds):.1f} s to the next step ({min(faults.seconds):.1f} to {max(faults.seconds):.1f})",
    )
