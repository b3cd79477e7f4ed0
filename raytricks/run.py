"""Carry a plan out: look at what it needs, open its directory, train it here or on Ray, say what came of it.

Imports torch and all that training needs, so nothing imports this module before a config is known to be valid.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
import errno
from pathlib import Path
import shlex
import time
from typing import Any, Literal

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from raytricks.cluster.checks.cluster import cluster_address
from raytricks.cluster.driver import clean_up, train_on_ray
from raytricks.cluster.session import require_reachable
from raytricks.config import ExperimentConfig
from raytricks.config.run_code import accepted_code, keep_code, require_same_code
from raytricks.data.jpeg import require_decoder
from raytricks.data.likeness import likeness_notes
from raytricks.data.prepared import prepare_data
from raytricks.errors import ConfigError, InterruptedRun, RaytricksError
from raytricks.models.cost import count_macs, count_parameters
from raytricks.models.registry import build_model, require_sides
from raytricks.models.weights import check_start
from raytricks.plan import Overrides, Plan, plan_of
from raytricks.recipe import doctor
from raytricks.recipe.chain import Chain, metrics_of
from raytricks.recipe.parallel_plan import ParallelPlan, plan_parallel, require_pairs
from raytricks.recipe.phases import epoch_ends
from raytricks.recipe.resolve import input_sides
from raytricks.report.header import header_lines
from raytricks.report.progress import Reporter
from raytricks.report.summary import summary_lines
from raytricks.training import run_directory
from raytricks.training.allocator import keep_freed_memory
from raytricks.training.fencing import begin_launch
from raytricks.training.loop import TrainingJob, run_epochs
from raytricks.training.records import METRICS_FILE, read_records
from raytricks.training.signals import StopSignals
from raytricks.training.teacher import check_teacher
from raytricks.training.trackers import require_trackers
from raytricks.training.worker import Worker

DeviceType = Literal["cpu", "cuda"]


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


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a plan needs and what is wrong with it, seen without training a step.

    Attributes:
        parallel: of the first phase, on the most workers.
        precision: fp32, fp16 or bf16; auto where the workers of a remote cluster agree on it.
        num_macs: multiply-accumulates of one image.
        findings: of the recipe doctor.
    """

    device_type: DeviceType
    parallel: ParallelPlan
    precision: str
    num_parameters: int
    num_macs: int
    findings: list[doctor.Finding]


def device_type_of(config: ExperimentConfig, *, on_ray: bool | None = None) -> DeviceType:
    """Return what a run is trained on; on a remote cluster `auto` follows the machine of the driver.

    Args:
        on_ray: trained by workers, whose machines may have GPUs when this one has none. None: as `workers` says.

    Raises:
        ConfigError: cuda in this process, which finds no GPU.
    """
    on_ray = config.most_workers > 0 if on_ray is None else on_ray
    wanted = config.hardware.device
    if wanted == "cpu" or torch.cuda.is_available():
        return "cpu" if wanted == "cpu" else "cuda"
    if wanted == "cuda" and not on_ray:
        raise ConfigError(
            "hardware.device is cuda, this machine has no usable GPU and workers=0 trains here; set workers=1 or more "
            "for the GPUs of a cluster, or hardware.device=cpu"
        )
    return "cuda" if wanted == "cuda" else "cpu"


def inspect(plan: Plan) -> Inspection:
    """Build the model without weights to start from, share the work out, and hold the recipe against the doctor.

    Raises:
        ConfigError: something that the run needs is not there, or does not fit together.
    """
    config, data = plan.config, plan.config.data
    assert data.channels is not None and data.image_size is not None
    require_decoder(data.decoder)
    require_trackers(config)
    check_start(config.model)
    distillation = config.tricks.distillation
    if distillation.teacher is not None:
        check_teacher(distillation.teacher, distillation.teacher_weights, plan.splits.class_names)
    device_type = device_type_of(config)
    counts = sorted({max(1, config.fewest_workers), max(1, config.most_workers)}, reverse=True)
    plans = [  # what is wrong with a later phase must show before the first step
        plan_parallel(phase.config, num_workers=count, device_type=device_type)
        for phase in plan.phases
        for count in counts
    ]
    model = build_model(
        config.model,
        num_classes=plan.splits.num_classes,
        in_channels=data.channels,
        image_size=data.image_size,
    )
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        for planned in plans:
            require_pairs(config, planned.num_workers, planned.fewest_images)
    metrics_of(config)  # refuses a name that there is not
    _require_lasting_parts(plan)
    require_sides(model, data.channels, input_sides(config))
    findings = doctor.diagnose(
        config,
        plan.stats,
        plan.recipe,
        device_type=device_type,
        precision=plans[0].precision,
        teacher=None if distillation.teacher is None else doctor.teacher_facts(distillation.teacher),
        class_names=plan.splits.class_names,
    )
    findings += doctor.data_findings(plan.splits.notes)
    is_remote, is_given = cluster_address() is not None, config.hardware.precision != "auto"
    return Inspection(
        device_type=device_type,
        parallel=plans[0],
        precision="auto" if config.most_workers and is_remote and not is_given else plans[0].precision,
        num_parameters=count_parameters(model),
        num_macs=count_macs(model, (data.channels, data.image_size, data.image_size)),
        findings=findings,
    )


def _require_lasting_parts(plan: Plan) -> None:
    """Refuse changes that turn on or off a part which is there from the first step or not at all."""
    first = _lasting(plan.config)
    problems = [
        f"changes[{index}]: {name} cannot be turned on or off in the course of a run: it is there from the first step "
        "or not at all; change its strength instead"
        for index, phase in enumerate(plan.phases[1:])
        for name in sorted(first ^ _lasting(phase.config))
    ]
    if problems:
        raise ConfigError(problems)


def _lasting(config: ExperimentConfig) -> set[str]:
    chain = Chain(config)
    return {call.part.place for slot in ("model", "reduction", "state", "measure") for call in chain.calls(slot)}


def find_run(plan: Plan, accept_changed: Collection[str] = ()) -> Path | None:
    """Return the directory of the unfinished run that a plan names; None where there is none yet.

    Raises:
        ConfigError: the plan has no name, or the run there has another recipe.
        DataError: its data has changed.
    """
    run_dir = run_directory.named_run_directory(plan.config)
    if run_dir.exists():
        run_directory.remove_unbegun_run(run_dir)
    if not run_dir.exists():
        return None
    run_directory.require_same_recipe(run_dir, run_directory.with_absolute_paths(plan.config), accept_changed)
    require_same_code(run_dir, plan.config.brought, accept_changed)
    run_directory.require_same_data(run_dir, plan.splits)
    return run_dir


def plan_again(run_dir: Path, overrides: Overrides, accept_changed: Collection[str] = ()) -> Plan:
    """Plan the rest of an unfinished run from its own config.

    Args:
        accept_changed: names of parts of the user's own that may have changed.

    Raises:
        ConfigError: the run is not there, is finished, or would get another recipe.
        DataError: its data has changed.
    """
    plan = plan_of(run_directory.open_run_to_resume(run_dir, overrides, accept_changed))
    run_directory.require_same_data(run_dir, plan.splits)
    return plan


def result_of_finished(run_dir: Path) -> RunResult | None:
    """Return the result of a run that has nothing left to do; None of one that has."""
    if not run_directory.is_finished(run_dir):
        return None
    clean_up(run_dir)
    return RunResult(run_dir, read_records(run_dir / METRICS_FILE))


def execute(
    plan: Plan,
    inspection: Inspection,
    reporter: Reporter,
    run_dir: Path | None = None,
    accept_changed: Collection[str] = (),
) -> RunResult:
    """Train a plan to its end, in this process or on Ray, and write its run directory.

    Args:
        run_dir: of an unfinished run, which goes on from its newest valid checkpoint; None: a new one.
        accept_changed: names of parts of the user's own that may have changed; run.json notes those that have.

    Raises:
        RaytricksError: see raytricks.errors for the kinds.
    """
    started_s, is_resumed = time.monotonic(), run_dir is not None
    if plan.config.most_workers:
        require_reachable()  # before anything is decoded or written
    plan = replace(plan, config=run_directory.with_absolute_paths(plan.config))
    made_parent = not Path(plan.config.output_dir).expanduser().exists()
    run_dir = run_dir or run_directory.create_run_directory(plan.config, plan.stats.name)
    launch = _open(run_dir, plan, inspection, is_resumed=is_resumed, accept_changed=accept_changed)
    reporter.open_log(run_dir / run_directory.LOG_FILE)
    show_header(plan, inspection, reporter, run_dir)
    try:
        with StopSignals() as stop:
            data = prepare_data(plan.splits, plan.config.data)
            if data.transform.value_range is not None:
                low, high = data.transform.value_range
                reporter.line(f"values    {low:g} to {high:g} of images of more than 8 bits become 0 to 255")
            for note in () if is_resumed else likeness_notes(plan.splits, data):
                reporter.line(f"note      {note}")
            job = TrainingJob(config=plan.config, data=data, run_dir=run_dir, launch=launch)
            if plan.config.most_workers:
                _train_on_ray(job, plan, inspection, reporter, stop)
            else:
                stop.install()
                reporter.start(epoch_ends(plan.phases))
                for _ in run_epochs(job, _this_process(job, inspection), stop_requested=stop, listener=reporter.record):
                    pass
    except BaseException as error:
        reporter.stop()
        if not is_resumed:
            run_directory.remove_if_empty_run(run_dir, with_parent=made_parent)
        resume = f"`raytricks train --resume {shlex.quote(str(run_dir))}`"
        if isinstance(error, InterruptedRun):
            how = f"go on with {resume}" if run_dir.exists() else "nothing was saved"
            raise InterruptedRun(f"{error}; {how}", error.signal_number) from None
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RaytricksError(f"{run_dir}: disk full; free some space, then {resume}") from error
        raise
    reporter.stop()
    records = read_records(run_dir / METRICS_FILE)
    seconds = time.monotonic() - started_s
    for line in summary_lines(run_dir, records, seconds, plan.splits.evaluation.origin, plan.splits.class_names):
        reporter.line(line)
    return RunResult(run_dir, records)


def show_header(plan: Plan, inspection: Inspection, reporter: Reporter, run_dir: Path | None = None) -> None:
    """Print what is about to be trained, on what and how."""
    lines = header_lines(
        plan.config,
        plan.splits,
        plan.stats,
        plan.phases,
        inspection.parallel,
        precision=inspection.precision,
        run_dir=run_dir,
        num_parameters=inspection.num_parameters,
        num_macs=inspection.num_macs,
        findings=inspection.findings,
    )
    for line in lines:
        reporter.line(line)


def _open(
    run_dir: Path, plan: Plan, inspection: Inspection, *, is_resumed: bool, accept_changed: Collection[str]
) -> str:
    """Write config.yaml and run.json and leave the launch's mark; returns the mark."""
    config = plan.config
    run_directory.write_config(run_dir, config)
    execution = vars(inspection.parallel) | {"precision": inspection.precision}
    launch: dict[str, Any] = {"execution": execution, "resumed": is_resumed}
    if accepted := accepted_code(run_dir, config.brought, accept_changed):
        launch["accepted_changes"] = accepted
    facts = {
        "parts": keep_code(run_dir, config.brought),
        "seed": config.seed,
        "data": run_directory.data_fingerprint(plan.splits),
        "recipe": plan.recipe.as_dict(),
        "changed_recipes": [phase.recipe.as_dict() for phase in plan.phases[1:]],
        "model": {"parameters": inspection.num_parameters, "macs": inspection.num_macs},
        "launch": launch,
    }
    run_directory.write_run_file(run_dir, facts)
    return begin_launch(run_dir)


def _train_on_ray(job: TrainingJob, plan: Plan, inspection: Inspection, reporter: Reporter, stop: StopSignals) -> None:
    def begin() -> None:
        stop.install()
        reporter.start(epoch_ends(plan.phases))

    train_on_ray(
        job,
        use_gpu=inspection.device_type == "cuda",
        listener=reporter.record,
        stop_requested=stop,
        started=begin,
        say=reporter.line,
    )


def _this_process(job: TrainingJob, inspection: Inspection) -> Worker:
    keep_freed_memory()
    if job.config.hardware.cpus_per_worker is not None:
        torch.set_num_threads(job.config.hardware.cpus_per_worker)
    return Worker(device=torch.device("cuda", 0) if inspection.device_type == "cuda" else torch.device("cpu"))
