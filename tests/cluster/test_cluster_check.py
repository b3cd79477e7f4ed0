"""`raytricks check` on a real cluster: two nodes, one of which does not share a directory, and no token."""

from pathlib import Path
import platform

import pytest
from ray_nodes import Nodes, ray_nodes

from raytricks.cluster.checks.access import check_dashboard, judge_cluster_authentication, own_addresses
from raytricks.cluster.checks.distributed import GroupMeasurement, judge_group
from raytricks.cluster.checks.machine import check_machines
from raytricks.cluster.checks.nodes import NodeAnswers, judge_clocks, judge_nodes, judge_versions
from raytricks.cluster.checks.probe import describe_path, leave_mark, read_facts, write_mark
from raytricks.cluster.checks.storage import judge_data, judge_storage, open_trial_directory

TOKEN = "0123456789abcdef-of-a-test"


def on_ray(test):
    """Mark a test that needs the cluster."""
    for mark in (pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)):
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def nodes():
    with ray_nodes(dashboard_host="0.0.0.0") as running:
        yield running


def statuses(results: dict[str, dict]) -> dict[str, str]:
    return {subject: found["status"] for subject, found in results.items()}


@on_ray
def test_check_finds_what_is_wrong_with_a_cluster(nodes: Nodes):
    """Too few CPUs, a directory that only exists on each node, no token, a dashboard that is open to all."""
    (nodes.root / "apart" / "image").write_text("")
    apart = str(nodes.root / "apart")
    code, found = nodes.check(f"output_dir={apart}", f"data.path={apart}", "workers=4")
    assert code == 4
    assert found["workers"]["status"] == "FAIL" and "the cluster has 3" in found["workers"]["found"]
    assert found["authentication (cluster)"]["status"] == "warn"
    assert found["dashboard"]["status"] == "FAIL" and "without a token" in found["dashboard"]["found"]
    assert "2 nodes alive" in found["ray"]["found"]
    assert [found[name]["status"] for name in ("versions (nodes)", "clocks", "disk for Ray (nodes)")] == ["ok"] * 3
    if nodes.is_apart:
        assert found["storage"]["status"] == "ok"  # here it is writable
        assert found["storage (nodes)"]["status"] == found["data (nodes)"]["status"] == "FAIL"
        assert "does not see a file that was written here" in found["storage (nodes)"]["found"]
        assert "sees other files there" in found["data (nodes)"]["found"]
        assert "output_dir=/shared/runs" in found["storage (nodes)"]["remedy"]
    assert sorted(p.name for p in (nodes.root / "apart").iterdir()) == ["image"]


@on_ray
def test_check_distributed_trains_with_two_workers(nodes: Nodes):
    runs = nodes.root / "shared" / "runs"
    code, found = nodes.check(f"output_dir={runs}", f"data.path={nodes.root / 'shared'}", "workers=2", "--distributed")
    faults = {name for name, status in statuses(found).items() if status != "ok"}
    assert (code, faults) == (4, {"authentication (cluster)", "dashboard"})
    assert "the same on 2 nodes" in found["storage (nodes)"]["found"]
    assert "2 workers" in found["distributed"]["found"] and "with gloo" in found["distributed"]["found"]
    assert "all-reduce of 4 MiB" in found["distributed"]["found"] and "equal weights" in found["distributed"]["found"]
    assert not runs.exists()  # as before


@on_ray
def test_check_of_a_cluster_of_other_versions_is_one_line(nodes: Nodes):
    change = f"""
import json
from ray._raylet import GcsClient
gcs, place = GcsClient(address="{nodes.address}"), {{"namespace": b"cluster"}}
there = json.loads(gcs.internal_kv_get(b"CLUSTER_METADATA", **place))
there["python_version"] = "VERSION"
gcs.internal_kv_put(b"CLUSTER_METADATA", json.dumps(there).encode(), True, **place)
"""
    nodes.run_python(change.replace("VERSION", "3.9.1"))
    try:
        code, found = nodes.check(f"output_dir={nodes.root / 'shared'}")
    finally:
        nodes.run_python(change.replace("VERSION", platform.python_version()))
    assert code == 4 and found["ray"]["status"] == "FAIL"
    assert f"Python is 3.9.1 there, {platform.python_version()} here" in found["ray"]["found"]


@on_ray
def test_check_of_an_address_that_is_no_head_is_one_line(nodes: Nodes):
    code, found = nodes.check(f"output_dir={nodes.root / 'shared'}", RAY_ADDRESS=f"127.0.0.1:{nodes.dashboard_port}")
    assert code == 4 and "is no head" in found["ray"]["found"] and "HOST:6379" in found["ray"]["remedy"]


@on_ray
def test_check_of_a_head_with_a_token():
    with ray_nodes(dashboard_host="0.0.0.0", token=TOKEN, num_nodes=1) as head:
        runs = f"output_dir={head.root / 'shared'}"
        code, found = head.check(runs)
        assert (code, {*statuses(found).values()}) == (0, {"ok"})
        assert "asks for a token" in found["dashboard"]["found"] and TOKEN not in str(found)
        code, found = head.check(runs, HOME=str(head.root / "shared"))
        assert code == 4 and "asks for a token, there is none here" in found["ray"]["found"]
        code, found = head.check(runs, RAY_AUTH_TOKEN="wrong-secret")
        assert code == 4 and "RAY_AUTH_TOKEN is another one's" in found["ray"]["found"]
        assert "wrong-secret" not in str(found)


# -- the judgement of answers, with real answers changed ----------------------------------------------


@pytest.fixture
def answers(tmp_path) -> dict[str, dict]:
    """What two nodes answer that are this machine."""
    with open_trial_directory(tmp_path / "runs") as trial_dir:
        write_mark(trial_dir / "driver", "mark")
        return {
            name: {
                "storage": leave_mark(trial_dir, "mark", name),
                "data": describe_path(str(tmp_path)),
                **read_facts({"output_dir": str(tmp_path)}),
            }
            for name in ("a", "b")
        }


def test_answers_of_healthy_nodes_have_nothing_to_do(answers, tmp_path):
    clocks = {"a": (0.001, 0.002), "b": (-0.1, 0.1)}
    results = list(judge_nodes(NodeAnswers(answers=answers, clocks=clocks), tmp_path, None))
    assert [r for r in results if r.status != "ok"] == []
    assert not (tmp_path / "runs").exists()


def test_a_node_that_sees_no_mark_or_whose_mark_does_not_arrive_fails(answers, tmp_path):
    assert leave_mark(tmp_path / "elsewhere", "mark", "b") == "does not see a file that was written here"
    answers["b"]["storage"] = leave_mark(tmp_path / "elsewhere", "mark", "b")
    result = judge_storage(tmp_path, answers, set())
    assert result.status == "FAIL" and "node b does not see" in result.found and "node a" not in result.found
    answers["b"]["storage"] = None
    result = judge_storage(tmp_path, answers, {"b"})
    assert result.status == "FAIL" and "node b wrote a file that is not seen here" in result.found


def test_a_node_without_the_data_fails(answers, tmp_path):
    answers["b"]["data"] = describe_path(str(tmp_path / "nowhere"))
    result = judge_data(str(tmp_path), describe_path(str(tmp_path)), answers)
    assert result.status == "FAIL" and "node b does not see it" in result.found


def test_versions_of_ray_and_python_must_be_equal_and_others_should(answers):
    here = read_facts({})
    answers["a"]["packages"]["torch"] = "2.11.0"
    assert judge_versions(here, answers).status == "warn"
    answers["b"]["packages"]["ray"] = "2.55.0"
    result = judge_versions(here, answers)
    assert result.status == "FAIL" and "ray is 2.55.0 on node b" in result.found and "torch is 2.11.0" in result.found
    answers["b"]["packages"] = dict(here["packages"], raytricks=None)
    assert "raytricks is missing on node b" in judge_versions(here, answers).found


def test_clocks_that_surely_differ_by_more_than_two_seconds_warn():
    assert judge_clocks({"a": (2.5, 0.1)}).status == "warn"
    assert "a is 5.0 s ahead of b" in judge_clocks({"a": (2.0, 0.1), "b": (-3.0, 0.1)}).found
    assert judge_clocks({"a": (2.5, 1.0)}).status == "ok"  # it may be the network that took so long


def test_the_worst_node_decides_and_is_named(answers):
    answers["b"]["disks"]["output_dir"]["free"] = 2**20
    answers["a"]["open_files"] = 1024
    answers["b"]["shared_memory"] = {"total": 2**26, "free": 2**26}
    found = {result.subject: result for result in check_machines(answers, is_cluster=True)}
    assert found["disk for runs"].status == "FAIL" and found["disk for runs"].found.startswith("b:")
    assert found["open files"].status == "warn" and found["open files"].found.startswith("a: at most 1,024")
    assert found["shared memory"].status == "warn" and "--shm-size" in str(found["shared memory"].remedy)


def test_a_node_that_is_silent_fails_and_the_others_are_judged(answers, tmp_path):
    found = NodeAnswers(answers={"a": answers["a"]}, silent={"b": "nothing within 90 s"}, clocks={"a": (0.0, 0.0)})
    results = list(judge_nodes(found, tmp_path, None))
    assert results[0].status == "FAIL" and "b does not answer: nothing within 90 s" in results[0].found
    assert len(results) > 4
    results = list(judge_nodes(NodeAnswers(silent={"b": "gone"}), tmp_path, None))
    assert [r.status for r in results] == ["FAIL"]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"is_sum_right": False}, "wrong sum"),
        ({"loss": float("nan")}, "loss of the digits is nan"),
        ({"loss": float("inf")}, "loss of the digits is inf"),
        ({"weight_spread": 1e-7}, "weights differ"),
        ({"weight_spread": float("nan")}, "weights differ"),
    ],
)
def test_a_group_that_computes_something_else_fails(change, part):
    measured = {"backend": "gloo", "nodes": ("a",), "is_sum_right": True, "reduce_s": 0.01, "num_bytes": 2**22}
    measured |= {"loss": 2.3, "weight_spread": 0.0}
    assert judge_group(GroupMeasurement(**measured), 30).status == "ok"
    result = judge_group(GroupMeasurement(**measured | change), 30)
    assert result.status == "FAIL" and part in result.found


def test_a_cluster_half_of_which_asks_for_a_token_warns():
    assert judge_cluster_authentication({"token"}, "head:6379").status == "ok"
    assert judge_cluster_authentication({"token", "disabled"}, "head:6379").status == "warn"


def test_a_dashboard_at_no_node_of_the_cluster_is_not_contacted():
    assert check_dashboard(None, set()).found == "the cluster has none"
    result = check_dashboard("203.0.113.7:8265", {"10.0.0.1"})
    assert result.status == "warn" and "not looked at" in result.found
    assert not any(address.startswith("127.") for address in own_addresses())


def test_trial_directory_goes_with_the_parents_it_needed(tmp_path: Path):
    with open_trial_directory(tmp_path / "a" / "b") as trial_dir:
        assert trial_dir.is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with open_trial_directory(tmp_path / "a" / "b"):
        (tmp_path / "a" / "other").write_text("someone's")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["other"]
