"""Evaluation against a straightforward loop."""

from dataclasses import replace
import math

import pytest
from sklearn.metrics import recall_score
import torch
import torch.nn.functional as F

from raytricks.errors import NonFiniteError
from raytricks.training.evaluation import evaluate
from raytricks.training.state import build_state
from raytricks.training.worker import Worker


def evaluated(model, job, batch_size, **changes) -> dict[str, float]:
    options = {"num_classes": job.data.num_classes, "precision": "fp32", "channels_last": True} | changes
    data, transform = job.data.evaluation, job.data.transform
    return evaluate(model, data, transform, worker=Worker(), batch_size=batch_size, **options)


def model_of(job):
    model = build_state(job.config, class_names=[str(n) for n in range(10)], worker=Worker(), precision="fp32").model
    for buffer in model.buffers():  # statistics that differ from those of any batch
        if buffer.is_floating_point():
            buffer.mul_(1.3)
    return model


@pytest.mark.parametrize("batch_size", [1, 16, 101, 1000])
@pytest.mark.parametrize("channels_last", [False, True])
def test_evaluation_equals_a_plain_loop(make_job, batch_size, channels_last):
    job = make_job(num_evaluation=101, tricks__zero_gamma=False)
    model = model_of(job).eval()
    pixels = torch.from_numpy(job.data.evaluation.images.pixels).float() / 255
    labels = torch.from_numpy(job.data.evaluation.labels)
    transform = job.data.transform
    with torch.no_grad():
        logits = model((pixels - transform.mean[0]) / transform.std[0])
    top5 = logits.topk(5).indices.eq(labels[:, None]).any(1).float().mean()
    metrics = evaluated(model, job, batch_size, channels_last=channels_last)
    assert metrics["num_images"] == 101
    assert metrics["top1"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert metrics["top5"] == pytest.approx(float(top5))
    assert metrics["cross_entropy"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    recalls = recall_score(labels, logits.argmax(1), average=None, labels=range(10))
    assert metrics["lowest_recall"] == pytest.approx(recalls.min())
    assert metrics["lowest_recall_class"] == recalls.argmin()


def test_evaluation_judges_no_class_that_has_no_image(make_job):
    job = make_job()
    images = job.data.evaluation
    keep = images.labels != 3
    few = replace(images, images=type(images.images)(images.images.pixels[keep]), labels=images.labels[keep])
    model = model_of(job)
    with torch.no_grad():
        model.fc.bias[:] = 1000 * (torch.arange(10) == 5)  # answers 5, whatever it is given
    metrics = evaluated(model, replace(job, data=replace(job.data, evaluation=few)), 16)
    assert (metrics["lowest_recall"], metrics["lowest_recall_class"]) == (0, 0)
    five = few.labels == 5
    only = replace(few, images=type(few.images)(few.images.pixels[five]), labels=few.labels[five])
    metrics = evaluated(model, replace(job, data=replace(job.data, evaluation=only)), 16)
    assert (metrics["lowest_recall"], metrics["lowest_recall_class"]) == (1, 5)


def test_evaluation_leaves_mode_and_statistics_alone(make_job):
    job = make_job()
    model = model_of(job).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluated(model, job, 16)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_evaluation_of_five_classes_has_no_top5(make_job):
    job = make_job()
    keep = job.data.evaluation.labels < 5
    images = type(job.data.evaluation.images)(job.data.evaluation.images.pixels[keep])
    few = replace(job.data.evaluation, images=images, labels=job.data.evaluation.labels[keep])
    job = replace(job, data=replace(job.data, evaluation=few, class_names=tuple("01234")))
    model = build_state(job.config, class_names=list("abcde"), worker=Worker(), precision="fp32").model
    assert "top5" not in evaluated(model, job, 16)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_evaluation_of_poisoned_weights_stops(make_job, value):
    job = make_job()
    model = model_of(job)
    with torch.no_grad():
        next(p for p in model.parameters() if p.ndim == 1).fill_(value)
    with pytest.raises(NonFiniteError, match="the evaluation loss is .*poisoned"):
        evaluated(model, job, 16)
