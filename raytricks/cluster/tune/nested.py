"""A trial of several workers: Ray Train's worker group, driven epoch by epoch from the trial's actor."""

from collections.abc import Callable, Iterator
import signal
from typing import Any

import ray

from raytricks.cluster.failures import as_raytricks_error
from raytricks.cluster.follower import FitThread
from raytricks.cluster.requests import STOP_FILE, EpochBarrier, Requests
from raytricks.cluster.trainer import fit_run
from raytricks.cluster.tune.trial import OneWorkerTrial
from raytricks.training.loop import TrainingJob
from raytricks.training.records import Record
from raytricks.tuning.study_task import StudyTask
from raytricks.tuning.trial_files import epoch_records

_POLL_INTERVAL_S = 0.05
_RELEASE_WAIT_S = 60


class ManyWorkersTrial(OneWorkerTrial):
    """Carries out trials of several workers, which do the training in this actor's place."""

    def setup(self, config: dict[str, Any], task: StudyTask, cpus: int, use_gpu: bool) -> None:
        """Prepare for any number of trials of `task`."""
        self._cpus, self._use_gpu = cpus, use_gpu
        self._references: dict[int, Any] = {}
        super().setup(config, task, cpus, use_gpu=False)

    def train_epochs(self, job: TrainingJob) -> Iterator[Record]:
        """Train a run with its workers, yielding its epochs."""
        if id(job.data) not in self._references:  # `TrialData` keeps the data, so the id stays its own
            self._references[id(job.data)] = ray.put(job.data)
        data = self._references[id(job.data)]
        fit = FitThread(lambda: fit_run(job, data, use_gpu=self._use_gpu, cpus=self._cpus, is_paced=True))
        stop_requested = (lambda: 0) if self._is_pbt else self._requested_stop
        return _paced_epochs(job, fit, self._num_made(), stop_requested)

    def _num_made(self) -> int:
        return 0 if self._run is None else self._run.num_replayed


def _paced_epochs(
    job: TrainingJob, fit: FitThread, num_made: int, stop_requested: Callable[[], int]
) -> Iterator[Record]:
    """Yield each epoch once it is saved; the next one is begun when it is asked for.

    However the iteration ends, the workers end too and their resources are free again.
    """
    barrier, stop_file = EpochBarrier(job.run_dir), job.run_dir / STOP_FILE
    requests = Requests(job.run_dir)
    requests.clear()
    barrier.clear()
    barrier.grant(num_made + 1)
    fit.start()
    epoch = num_made
    try:
        while fit.is_alive():
            if barrier.reached > epoch:
                epoch += 1
                yield _record_of(job, epoch)
                barrier.grant(epoch + 1)
            elif (signal_number := stop_requested()) and not stop_file.exists():
                stop_file.write_text(str(signal_number))
            fit.join(_POLL_INTERVAL_S)
        if fit.error is not None:
            raise as_raytricks_error(fit.error, job.run_dir) from fit.error
        for last in range(epoch + 1, job.config.recipe.epochs + 1):
            yield _record_of(job, last)
    finally:
        if fit.is_alive():
            stop_file.write_text(str(int(signal.SIGTERM)))
            fit.join(_RELEASE_WAIT_S)
        requests.clear()
        barrier.clear()


def _record_of(job: TrainingJob, epoch: int) -> Record:
    return next(record for record in epoch_records(job.run_dir) if record["epoch"] == epoch)
