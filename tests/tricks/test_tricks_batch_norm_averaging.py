"""Averaging of the batch-norm statistics."""

import torch
from torch import distributed, nn

from raytricks.models import resnet
from raytricks.tricks.batch_norm_averaging import average_batch_norm_buffers


class OtherWorkers:
    """Stands for torch.distributed: adds what the other workers hold."""

    def __init__(self, monkeypatch, num_workers, value):
        self.value, self.num_others, self.num_calls = value, num_workers - 1, 0
        monkeypatch.setattr(distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(distributed, "get_world_size", lambda: num_workers)
        monkeypatch.setattr(distributed, "all_reduce", self.all_reduce)

    def all_reduce(self, tensor):
        self.num_calls += 1
        tensor += self.num_others * self.value


def tiny():
    return resnet("resnet8", num_classes=3, width=4, stem="small")


def test_averaging_takes_the_mean_of_every_statistic(monkeypatch):
    workers = OtherWorkers(monkeypatch, num_workers=4, value=5.0)
    model = tiny()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    average_batch_norm_buffers(model)
    assert workers.num_calls == 1
    for name, buffer in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert torch.equal(buffer, before[name])
        else:
            torch.testing.assert_close(buffer, (before[name] + 15) / 4)


def test_averaging_leaves_other_buffers_and_the_weights_alone(monkeypatch):
    OtherWorkers(monkeypatch, num_workers=2, value=5.0)
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2, track_running_stats=False))
    model.register_buffer("scale", torch.ones(1))
    average_batch_norm_buffers(model)
    assert model[0].running_mean.tolist() == [2.5, 2.5]
    assert model.scale.item() == 1
    assert model[0].weight.tolist() == [1, 1]


def test_averaging_makes_no_call_without_need(monkeypatch):
    model = tiny()
    average_batch_norm_buffers(model)  # not initialised
    alone = OtherWorkers(monkeypatch, num_workers=1, value=5.0)
    average_batch_norm_buffers(model)
    pair = OtherWorkers(monkeypatch, num_workers=2, value=5.0)
    average_batch_norm_buffers(nn.Linear(2, 2))
    assert (alone.num_calls, pair.num_calls) == (0, 0)
    assert model.bn1.running_mean.tolist() == [0] * 4
