"""Serve a trained model over HTTP with Ray Serve: POST an image file, get its most probable classes.

serve run serve_model:app model=runs/first
curl --data-binary @photo.jpg http://127.0.0.1:8000/
"""

import asyncio
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from starlette.requests import Request
from starlette.responses import JSONResponse
import torch

import raytricks
from raytricks.errors import DataError

MAX_BATCH = 32


# Serve lets 5 requests in at a time by default (Ray 2.60): a batch would never fill. On GPUs add
# ray_actor_options={"num_gpus": 1}; for more copies num_replicas.
@serve.deployment(max_ongoing_requests=2 * MAX_BATCH)
class Classifier:
    """One copy of the model."""

    def __init__(self, model: str) -> None:
        self.model = raytricks.load(model)

    async def __call__(self, request: Request) -> JSONResponse:
        try:  # one image at a time, so that a bad one costs no other its answer
            square = await asyncio.to_thread(self.model.preprocess.square, await request.body(), "the body")
        except DataError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse(await self.answers(square))

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.005)
    async def answers(self, squares: list[torch.Tensor]) -> list[dict[str, Any]]:
        logits = await asyncio.to_thread(self.model.logits_of_squares, torch.stack(squares))
        top = torch.from_numpy(self.model.probabilities(logits)).topk(min(5, self.model.num_classes))
        names = [[self.model.class_names[number] for number in row] for row in top.indices.tolist()]
        return [{"top": list(zip(*row, strict=True))} for row in zip(names, top.values.tolist(), strict=True)]


def app(args: dict[str, str]) -> Application:
    return Classifier.bind(str(Path(args["model"]).resolve()))
