"""Answers of a trained model from processes on Ray: labelled images in parts, or the parts of a prediction."""

from collections.abc import Callable, Iterator
import logging
import os
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
    # Ray Data 2.60 gives its actors arguments in a way that Ray calls an error, at each start
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with ray_session() as resources:
        require_resources(resources, num_workers=workers, cpus_per_worker=1, use_gpu=use_gpu)
        import ray.data  # half a second, paid only here

        _quieten()
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        kept = [ray.put(make_predictor)]  # in a list, which Ray leaves as it is: an actor begun again asks for it anew
        rows = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
        made = rows.map_batches(
            _PartMaker,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            num_gpus=1 if use_gpu else 0,
            fn_constructor_args=(kept,),
        )
        for row in made.iter_rows():
            yield int(row["part"]), bytes(row["content"])


def _quieten() -> None:
    """Keep what Ray Data says of its plans off the terminal; its log files have it."""
    for handler in logging.getLogger("ray.data").handlers:
        if "File" not in type(handler).__name__:
            handler.setLevel(logging.ERROR)


class _PartMaker:
    """An actor with its own model."""

    def __init__(self, kept: list[ray.ObjectRef]) -> None:
        self._predict = ray.get(kept[0])()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        parts = [int(part) for part in batch["part"]]
        return {"part": parts, "content": [self._predict(part) for part in parts]}
