"""Where workers fit, without Ray."""

import pytest

from raytricks.cluster.placement import cpus_per_worker, require_chosen_device, require_room, room_for_workers
from raytricks.errors import ClusterError

HEAD, SMALL, GPUS = {"memory": 1e9}, {"CPU": 3.0}, {"CPU": 64.0, "GPU": 8.0}


def test_workers_do_not_spread_over_nodes():
    assert room_for_workers([SMALL, SMALL], cpus=2, use_gpu=False) == 2  # not 6 / 2
    assert room_for_workers([GPUS, HEAD], cpus=16, use_gpu=True) == 4
    assert room_for_workers([GPUS, SMALL], cpus=1, use_gpu=True) == 8


@pytest.mark.parametrize(
    ("nodes", "num_workers", "use_gpu", "expected"),
    [
        ([{"CPU": 2.0}], 2, False, 1),
        ([SMALL, SMALL, SMALL], 2, False, 3),  # 9 / 2 is 4, which no node has
        ([SMALL, SMALL], 4, False, 1),
        ([GPUS, GPUS], 16, True, 8),
        ([GPUS], 16, True, 8),  # a range of workers: those that fit now
        ([HEAD], 4, False, 1),
    ],
)
def test_workers_get_the_most_cpus_that_all_can_have(nodes, num_workers, use_gpu, expected):
    assert cpus_per_worker(nodes, num_workers, use_gpu=use_gpu) == expected


@pytest.mark.parametrize(
    ("nodes", "wanted", "message"),
    [
        (
            [SMALL, SMALL],
            {"num_workers": 3, "cpus_per_worker": 2},
            r"has 6 on 2 nodes; set workers=2, or workers=\[1, 3\]",
        ),
        ([SMALL], {"num_workers": 1, "cpus_per_worker": 4}, "has 3; set hardware.cpus_per_worker=3"),
        ([GPUS], {"num_workers": 9, "cpus_per_worker": 1, "use_gpu": True}, "has 8; set workers=8"),
        ([GPUS], {"num_workers": 8, "cpus_per_worker": 8, "use_gpu": True}, None),
        ([GPUS, SMALL], {"num_workers": 8, "cpus_per_worker": 16, "use_gpu": False}, "set workers=4"),
        ([{"CPU": 64.0, "GPU": 1.0}] * 2, {"num_workers": 2, "cpus_per_worker": 64, "use_gpu": True}, None),
    ],
)
def test_workers_that_never_fit_are_refused_with_what_does(nodes, wanted, message):
    wanted = {"use_gpu": False} | wanted
    if message is None:
        require_room(nodes, **wanted)
        return
    with pytest.raises(ClusterError, match=message):
        require_room(nodes, **wanted)


def test_gpus_of_a_cluster_are_not_left_idle_because_the_driver_has_none():
    with pytest.raises(ClusterError, match="8 GPUs .* set hardware.device=cuda or hardware.device=cpu"):
        require_chosen_device([HEAD, GPUS], "auto", use_gpu=False)
    for device, use_gpu in (("cpu", False), ("cuda", True), ("auto", True)):
        require_chosen_device([HEAD, GPUS], device, use_gpu=use_gpu)
    require_chosen_device([HEAD, SMALL], "auto", use_gpu=False)
