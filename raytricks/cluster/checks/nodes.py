"""Ask every node of a cluster what it is and what it sees, and judge the answers together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
import time
from typing import Any
import uuid

import ray
from ray import cloudpickle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raytricks import limits
from raytricks.cluster.checks import probe as probe_module
from raytricks.cluster.checks.machine import check_machines
from raytricks.cluster.checks.probe import describe_path, read_facts, read_mark, write_mark
from raytricks.cluster.checks.result import CheckResult, fail, ok, warn
from raytricks.cluster.checks.storage import judge_data, judge_storage

_ANSWER_TIMEOUT_S = 90.0  # of all nodes together; a busy node takes tens of seconds to start a process
_FILE_TIMEOUT_S = 10.0  # an NFS client may take seconds to show what another machine wrote
_CLOCK_LIMIT_S = 2.0
_CLOCK_QUESTIONS = 3


@dataclass
class NodeAnswers:
    """What came back.

    Attributes:
        answers: node's address -> what `NodeProbe.answer` returned there.
        silent: node's address -> why it has no answer.
        clocks: node's address -> (how far its clock is ahead of this machine's, how far that may be off), seconds.
        unseen: nodes whose file in the trial directory is not seen here.
        data_here: what `describe_path` said of the data on this machine when they were asked.
    """

    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    clocks: dict[str, tuple[float, float]] = field(default_factory=dict)
    unseen: set[str] = field(default_factory=set)
    data_here: dict[str, Any] | None = None


def judge_nodes(found: NodeAnswers, output_dir: Path, data_path: str | None) -> Iterator[CheckResult]:
    """Judge the answers of all nodes."""
    for node, reason in found.silent.items():
        yield fail(
            "node", f"{node} does not answer: {reason}", "look at its logs, in session_latest/logs, or restart it"
        )
    if not found.answers:
        return
    here = read_facts({"output_dir": str(output_dir)})
    yield judge_versions(here, found.answers)
    yield judge_clocks(found.clocks)
    yield judge_storage(output_dir, found.answers, found.unseen)
    if found.data_here is not None:
        yield judge_data(str(data_path), found.data_here, found.answers)
    for result in check_machines(found.answers, is_cluster=True):
        yield replace(result, subject=f"{result.subject} (nodes)")


def judge_versions(here: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]]) -> CheckResult:
    """Compare the packages of the nodes with those of this machine: Ray and Python must be equal."""
    serious, slight = [], []
    for node, answer in answers.items():
        pairs = {"Python": (answer["python"], here["python"])}
        pairs |= {name: (version, here["packages"][name]) for name, version in answer["packages"].items()}
        for name, (there, ours) in pairs.items():
            if there == ours:
                continue
            line = f"{name} is {there or 'missing'} on node {node}, {ours or 'missing'} here"
            (serious if name in ("Python", "ray") or there is None else slight).append(line)
    subject = "versions (nodes)"
    remedy = "install the same versions on all machines; `raytricks submit` brings raytricks itself along"
    if serious:
        return fail(subject, "; ".join(serious + slight), remedy)
    if slight:
        return warn(subject, "; ".join(slight), remedy)
    return ok(subject, f"the same as here on {len(answers)} node{'s' if len(answers) > 1 else ''}")


def judge_clocks(clocks: Mapping[str, tuple[float, float]]) -> CheckResult:
    """Say whether the clocks agree, this machine's among them.

    Args:
        clocks: see NodeAnswers.
    """
    offsets = {"here": (0.0, 0.0), **clocks}
    earliest = min(offsets, key=lambda name: offsets[name][0])
    latest = max(offsets, key=lambda name: offsets[name][0])
    difference_s = offsets[latest][0] - offsets[earliest][0]
    surely_s = difference_s - offsets[latest][1] - offsets[earliest][1]
    if surely_s > _CLOCK_LIMIT_S:
        found = f"{latest} is {difference_s:.1f} s ahead of {earliest}"
        return warn("clocks", found, "have all machines set their clocks by NTP (chrony, systemd-timesyncd)")
    return ok("clocks", f"they differ by {max(surely_s, 0):.1f} s or less")


def ask_nodes(nodes: Mapping[str, str], trial_dir: Path, output_dir: Path, data_path: str | None) -> NodeAnswers:
    """Start a probe on each node, pinned to it and without a CPU of its own, and collect what they say."""
    mark = uuid.uuid4().hex
    write_mark(trial_dir / "driver", mark)
    request = {"trial_dir": str(trial_dir), "mark": mark, "output_dir": str(output_dir), "data_path": data_path}
    found = NodeAnswers(data_here=None if data_path is None else describe_path(data_path))
    carried = (probe_module, limits)  # a node may lack raytricks
    for module in carried:
        cloudpickle.register_pickle_by_value(module)
    probes: dict[str, Any] = {}
    try:
        for name, node_id in nodes.items():
            pinned = NodeAffinitySchedulingStrategy(node_id, soft=False)
            probe = ray.remote(num_cpus=0)(probe_module.NodeProbe).options(scheduling_strategy=pinned)
            probes[name] = probe.remote()
        _collect(probes, {name: request | {"node": nodes[name]} for name in nodes}, found)
        for name in list(found.answers):
            try:
                found.clocks[name] = _compare_clocks(probes[name])
            except RayError as error:  # it has gone meanwhile
                del found.answers[name]
                found.silent[name] = _reason(error)
    finally:
        for module in carried:
            cloudpickle.unregister_pickle_by_value(module)
        for probe in probes.values():
            ray.kill(probe)
    deadline_s = time.monotonic() + _FILE_TIMEOUT_S
    for name, answer in found.answers.items():
        left_s = max(0.0, deadline_s - time.monotonic())
        if answer["storage"] is None and not read_mark(trial_dir / nodes[name], mark, left_s):
            found.unseen.add(name)
    return found


def _collect(probes: Mapping[str, Any], requests: Mapping[str, dict[str, Any]], found: NodeAnswers) -> None:
    """Wait for all answers at once."""
    pending = {name: probe.answer.remote(requests[name]) for name, probe in probes.items()}
    ray.wait(list(pending.values()), num_returns=len(pending), timeout=_ANSWER_TIMEOUT_S)
    for name, reference in pending.items():
        try:
            found.answers[name] = ray.get(reference, timeout=0.1)
        except RayError as error:
            found.silent[name] = _reason(error)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing within {_ANSWER_TIMEOUT_S:.0f} s"
    return str(error).strip().splitlines()[-1]


def _compare_clocks(probe: Any) -> tuple[float, float]:
    """Return how far a node's clock is ahead and how far that may be off; the quickest answer counts."""
    measured: list[tuple[float, float]] = []
    for _ in range(_CLOCK_QUESTIONS):
        asked_s, started_s = time.time(), time.perf_counter()
        there_s: Any = ray.get(probe.now.remote(), timeout=_ANSWER_TIMEOUT_S)
        half_s = (time.perf_counter() - started_s) / 2
        measured.append((half_s, there_s - asked_s - half_s))
    half_s, ahead_s = min(measured)
    return ahead_s, half_s
