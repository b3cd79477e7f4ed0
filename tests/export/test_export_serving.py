"""The deployment of docs/serving answers as the model does, many at once, and refuses what is no image."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
import io
import json
import os
from pathlib import Path
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
from PIL import Image
import pytest
import torch

import raytricks
from raytricks.config.schema import ModelConfig
from raytricks.data.augmentation import Transform
from raytricks.inference.model_file import save_model
from raytricks.models.registry import build_model

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]
FOLDER = Path(__file__).resolve().parents[2] / "docs" / "serving"
DRIVER = """
import sys
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
from ray import serve
from serve_model import Classifier, MAX_BATCH, app
assert Classifier.max_ongoing_requests >= 2 * MAX_BATCH
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(app({"model": sys.argv[2]}))
print("ready", flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model file of colour images read as crops, with a temperature."""
    torch.manual_seed(0)
    config = ModelConfig(name="resnet8", width=8)
    transform = Transform(kind="random_resized_crop", image_size=20, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    data = cast(Any, SimpleNamespace(class_names=("cat", "dog", "owl"), channels=3, transform=transform))
    net = build_model(config, num_classes=3, in_channels=3, image_size=20)
    path = tmp_path_factory.mktemp("served") / "model.safetensors"
    save_model(path, net.state_dict(), config, data, {}, calibration={"temperature": 1.7})
    return path


@pytest.fixture(scope="module")
def url(model) -> Iterator[str]:
    """Where the deployment answers, in a Ray of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(FOLDER), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRIVER, str(port), str(model)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    log = model.with_name("driver.log")
    with (
        log.open("w") as errors,
        subprocess.Popen(command, env=environment, text=True, stderr=errors, **pipes) as driver,
    ):
        assert driver.stdout is not None and driver.stdin is not None
        said = ""
        while said != "ready\n" and (said := driver.stdout.readline()):
            pass
        assert said == "ready\n", log.read_text()[-3000:]
        yield f"http://127.0.0.1:{port}/"
        driver.stdin.close()
        assert driver.wait(60) == 0, log.read_text()[-3000:]


def photo(seed: int) -> bytes:
    """A JPEG of noise, of a size of its own."""
    rng = np.random.default_rng(seed)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (25 + seed, 60 - seed, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def answer(url: str, body: bytes) -> dict:
    with urlopen(url, body, timeout=60) as response:
        return json.load(response)


def test_served_model_answers_as_the_model_does_many_at_once(model, url):
    photos = [photo(seed) for seed in range(20)] * 5
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda body: answer(url, body), photos))
    predictions = cast(list[raytricks.Prediction], raytricks.load(model).predict(photos[:20])) * 5
    for found, wanted in zip(answers, predictions, strict=True):
        assert [name for name, _ in found["top"]] == [name for name, _ in wanted.top()]
        assert [value for _, value in found["top"]] == pytest.approx([value for _, value in wanted.top()], abs=1e-5)


@pytest.mark.parametrize("body", [b"no image", b"", photo(3)[:300]], ids=["text", "nothing", "cut off"])
def test_served_model_refuses_what_is_no_image_and_goes_on(url, body):
    with pytest.raises(HTTPError) as refused:
        answer(url, body)
    with refused.value:
        assert refused.value.code == 400 and "the body" in json.load(refused.value)["error"]
    assert len(answer(url, photo(1))["top"]) == 3
