"""The Python API, which the command line calls too: plan a run, diagnose its recipe, train it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import errno
from pathlib import Path
import shlex
import time
from typing import Any, Literal

from raytricks.config import ExperimentConfig, LoadedConfig, load_config
from raytricks.data.splits import DatasetSplits
from raytricks.errors import ConfigError, InterruptedRun, RaytricksError
from raytricks.recipe import doctor
from raytricks.recipe.dataset_stats import DatasetStats, stats_of
from raytricks.recipe.doctor import Finding
from raytricks.recipe.phases import Phase, epoch_ends, make_phases
from raytricks.recipe.preset import preset_for
from raytricks.recipe.recipe import Recipe
from raytricks.recipe.resolve import resolve_config
from raytricks.report.progress import Reporter
from raytricks.report.summary import summary_lines

Overrides = Sequence[str] | Mapping[str, Any]
RESUME_AUTO = "auto"


@dataclass(frozen=True)
class Plan:
    """A run worked out from its config and data; nothing is decoded or written yet.

    Attributes:
        config: resolved.
        sources: where each of its values comes from.
        phases: of the run, one more than its config has `changes`.
    """

    config: ExperimentConfig
    sources: dict[str, str]
    splits: DatasetSplits
    stats: DatasetStats
    phases: tuple[Phase, ...]

    @property
    def recipe(self) -> Recipe:
        """What the run starts with."""
        return self.phases[0].recipe


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        records: everything in its metrics.jsonl.
    """

    run_dir: Path
    records: list[dict[str, Any]]

    @property
    def last(self) -> dict[str, Any]:
        """The metrics of the last epoch."""
        return [r for r in self.records if r["kind"] == "epoch"][-1]


def plan_run(target: str | Path | None = None, overrides: Overrides = ()) -> Plan:
    """Load a config, scan its data and resolve the recipe.

    Args:
        target: a config file, or a directory of images, for which a recipe is chosen; None for
            overrides alone.
        overrides: `recipe.epochs=3` strings, or a mapping of dotted keys.

    Raises:
        ConfigError: every problem of the config at once.
        DataError: the data cannot be used.
    """
    if target is not None and Path(target).expanduser().is_dir():
        _refuse_run_directory(Path(target).expanduser())
        return _plan_directory(Path(target), overrides)
    loaded = load_config(target, overrides)
    return _plan(loaded, _find_data(loaded.config))


def _refuse_run_directory(directory: Path) -> None:
    """A run's directory was meant to be resumed or repeated, not to be searched for images."""
    if (directory / "config.yaml").is_file() and (directory / "run.json").is_file():
        raise ConfigError(
            f"{directory} is a run, not a directory of images; go on with `--resume {directory}`, or repeat it "
            f"with `{directory}/config.yaml name=NEW_NAME`"
        )


def _plan_directory(directory: Path, overrides: Overrides) -> Plan:
    """Choose the recipe by the images; the overrides still decide."""
    place: dict[str, object] = {"data.path": str(directory)}
    # without a warmup, so that few epochs are no conflict before the preset has fitted its own to them
    first = load_config(None, overrides, place | {"tricks.warmup.epochs": 0.0}, "the directory given")
    splits = _find_data(first.config)
    stats = stats_of(splits)
    source = f"preset for {stats.size_text}, {stats.num_train:,} images"
    epochs = first.config.recipe.epochs if first.sources["recipe.epochs"] != "default" else None
    return _plan(load_config(None, overrides, place | preset_for(stats, epochs), source), splits)


def _find_data(config: ExperimentConfig) -> DatasetSplits:
    from raytricks.data.loading import find_data  # imports torch, which a config error does not need

    return find_data(config.data, config.seed)


def _plan(loaded: LoadedConfig, splits: DatasetSplits) -> Plan:
    stats = stats_of(splits)
    config, filled = resolve_config(loaded.config, stats)
    return Plan(config, loaded.sources | filled, splits, stats, make_phases(config, stats.num_train))


def plan_of(config: ExperimentConfig) -> Plan:
    """Plan the run of a config that was loaded before, such as that of a run or study that goes on."""
    return _plan(LoadedConfig(config, {}), _find_data(config))


def diagnose(target: str | Path | None = None, overrides: Overrides = ()) -> list[Finding]:
    """Return what the recipe doctor warns of; an empty list for a sound recipe. Trains nothing.

    Args:
        target: as of `plan_run`.
        overrides: as of `plan_run`.

    Raises:
        ConfigError: the run could not start at all.
        DataError: the data cannot be used.
    """
    return _Launch(plan_run(target, overrides), Reporter("quiet"), None).findings


def train(
    target: str | Path | None = None,
    overrides: Overrides = (),
    *,
    resume: str | Path | None = None,
    reporter: Reporter | None = None,
    dry_run: bool = False,
    strict: bool = False,
) -> RunResult | None:
    """Train a model, in this process (`workers: 0`) or on Ray, and write its run directory.

    Args:
        target: a config file or a directory of images; not with `resume`.
        overrides: dotted settings.
        resume: directory of an unfinished run, continued from its newest valid checkpoint. "auto": the run
            that target and overrides name (`name=...`), when there is one, else a new run; a finished one
            is returned as it is. The same command may so be given again and again.
        reporter: where progress goes; None prints nothing but to the run's log.txt.
        dry_run: stop after the header; writes nothing and returns None.
        strict: raise ConfigError, before anything is written, for what `diagnose` finds.

    Raises:
        RaytricksError: see raytricks.errors for the kinds.
    """
    started_s = time.monotonic()
    reporter = reporter or Reporter("quiet")
    plan, run_dir = _plan_launch(target, overrides, resume)
    if resume == RESUME_AUTO and run_dir is not None and (finished := _result_of_finished(run_dir)) is not None:
        reporter.line(f"finished before: {run_dir}; nothing is left to do")
        return finished
    launch = _Launch(plan, reporter, run_dir)
    try:
        if strict:
            doctor.refuse(launch.findings)
        if dry_run:
            launch.show_header()
            return None
        launch.open_run_directory()
        launch.execute()
        reporter.stop()
        return launch.finish(started_s)
    finally:
        reporter.close()


def _plan_launch(
    target: str | Path | None, overrides: Overrides, resume: str | Path | None
) -> tuple[Plan, Path | None]:
    """Plan a new run, or one that goes on in the directory that is returned too."""
    if resume is None or resume == RESUME_AUTO:
        plan = plan_run(target, overrides)
        if resume is None:
            return plan, None
        from raytricks.training import run_directory  # imports torch, which a config error does not need

        run_dir = run_directory.named_run_directory(plan.config)
        if run_dir.exists():
            run_directory.remove_unbegun_run(run_dir)
        if not run_dir.exists():
            return plan, None
        run_directory.require_same_recipe(run_dir, run_directory.with_absolute_paths(plan.config))
    else:
        from raytricks.training import run_directory

        if target is not None:
            raise ConfigError(
                f"--resume {resume} takes its config from the run; leave {target} out, or write --resume auto to go on "
                "with the run that the command names"
            )
        run_dir = Path(resume).expanduser()
        config = run_directory.open_run_to_resume(run_dir, overrides)
        plan = _plan(LoadedConfig(config, {}), _find_data(config))
    run_directory.require_same_data(run_dir, plan.splits)
    return plan, run_dir


def _result_of_finished(run_dir: Path) -> RunResult | None:
    from raytricks.training.records import METRICS_FILE, read_records
    from raytricks.training.run_directory import is_finished

    if not is_finished(run_dir):
        return None
    from raytricks.cluster.driver import clean_up  # workers may have finished after their driver was killed

    clean_up(run_dir)
    return RunResult(run_dir, read_records(run_dir / METRICS_FILE))


class _Launch:
    """One launch of a run: from a plan to a finished run directory."""

    def __init__(self, plan: Plan, reporter: Reporter, run_dir: Path | None) -> None:
        from raytricks.data.jpeg import require_decoder
        from raytricks.models.cost import count_macs, count_parameters
        from raytricks.models.registry import build_model, require_sides
        from raytricks.models.weights import check_start
        from raytricks.recipe.image_sizes import input_sides
        from raytricks.recipe.parallel_plan import plan_parallel
        from raytricks.training.teacher import check_teacher
        from raytricks.training.trackers import require_trackers

        self.plan, self.reporter, self.run_dir = plan, reporter, run_dir
        self.is_resumed = run_dir is not None
        config, data = plan.config, plan.config.data
        assert data.channels is not None and data.image_size is not None
        require_decoder(data.decoder)
        require_trackers(config.logging)
        check_start(config.model)
        distillation = config.tricks.distillation
        if distillation.teacher is not None:
            check_teacher(distillation.teacher, distillation.teacher_weights, plan.splits.class_names)
        self.device_type: Literal["cpu", "cuda"] = device_type_of(config)
        parallel_plans = []
        for phase in plan.phases:  # what is wrong with a later one must show before the first step
            for count in sorted({max(1, config.fewest_workers), max(1, config.most_workers)}, reverse=True):
                parallel_plans.append(plan_parallel(phase.config, num_workers=count, device_type=self.device_type))
        self.parallel = parallel_plans[0]
        model = build_model(
            config.model,
            num_classes=plan.splits.num_classes,
            in_channels=data.channels,
            image_size=data.image_size,
        )
        self.num_parameters = count_parameters(model)
        self.num_macs = count_macs(model, (data.channels, data.image_size, data.image_size))
        require_sides(model, data.channels, input_sides(config))
        self.findings = self._diagnose()

    def _diagnose(self) -> list[Finding]:
        plan = self.plan
        teacher = plan.config.tricks.distillation.teacher
        return doctor.diagnose(
            plan.config,
            plan.stats,
            plan.recipe,
            device_type=self.device_type,
            precision=self.parallel.precision,
            teacher=None if teacher is None else doctor.teacher_facts(teacher),
            class_names=plan.splits.class_names,
        )

    def show_header(self) -> None:
        from raytricks.report.header import header_lines

        lines = header_lines(
            self.plan.config,
            self.plan.splits,
            self.plan.stats,
            self.plan.phases,
            self.parallel,
            run_dir=self.run_dir,
            num_parameters=self.num_parameters,
            num_macs=self.num_macs,
            findings=self.findings,
        )
        for line in lines:
            self.reporter.line(line)

    def open_run_directory(self) -> None:
        from raytricks.training import run_directory
        from raytricks.training.fencing import begin_launch

        self.plan = replace(self.plan, config=run_directory.with_absolute_paths(self.plan.config))
        config = self.plan.config
        if self.run_dir is None:
            self.run_dir = run_directory.create_run_directory(config, self.plan.stats.name)
        run_directory.write_config(self.run_dir, config)
        stats = {
            "seed": config.seed,
            "data": run_directory.data_fingerprint(self.plan.splits),
            "recipe": self.plan.recipe.as_dict(),
            "changed_recipes": [phase.recipe.as_dict() for phase in self.plan.phases[1:]],
            "model": {"parameters": self.num_parameters, "macs": self.num_macs},
            "launch": {"execution": vars(self.parallel).copy(), "resumed": self.is_resumed},
        }
        run_directory.write_run_file(self.run_dir, stats)
        self.launch = begin_launch(self.run_dir)
        self.reporter.open_log(self.run_dir / run_directory.LOG_FILE)
        self.show_header()

    def execute(self) -> None:
        from raytricks.training import run_directory
        from raytricks.training.signals import StopSignals

        assert self.run_dir is not None
        try:
            with StopSignals() as stop:
                self._train(stop)
        except BaseException as error:
            self.reporter.stop()
            if not self.is_resumed:
                run_directory.remove_if_empty_run(self.run_dir)
            resume = f"`raytricks train --resume {shlex.quote(str(self.run_dir))}`"
            if isinstance(error, InterruptedRun):
                raise InterruptedRun(f"{error}; go on with {resume}", error.signal_number) from None
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise RaytricksError(f"{self.run_dir}: disk full; free some space, then {resume}") from error
            raise

    def _train(self, stop) -> None:
        from raytricks.data.prepared import prepare_data
        from raytricks.training.loop import TrainingJob

        assert self.run_dir is not None
        config = self.plan.config
        data = prepare_data(self.plan.splits, config.data)
        job = TrainingJob(config=config, data=data, run_dir=self.run_dir, launch=self.launch)

        def begin() -> None:
            stop.install()
            self.reporter.start(epoch_ends(self.plan.phases))

        if config.most_workers:
            from raytricks.cluster.driver import train_on_ray

            train_on_ray(
                job,
                use_gpu=self.device_type == "cuda",
                listener=self.reporter.record,
                stop_requested=stop,
                started=begin,
            )
        else:
            begin()
            _train_here(job, self.device_type, self.reporter.record, stop)

    def finish(self, started_s: float) -> RunResult:
        from raytricks.training.records import METRICS_FILE, read_records

        assert self.run_dir is not None
        records = read_records(self.run_dir / METRICS_FILE)
        for line in summary_lines(
            self.run_dir, records, time.monotonic() - started_s, self.plan.splits.evaluation.origin
        ):
            self.reporter.line(line)
        return RunResult(self.run_dir, records)


def _train_here(job, device_type: str, listener, stop) -> None:
    import torch

    from raytricks.training.allocator import keep_freed_memory
    from raytricks.training.loop import run_epochs
    from raytricks.training.worker import Worker

    keep_freed_memory()
    if job.config.hardware.cpus_per_worker is not None:
        torch.set_num_threads(job.config.hardware.cpus_per_worker)
    device = torch.device(device_type, 0) if device_type == "cuda" else torch.device("cpu")
    for _ in run_epochs(job, Worker(device=device), stop_requested=stop, listener=listener):
        pass


def device_type_of(config: ExperimentConfig) -> Literal["cpu", "cuda"]:
    """Return what a run is trained on; on a remote cluster `auto` follows the machine of the driver."""
    import torch

    wanted = config.hardware.device
    if wanted == "cpu" or torch.cuda.is_available():
        return "cpu" if wanted == "cpu" else "cuda"
    if wanted == "cuda" and config.workers == 0:
        raise ConfigError("hardware.device is cuda, this machine has no usable GPU; set hardware.device=cpu")
    return "cuda" if wanted == "cuda" else "cpu"
