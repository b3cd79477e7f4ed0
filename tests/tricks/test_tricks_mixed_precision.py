"""Mixed precision: the automatic choice, the context and the scaler."""

import pytest
import torch

from raytricks.tricks.mixed_precision import autocast, make_scaler, resolve_precision

CPU_QUERIES = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_precision_asked_for_is_kept(precision, device_type):
    assert resolve_precision(precision, device_type) == precision


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp16")])
def test_precision_auto_on_cuda_needs_native_bf16(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert resolve_precision("auto", "cuda") == expected


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "expected"),
    [(False, False, "fp32"), (True, False, "bf16"), (False, True, "bf16"), (None, None, "fp32")],
)
def test_precision_auto_on_cpu_needs_the_instructions(monkeypatch, avx512_bf16, amx, expected):
    for query, answer in zip(CPU_QUERIES, (avx512_bf16, amx), strict=True):
        if answer is None:
            monkeypatch.delattr(torch.cpu, query, raising=False)
        else:
            monkeypatch.setattr(torch.cpu, query, lambda answer=answer: answer, raising=False)
    assert resolve_precision("auto", "cpu") == expected


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)]
)
def test_precision_autocast_changes_the_arithmetic_and_not_the_weights(precision, dtype):
    layer = torch.nn.Linear(3, 2)
    with autocast("cpu", precision):
        output = layer(torch.rand(4, 3))
    assert output.dtype == dtype
    output.float().sum().backward()
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize(("precision", "enabled"), [("fp32", False), ("bf16", False), ("fp16", True)])
def test_precision_scaler_is_for_fp16(precision, enabled):
    scaler = make_scaler(precision, "cpu")
    assert scaler.is_enabled() is enabled
    loss = torch.tensor(2.0)
    assert (scaler.scale(loss) > loss).item() is enabled


def test_precision_scaler_skips_a_step_of_infinite_gradients():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaler = make_scaler("fp16", "cpu")
    scaler.scale(parameter.sum() * float("inf")).backward()
    scale = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(parameter, torch.ones(2))
    assert scaler.get_scale() < scale


def test_precision_rejects():
    with pytest.raises(ValueError, match="precision must be auto, fp32, fp16, bf16, got 'fp8'"):
        resolve_precision("fp8", "cpu")
    with pytest.raises(ValueError, match="device_type must be cpu or cuda, got 'tpu'"):
        resolve_precision("auto", "tpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_precision_autocast_on_a_gpu(precision):
    layer = torch.nn.Linear(8, 8, device="cuda")
    with autocast("cuda", precision):
        assert layer(torch.rand(4, 8, device="cuda")).element_size() == 2
    assert make_scaler(precision, "cuda").is_enabled() is (precision == "fp16")
    assert resolve_precision("auto", "cuda") in ("fp16", "bf16")
