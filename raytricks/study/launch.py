"""One launch of a study: from a plan to a finished study directory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
import shlex
import shutil
import time
from typing import Any

from raytricks.cluster.session import ray_session, require_reachable
from raytricks.cluster.tune.driver import check_search, run_trials
from raytricks.config import ExperimentConfig
from raytricks.config.run_code import keep_code
from raytricks.data.prepared import prepare_data
from raytricks.data.splits import DatasetSplits
from raytricks.errors import ConfigError, InterruptedRun, NoGoodTrial, RaytricksError
from raytricks.plan import RESUME_AUTO, Overrides, Plan, plan_of, plan_run
from raytricks.report.progress import Reporter
from raytricks.report.study_lines import Facts, StudyProgress, outcome_lines, study_header_lines
from raytricks.run import device_type_of
from raytricks.study.results import Study, read_result, write_study
from raytricks.study.retraining import certify, plan_retraining
from raytricks.training import run_directory
from raytricks.training.run_directory import named_run_directory, remove_unbegun_run, with_absolute_paths
from raytricks.training.signals import StopSignals
from raytricks.training.trackers import require_trackers
from raytricks.tuning import study_directory
from raytricks.tuning.outcome import Certificate, StudyResult
from raytricks.tuning.rungs import rungs
from raytricks.tuning.study_directory import RETRAIN, TRIALS, is_study, open_study, require_same_study
from raytricks.tuning.study_task import StudyTask, retraining_splits, selection_splits
from raytricks.tuning.trial_files import epoch_records, read_outcomes, read_state, trial_directory
from raytricks.tuning.trial_params import draw_points, three_knobs

Point = dict[str, Any]


def open_launch(
    target: str | Path | None = None,
    overrides: Overrides = (),
    *,
    space: Mapping[str, Any] | None = None,
    num_trials: int | None = None,
    resume: str | Path | None = None,
    reporter: Reporter,
) -> "StudyLaunch":
    """Check everything that can be checked before a study starts; arguments as of `raytricks.tune`."""
    more = {f"tune.space.{key}": value for key, value in (space or {}).items()}
    more |= {} if num_trials is None else {"tune.num_trials": num_trials}
    if more:
        if not isinstance(overrides, Mapping) and overrides:
            raise ConfigError("overrides must be a mapping when space or num_trials is given, got a list of texts")
        overrides = {**overrides, **more} if isinstance(overrides, Mapping) else more
    if resume is None or resume == RESUME_AUTO:
        launch = StudyLaunch(plan_run(target, overrides), reporter, None)
        if resume == RESUME_AUTO:
            launch.go_on_if_begun()
        return launch
    if target is not None:
        raise ConfigError(
            f"--resume {resume} takes its config from the study; leave {target} out, or write --resume auto to go on "
            "with the study that the command names"
        )
    study_dir = Path(resume).expanduser()
    return StudyLaunch(plan_of(open_study(study_dir, overrides)), reporter, study_dir)


class StudyLaunch:
    """A study that is about to run.

    Raises:
        ConfigError: nothing to search, or values that no trial could be run with.
        DataError: the data cannot be used.
    """

    def __init__(self, plan: Plan, reporter: Reporter, study_dir: Path | None) -> None:
        require_trackers(plan.config)
        check_search(plan.config)
        self.plan, self.reporter, self.study_dir = plan, reporter, study_dir
        self.is_resumed = study_dir is not None
        self.selection = selection_splits(plan.config, plan.splits)
        self.config = with_absolute_paths(_with_a_space(plan.config, len(self.selection.train)))
        self.device_type = device_type_of(self.config, on_ray=True)
        self.retraining = retraining_splits(self.config, plan.splits)
        self.final = _for_all_training_images(self.config, has_test=plan.splits.test is not None)
        self.points = draw_points(self.config, len(self.selection.train))
        is_open_ended = self.config.tune.sampler == "optuna"
        self.num_trials = self.config.tune.num_trials if is_open_ended else len(self.points)

    def go_on_if_begun(self) -> None:
        """Take over the study of the same name, when there is one.

        Raises:
            ConfigError: no name is set, or the study there is another one.
        """
        study_dir = named_run_directory(self.config)
        if study_dir.exists() and not is_study(study_dir):
            remove_unbegun_run(study_dir)
        if study_dir.exists():
            if not is_study(study_dir):
                raise ConfigError(f"{study_dir} is there, and no study; choose another name")
            require_same_study(study_dir, self.config)
            self.study_dir, self.is_resumed = study_dir, True

    def run(self) -> Study:
        """Search, retrain, write.

        Raises:
            NoGoodTrial: no trial finished.
            InterruptedRun: a signal; what was found so far is written.
        """
        started_s = time.monotonic()
        require_reachable()  # before anything is decoded or written
        study_dir, started_at = self._open_directory()
        try:
            with StopSignals() as stop, ray_session() as resources:
                self._search(study_dir, started_at, resources, stop)
                found = self._result(study_dir, started_at, None)
                certificate = self._certify(found, started_at, resources, stop)
        except InterruptedRun as stopped:
            self._write(self._result(study_dir, started_at, None))
            go_on = f"`raytricks tune --resume {shlex.quote(str(study_dir))}`"
            raise InterruptedRun(f"{stopped}; go on with {go_on}", stopped.signal_number) from None
        except RaytricksError:
            if not self.is_resumed and not any((study_dir / TRIALS).iterdir()):
                shutil.rmtree(study_dir)  # nothing was begun
            raise
        study = self._write(self._result(study_dir, started_at, certificate))
        self._say_outcome(study, time.monotonic() - started_s)
        if study.best_config is None:
            raise NoGoodTrial(
                f"{study_dir}: none of {len(found.trials)} trials finished, the first because: {_first_reason(found)}; "
                f"see {study_dir}/trials.csv and each trial's log.txt"
            )
        return study

    def show_forecast(self, lines: Sequence[str]) -> None:
        """Print the header and what the study will cost; writes nothing."""
        self._show_header()
        for line in lines:
            self.reporter.line(line)

    # -- pieces ----------------------------------------------------------------------------

    def _open_directory(self) -> tuple[Path, float]:
        if self.study_dir is None:
            self.study_dir = study_directory.create_study_directory(self.config, self.plan.stats.name)
        else:
            run_directory.require_same_data(self.study_dir, self.plan.splits)
            run_directory.write_config(self.study_dir, self.config)
        facts = {
            "seed": self.config.seed,
            "parts": keep_code(self.study_dir, self.config.brought),
            "data": run_directory.data_fingerprint(self.plan.splits),
            "launch": {"resumed": self.is_resumed},
        }
        run_directory.write_run_file(self.study_dir, facts)
        started_at = study_directory.begin(self.study_dir, {"data_name": self.plan.stats.name, **self._sizes})
        self.reporter.open_log(self.study_dir / run_directory.LOG_FILE)
        self._show_header()
        return self.study_dir, started_at

    @property
    def _sizes(self) -> dict[str, int]:
        return {
            "num_train": len(self.selection.train),
            "num_selection": len(self.selection.evaluation),
            "num_test": len(self.retraining.evaluation),
        }

    def _show_header(self) -> None:
        lines = study_header_lines(
            self.config,
            self.selection,
            len(self.retraining.evaluation),
            num_trials=self.num_trials,
            rungs=rungs(self.config),
            study_dir=self.study_dir,
        )
        for line in lines:
            self.reporter.line(line)

    def _search(self, study_dir: Path, started_at: float, resources, stop) -> None:
        budget = self.config.tune.budget_minutes
        self._run_trials(
            study_dir / TRIALS,
            self.config,
            self.selection,
            self.points,
            resources,
            stop,
            num_trials=self.num_trials,
            deadline=None if budget is None else started_at + 60 * budget,
        )

    def _run_trials(
        self,
        trials_dir: Path,
        base: ExperimentConfig,
        splits: DatasetSplits,
        points: tuple[Point, ...],
        resources: dict[str, float],
        stop,
        *,
        num_trials: int,
        configs: tuple[ExperimentConfig, ...] | None = None,
        deadline: float | None = None,
        name: str = "trial",
    ) -> None:
        task = StudyTask(
            base=base,
            splits=splits,
            data=prepare_data(splits, base.data),
            trials_dir=trials_dir.resolve(),
            points=points,
            num_trials=num_trials,
            configs=configs,
            deadline=deadline,
        )

        def stats_of(number: int) -> Facts:
            trial_dir = trial_directory(task.trials_dir, number)
            state, records = read_state(trial_dir), epoch_records(trial_dir)
            last = records[-1] if records else None
            return ({}, None, last) if state is None else (state.values, state.reason, last)

        progress = StudyProgress(
            self.reporter, epochs=base.recipe.epochs, num_trials=num_trials, stats_of=stats_of, name=name
        )
        progress.start()
        try:
            run_trials(
                task,
                resources=resources,
                use_gpu=self.device_type == "cuda",
                listener=progress.listen,
                stop_requested=stop,
                say=self.reporter.line,
                started=stop.install,
            )
        finally:
            self.reporter.stop()

    def _certify(self, result: StudyResult, started_at: float, resources, stop) -> Certificate | None:
        planned = plan_retraining(self.final, result)
        if planned is None:
            return None
        # of this winner: a study that goes on may find another one, whose runs must not be taken for these
        trials_dir = Path(result.study_dir) / RETRAIN / f"{result.best:03d}"
        arms = " and ".join(planned.arms)
        seeds = ", ".join(map(str, planned.seeds))
        self.reporter.line(f"retrain   {arms} with fresh seeds ({seeds}), on all training images")
        self._run_trials(
            trials_dir,
            planned.configs[0],
            self.retraining,
            tuple({"arm": arm, "seed": seed} for arm, seed in planned.jobs),
            resources,
            stop,
            num_trials=len(planned.jobs),
            configs=planned.configs,
            name="retrain",
        )
        outcomes = read_outcomes(trials_dir, started_at)
        for outcome in outcomes:
            if outcome.score is None:
                self.reporter.line(
                    f"warning   no certificate: retrain {outcome.number} {outcome.status}, {outcome.reason}"
                )
                return None
        return certify(planned, outcomes, result, len(self.retraining.evaluation))

    def _result(self, study_dir: Path, started_at: float, certificate: Certificate | None) -> StudyResult:
        return read_result(
            self.config,
            study_dir,
            data_name=self.plan.stats.name,
            started_at=started_at,
            sizes=self._sizes,
            certificate=certificate,
        )

    def _write(self, result: StudyResult) -> Study:
        return write_study(self.final, result)

    def _say_outcome(self, study: Study, elapsed_s: float) -> None:
        for line in outcome_lines(study.result, elapsed_s):
            self.reporter.line(line)


def _for_all_training_images(config: ExperimentConfig, *, has_test: bool) -> ExperimentConfig:
    """Return the config with the data section of a run that holds only test images out: the same ones for any seed."""
    data = config.data
    split = {
        "val_fraction": 0.0 if has_test else data.val_fraction,
        "split_seed": config.seed if data.split_seed is None else data.split_seed,
    }
    return config.model_copy(update={"data": data.model_copy(update=split)})


def _with_a_space(config: ExperimentConfig, num_train_images: int) -> ExperimentConfig:
    """Search the three knobs where the config names nothing to search."""
    tune = config.tune
    if tune.space:
        return config
    if tune.sampler == "grid":
        raise ConfigError(
            "tune.space is empty and tune.sampler is grid: nothing to list; name keys and their values, such as "
            "tune.space.tricks.mixup.alpha=[0,0.2]"
        )
    return config.model_copy(update={"tune": tune.model_copy(update={"space": three_knobs(config, num_train_images)})})


def _first_reason(result: StudyResult) -> str:
    return next((trial.reason for trial in result.trials if trial.reason), "no reason is known")
