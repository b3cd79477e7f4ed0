"""What a search costs beside the training of its trials: ours against a TorchTrainer nested in each trial.

    python benchmarks/tune_overhead.py --trials 16 --seconds 5

Trials of about --seconds of pure training each (a small ResNet on the digits, one thread), in one run:

    plain     as many processes as there are slots, which do nothing but train, one trial after another
    ours      the engine of `raytricks tune`: reused actors, no early stopping
    nested    Ray's documented way: a function trainable that runs a TorchTrainer of one worker (--nested trials)

Ours and nested share one Ray session; its start and the time to the first trial are printed on their own.
"""

import argparse
from dataclasses import replace
import json
import multiprocessing
from pathlib import Path
import tempfile
import time

import torch

from raytricks.cluster.session import ray_session
from raytricks.data.prepared import prepare_data
from raytricks.plan import plan_run
from raytricks.training.loop import TrainingJob, run_epochs
from raytricks.training.worker import Worker
from raytricks.tuning.study_task import StudyTask, selection_splits

SETTINGS = {
    "data.source": "digits",
    "data.horizontal_flip": False,
    "model.name": "resnet8",
    "model.width": 32,
    "recipe.global_batch_size": 64,
    "tricks.warmup.epochs": 0.0,
    "hardware.cpus_per_worker": 1,
    "hardware.precision": "fp32",
    "logging.tensorboard": False,
    "tune.scheduler": "none",
    "tune.space.recipe.base_lr": [0.1],
}


def make_task(epochs: int, num_trials: int, folder: Path) -> StudyTask:
    plan = plan_run(None, SETTINGS | {"recipe.epochs": epochs})
    splits = selection_splits(plan.config, plan.splits)
    return StudyTask(
        base=plan.config,
        splits=splits,
        data=prepare_data(splits, plan.config.data),
        trials_dir=folder / "trials",
        points=({"recipe.base_lr": 0.1},) * num_trials,
        num_trials=num_trials,
    )


def train_plainly(task: StudyTask, folder: Path) -> float:
    """Train one trial in this process; returns seconds."""
    folder.mkdir(parents=True)
    config = task.base.model_copy(update={"tune": type(task.base.tune)()})
    started_s = time.monotonic()
    for _ in run_epochs(TrainingJob(config=config, data=task.data, run_dir=folder), Worker()):
        pass
    return time.monotonic() - started_s


def _train_some(task: StudyTask, folder: Path, count: int, barrier, times) -> None:
    torch.set_num_threads(1)
    barrier.wait()
    times.put([train_plainly(task, folder / str(number)) for number in range(count)])


def measure_plain(task: StudyTask, folder: Path, slots: int, count: int) -> float:
    """Return the mean seconds of a trial while all slots train, in processes without Ray."""
    context = multiprocessing.get_context("spawn")
    barrier, times = context.Barrier(slots), context.Queue()
    processes = [
        context.Process(target=_train_some, args=(task, folder / f"slot{slot}", count, barrier, times))
        for slot in range(slots)
    ]
    for process in processes:
        process.start()
    found = [seconds for _ in processes for seconds in times.get()]
    for process in processes:
        process.join()
    return sum(found) / len(found)


def measure_ours(task: StudyTask, resources) -> tuple[float, float]:
    """Return seconds to the first epoch, and from there to the end of all trials plus that first epoch's share."""
    from raytricks.cluster.tune.driver import run_trials

    started_s = time.monotonic()
    first_s: list[float] = []

    def listen(number, record, status) -> None:
        if status == "running" and record is None and not first_s:
            first_s.append(time.monotonic() - started_s)

    run_trials(task, resources=resources, use_gpu=False, listener=listen, stop_requested=lambda: 0)
    return first_s[0], time.monotonic() - started_s - first_s[0]


def measure_nested(task: StudyTask, folder: Path, num_trials: int, slots: int) -> float:
    """Return the seconds of all trials by the documented pattern."""
    import ray
    from ray import tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    data = ray.put(task.data)

    def train_worker(assignment) -> None:
        torch.set_num_threads(1)
        whole = replace(task, data=ray.get(data))
        train_plainly(whole, Path(assignment["folder"]))
        ray.train.report({"done": 1})

    def trial(config) -> None:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"folder": str(folder / f"trial{config['number']}")},
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 0.9}),
            run_config=RunConfig(name=f"trial{config['number']}", storage_path=str(folder / "ray")),
        )
        trainer.fit()
        tune.report({"done": 1})

    task = replace(task, data=None)  # travels by reference
    started_s = time.monotonic()
    tune.Tuner(
        tune.with_resources(trial, {"CPU": 0.05}),  # with 0.9 of its worker, two trials fit on two CPUs
        param_space={"number": tune.grid_search(list(range(num_trials)))},
        tune_config=tune.TuneConfig(max_concurrent_trials=slots),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    ).fit()
    return time.monotonic() - started_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--nested", type=int, default=4, help="trials of the documented pattern; 0: leave it out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder, slots = Path(temporary), arguments.slots
        probe = measure_plain(make_task(4, 1, folder), folder / "probe", slots, 1)
        epochs = max(1, round(4 * arguments.seconds / probe))
        task = make_task(epochs, arguments.trials, folder / "ours")
        plain_s = measure_plain(task, folder / "plain", slots, 3)
        started_s = time.monotonic()
        with ray_session() as resources:
            session_s = time.monotonic() - started_s
            first_s, trials_s = measure_ours(task, resources)
            plain_after_s = measure_plain(task, folder / "plain_after", slots, 3)
            ideal_s = arguments.trials * (plain_s + plain_after_s) / 2 / slots
            ours_per_hour = 3600 * arguments.trials / (first_s + trials_s)
            found = {
                "plain_trial_s": round((plain_s + plain_after_s) / 2, 2),
                "ray_start_s": round(session_s, 1),
                "first_trial_s": round(first_s, 1),
                "trials_s": round(trials_s, 1),
                "trials_over_ideal": round(trials_s / ideal_s, 3),
                "ours_trials_per_hour": round(ours_per_hour),
            }
            print(json.dumps(found), flush=True)
            if arguments.nested:
                nested_s = measure_nested(task, folder / "nested", arguments.nested, slots)
                nested_per_hour = 3600 * arguments.nested / nested_s
                ratio = round(ours_per_hour / nested_per_hour, 2)
                print(json.dumps({"nested_trials_per_hour": round(nested_per_hour), "ours_over_nested": ratio}))


if __name__ == "__main__":
    main()
