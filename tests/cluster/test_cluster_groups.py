"""What an actor has taken is free again once the actor is killed, while its job goes on."""

import time

import pytest

from raytricks.cluster.session import ray_session

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_placement_groups_of_a_killed_actor_are_freed_while_its_job_goes_on():
    with ray_session() as resources:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        from raytricks.cluster.groups import free_after_death, groups_of

        @ray.remote(num_cpus=0)
        class Controller:
            def take(self, cpus: float) -> str:
                own_id = ray.get_runtime_context().get_actor_id()
                assert own_id is not None
                free_after_death(own_id)
                self.taken = placement_group([{"CPU": cpus}])
                self.waiting = placement_group([{"CPU": cpus}])  # without room
                assert self.taken.wait(30)
                return own_id

        cpus = resources["CPU"]
        trial = placement_group([{"memory": 2**20}])  # as of a trial, whose actors stay in it
        in_trial = PlacementGroupSchedulingStrategy(trial, placement_group_capture_child_tasks=True)
        killed, living = (Controller.options(scheduling_strategy=in_trial).remote() for _ in range(2))
        killed_id = ray.get(killed.take.remote(cpus))
        assert ray.available_resources().get("CPU", 0) == 0
        assert len(groups_of(killed_id)) == 2
        time.sleep(3)  # two looks
        assert len(groups_of(killed_id)) == 2  # the controller lives
        ray.kill(killed)
        give_up_at = time.monotonic() + 20
        while groups_of(killed_id) and time.monotonic() < give_up_at:
            time.sleep(0.2)
        assert not groups_of(killed_id)
        living_id = ray.get(living.take.remote(cpus), timeout=60)  # the CPUs are there for another one
        assert len(groups_of(living_id)) == 2
