"""Answers of a trained model from processes on Ray: labelled images in parts, or the parts of a prediction."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import ray

from raytricks.cluster.session import ray_session, require_resources
from raytricks.data.prepared import LabelledImages
from raytricks.training.answering import answers_of


def answers_on_ray(
    load_model: Callable[[], Any], data: LabelledImages, *, flip: bool, workers: int, use_gpu: bool
) -> np.ndarray:
    """Return the (N, K) float32 logits of a split, each worker giving a part of it.

    Args:
        load_model: gives the model in a worker; must travel there.

    Raises:
        ClusterError: no cluster, or no room on it.
    """
    with ray_session() as resources:
        require_resources(resources, num_workers=workers, cpus_per_worker=1, use_gpu=use_gpu)
        shared = ray.put(data)
        task = ray.remote(num_cpus=1, num_gpus=1 if use_gpu else 0)(_part)
        parts = [task.remote(load_model, shared, flip, rank, workers) for rank in range(workers)]
        return np.concatenate(ray.get(parts))


def _part(load_model: Callable[[], Any], data: LabelledImages, flip: bool, rank: int, world_size: int) -> np.ndarray:
    return answers_of(load_model(), data, flip=flip, rank=rank, world_size=world_size)


def parts_on_ray(
    make_predictor: Callable[[], Callable[[int], bytes]], parts: list[int], *, workers: int, use_gpu: bool
) -> Iterator[tuple[int, bytes]]:
    """Yield (part, its rows as a Parquet file) as they are made, by as many actors of Ray Data, a model in each.

    Only numbers go to the actors and rows come back: images are read and decoded where they are used.

    Args:
        make_predictor: gives, in an actor, the function of a part's number; must travel there.
    """
    with ray_session() as resources:
        require_resources(resources, num_workers=workers, cpus_per_worker=1, use_gpu=use_gpu)
        import ray.data  # half a second, paid only here

        ray.data.DataContext.get_current().enable_progress_bars = False
        ray.data.DataContext.get_current().execution_options.verbose_progress = False
        rows = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
        made = rows.map_batches(
            _PartMaker,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            num_gpus=1 if use_gpu else 0,
            fn_constructor_args=(make_predictor,),
        )
        for row in made.iter_rows():
            yield int(row["part"]), bytes(row["content"])


class _PartMaker:
    """An actor with its own model."""

    def __init__(self, make_predictor: Callable[[], Callable[[int], bytes]]) -> None:
        self._predict = make_predictor()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        parts = [int(part) for part in batch["part"]]
        return {"part": parts, "content": [self._predict(part) for part in parts]}
