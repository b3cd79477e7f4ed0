"""Launch the Ray workers of a run, follow their records, pass signals on."""

from collections.abc import Callable
from pathlib import Path
import shutil

from raytricks.cluster.follower import FitThread, Follower
from raytricks.cluster.placement import alive_nodes, require_chosen_device
from raytricks.cluster.requests import RAY_FOLDER, STOP_FILE, Requests
from raytricks.cluster.session import ray_session
from raytricks.errors import InterruptedRun
from raytricks.training.loop import TrainingJob
from raytricks.training.records import METRICS_FILE, Record

_FOLLOW_INTERVAL_S = 0.2


def train_on_ray(
    job: TrainingJob,
    *,
    use_gpu: bool,
    listener: Callable[[Record], None],
    stop_requested: Callable[[], int],
    started: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Train with the Ray Train workers of `job.config`; returns when the run is finished.

    The decoded data goes to Ray's object store once; workers of a node share it.

    Args:
        listener: given each record that the workers write.
        stop_requested: polled; a signal number is passed on to the workers, which save and stop.
        started: called once the cluster is there and has room.
        say: given lines while there is no room yet.

    Raises:
        ClusterError: no cluster, no room in it in time, or a node that does not see the run's directory.
        InterruptedRun: a stop was requested.
        RaytricksError: what ended the training, with the worker's own message.
    """
    with ray_session():
        # the seam: Ray reads the environment, which the session has set, when it is imported
        import ray

        from raytricks.cluster import failures, room, shared, trainer

        config = job.config
        require_chosen_device(alive_nodes(), config.hardware.device, use_gpu=use_gpu)
        cpus = room.await_room(
            num_workers=config.fewest_workers,
            most_workers=config.most_workers,
            cpus=config.hardware.cpus_per_worker,
            use_gpu=use_gpu,
            wait_s=config.hardware.wait_s,
            say=say,
        )
        shared.require_shared(job.run_dir)
        clean_up(job.run_dir)
        started()
        data = ray.put(job.data)
        fit = FitThread(lambda: trainer.fit_run(job, data, use_gpu=use_gpu, cpus=cpus))
        follower = Follower(job.run_dir / METRICS_FILE, listener)
        fit.start()
        is_stopping = False
        while fit.is_alive():
            signal_number = stop_requested()
            if signal_number and not is_stopping:
                is_stopping = True
                if not Requests(job.run_dir).are_running:  # the workers' start may take minutes
                    raise InterruptedRun("stopped before its workers ran", signal_number)
                (job.run_dir / STOP_FILE).write_text(str(signal_number))
            fit.join(_FOLLOW_INTERVAL_S)
            follower.poll()
        follower.poll()
        clean_up(job.run_dir)
        if fit.error is not None:
            raise failures.as_raytricks_error(fit.error, job.run_dir) from fit.error


def clean_up(run_dir: Path) -> None:
    """Remove what carrying out a run on Ray leaves in its directory, also that of a launch that was killed."""
    Requests(run_dir).clear()
    shutil.rmtree(run_dir / RAY_FOLDER, ignore_errors=True)  # of launches that were killed
