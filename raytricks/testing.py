"""The contract that every part keeps, for authors to run: `check_part(ROW)`, or `raytricks parts check FILE.py:NAME`.

    from raytricks.testing import check_part

    def test_sharpen():
        check_part("sharpen.py:SHARPEN")

The parts that come with raytricks are held against it too. Each check is a few steps of a tiny network on tiny images.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
import io
import math
from pathlib import Path
import random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raytricks.config import flatten, to_nested
from raytricks.config.schema import ExperimentConfig, ModelConfig
from raytricks.config.schemas import schema_for
from raytricks.data.augmentation import Transform
from raytricks.data.batches import TrainBatch, TrainBatches
from raytricks.data.prepared import LabelledImages, PreparedData
from raytricks.data.store import UniformStore
from raytricks.parts.bring import absolute_spec, bring_row
from raytricks.parts.hooks import wanted_arguments
from raytricks.parts.part import CHOSEN_BY, Part
from raytricks.parts.registry import BUILT_IN
from raytricks.recipe.chain import Chain, image_chain, settings_of
from raytricks.recipe.parallel_plan import plan_parallel
from raytricks.recipe.recipe import make_recipe
from raytricks.recipe.resolve import training_sides
from raytricks.training.loss import RunContext
from raytricks.training.state import build_state
from raytricks.training.step import Stepper
from raytricks.training.step_log import STEP_VALUES
from raytricks.training.worker import Worker

_SIDE, _CLASSES, _IMAGES, _BATCH = 8, 5, 32, 8
_SMALL_OF_A_LIBRARY = "resnet18"  # which all of them have
_PLAIN: dict[str, object] = {
    "data.source": "digits",
    "data.augmentation": "none",
    "data.shift_pixels": 0,
    "data.image_size": _SIDE,
    "data.horizontal_flip": False,
    "model.name": "resnet8",
    "model.width": 8,
    "model.stem": "small",
    "recipe.epochs": 4,
    "recipe.global_batch_size": _BATCH,
}


class PartCheckError(AssertionError):
    """Checks that a part fails, a line each: what, and the remedy."""


def check_part(part: Part | str, expected_failures: Mapping[str, str] | None = None) -> list[str]:
    """Hold a part against the contract of its kind.

    Args:
        part: a row, or `FILE.py:NAME` or `package.module:NAME` of one.
        expected_failures: name of a check -> why it cannot hold; one that holds all the same is an error too.

    Returns:
        The names of the checks that were made.

    Raises:
        PartCheckError: with a line for each check that fails.
    """
    row = part if isinstance(part, Part) else bring_row("part_under_test", absolute_spec(part, Path.cwd()))
    expected = expected_failures or {}
    bench = _Bench(row)
    made: list[str] = []
    problems: list[str] = []
    for check in _CHECKS:
        if not check.suits(row):
            continue
        made.append(check.name)
        failure = _failure(check, bench)
        if failure is not None and check.name not in expected:
            problems.append(f"check {check.name}: {failure}")
        elif failure is None and check.name in expected:
            problems.append(f"check {check.name}: holds, though it was expected not to ({expected[check.name]})")
    if problems:
        raise PartCheckError("\n".join(problems))
    return made


def _failure(check: "_Check", bench: "_Bench") -> str | None:
    try:
        check.run(bench)
    except _Failed as failed:
        return str(failed)
    except Exception as error:  # whatever a part's code raises is a failure of the part
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return None


class _Failed(Exception):
    """A check does not hold; the message says what, and the remedy."""


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise _Failed(message)


@dataclass
class _Trial:
    """A few steps of a tiny run, without files."""

    config: ExperimentConfig
    stepper: Stepper
    state: Any
    batches: list[TrainBatch]

    def steps(self, first: int, last: int) -> list[dict[str, float]]:
        rows = []
        for batch in self.batches[first:last]:
            self.stepper.begin()
            self.stepper.accumulate(batch)
            row = self.stepper.update(self.stepper.gradient_norm())
            rows.append(dict(zip(STEP_VALUES + self.stepper.measured, row.tolist(), strict=True)))
        return rows

    def tensors(self) -> list[Tensor]:
        return [value.clone() for model in self.state.models for value in model.state_dict().values()]


@dataclass
class _Bench:
    """Makes trials of one part; what several checks need is made once."""

    row: Part
    _plain: list[Tensor] | None = field(default=None, repr=False)

    @property
    def on(self) -> dict[str, object]:
        return self.row.keyed(self.row.on)

    @property
    def is_built_in(self) -> bool:
        return self.row in BUILT_IN

    def config(self, settings: Mapping[str, object], channels: int = 3) -> ExperimentConfig:
        """Return the plain config with settings; every trick that can be off is off."""
        switched = (row for row in BUILT_IN if row.on and row.kind != "tracker")
        off = {key: value for row in switched for key, value in row.keyed(row.off).items()}
        values = off | _PLAIN | {"data.channels": channels} | dict(settings)
        brought = () if self.is_built_in else (self.row,)
        chosen = {key: values[key] for key in CHOSEN_BY.values() if key in values}
        if self.row.kind in CHOSEN_BY and self.row.kind not in ("model", "source") and not self.is_built_in:
            chosen[CHOSEN_BY[self.row.kind]] = values[CHOSEN_BY[self.row.kind]] = self.row.name
        return schema_for(chosen, brought).model_validate(to_nested(values))

    def trial(self, settings: Mapping[str, object], *, channels: int = 3, images: int | None = None) -> _Trial:
        """Return a trial; `images` caps a micro-batch."""
        config, worker = self.config(settings, channels), Worker()
        data = _data(channels)
        parallel = plan_parallel(config, num_workers=1, device_type="cpu")
        batches = TrainBatches(
            data=data.train,
            transform=data.transform,
            global_batch_size=config.recipe.global_batch_size,
            rank=0,
            world_size=1,
            images_per_device=images,
            seed=config.seed,
            device=worker.device,
            with_neighbours=bool(Chain(config).calls("blend")),
            image_tricks=image_chain(config),
            sides=training_sides(config),
        )
        run = RunContext(config=config, data=data, batches=batches, worker=worker, parallel=parallel)
        state = build_state(config, class_names=data.class_names, worker=worker, precision=parallel.precision, run=run)
        stepper = Stepper(config, make_recipe(config, len(data.train)), state, worker, parallel.precision)
        return _Trial(config, stepper, state, list(batches.epoch(0)))

    def plain(self) -> list[Tensor]:
        """Return the weights after two steps without the part."""
        if self._plain is None:
            trial = self.trial({})
            trial.steps(0, 2)
            self._plain = trial.tensors()
        return self._plain


def _data(channels: int) -> PreparedData:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, _CLASSES, _IMAGES)
    pixels = rng.integers(0, 120, (_IMAGES, channels, _SIDE, _SIDE)).astype(np.uint8)
    pixels += (labels * 25).astype(np.uint8)[:, None, None, None]
    images = LabelledImages(UniformStore(pixels), labels.astype(np.int64), "checks")
    transform = Transform(
        kind="none", image_size=_SIDE, mean=(0.4,) * channels, std=(0.2,) * channels, horizontal_flip=False
    )
    names = tuple(str(label) for label in range(_CLASSES))
    return PreparedData(
        class_names=names, channels=channels, transform=transform, train=images, evaluation=images, test=None
    )


# -- checks ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Check:
    name: str
    suits: Callable[[Part], bool]
    run: Callable[[_Bench], None]


def _has_switch(row: Part) -> bool:
    """A trick that a tiny run can turn on; a teacher is a run of its own, which it has not."""
    return row.kind in ("trick", "optimizer", "loss") and bool(row.on) and "teacher" not in row.on


def _fills(*slots: str) -> Callable[[Part], bool]:
    return lambda row: row.hooks is not None and any(getattr(row.hooks, slot) is not None for slot in slots)


def _off(bench: _Bench) -> None:
    row = bench.row
    if not bench.is_built_in and row.kind == "trick":
        by_default = row.is_on(flatten(bench.config({})))
        _require(not by_default, f"off={dict(row.off)} is not the default, so that naming it turns it on; make it so")
    trial = bench.trial(row.keyed({**row.off, **row.dormant}))
    trial.steps(0, 2)
    _require(_equal(trial.tensors(), bench.plain()), f"off={dict(row.off)} changes the run; make it do nothing")


def _on(bench: _Bench) -> None:
    trial = bench.trial(bench.on)
    rows = trial.steps(0, 2)
    is_finite = all(math.isfinite(value) for row in rows for value in row.values())
    _require(is_finite, f"a step of {dict(bench.row.on)} is not finite")
    changes = not _equal(trial.tensors(), bench.plain())
    if bench.row.does == "weights":
        _require(changes, f"on={dict(bench.row.on)} changes nothing; name a setting that does, or does='measurement'")
    else:
        _require(not changes, f"does={bench.row.does!r} changes the weights; say does='weights'")


def _resume(bench: _Bench) -> None:
    """Two steps, against one step, everything through a file and back, and the other step."""
    whole, half, resumed = (bench.trial(bench.on) for _ in range(3))
    whole.steps(0, 2)
    half.steps(0, 1)
    file = io.BytesIO()
    buffers = torch.cat([b.flatten() for m in half.state.models for b in m.buffers() if b.is_floating_point()])
    torch.save(half.state.content(buffers[None]), file)
    file.seek(0)
    try:
        content = torch.load(file, weights_only=True)
    except Exception:
        raise _Failed("state holds more than tensors and plain values; return those from state_dict()") from None
    resumed.state.load(content, Worker())
    resumed.steps(1, 2)
    _require(
        _equal(whole.tensors(), resumed.tensors()), "step 2 differs; what it carries must be in state_dict() whole"
    )


def _micro_batches(bench: _Bench) -> None:
    settings = {"model.norm": "group", **bench.on}
    whole, pieces = bench.trial(settings), bench.trial(settings, images=3)
    whole.steps(0, 1)
    pieces.stepper.begin()
    for batch in pieces.batches:
        pieces.stepper.accumulate(batch)
        if batch.is_last_of_step:
            break
    pieces.stepper.update(pieces.stepper.gradient_norm())
    close = all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-4)
        for a, b in zip(whole.tensors(), pieces.tensors(), strict=True)
        if a.is_floating_point()
    )
    _require(close, "a batch in pieces gives another step; return one value an image, no mean")


def _gray(bench: _Bench) -> None:
    problems = Chain(bench.config(bench.on, 1)).problems(
        channels=1, num_workers=1, device_type="cpu", precision="fp32", forward_passes=(1,)
    )
    if not problems:
        bench.trial(bench.on, channels=1).steps(0, 1)


def _draws(bench: _Bench) -> None:
    images = torch.randint(0, 256, (4, 3, _SIDE, _SIDE)).to(torch.uint8)
    config = bench.config(bench.on)
    with _watched_generators() as touched:
        _call_images(bench.row, config, images)
    _require(not touched, f"{' and '.join(touched)} was used; draw from what is handed over, set num_draws")


def _pure(bench: _Bench) -> None:
    images = torch.randint(0, 256, (4, 3, _SIDE, _SIDE), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    for given in (images, images.float()):
        before = given.clone()
        _call_images(bench.row, bench.config(bench.on), given)
        _require(torch.equal(given, before), "it wrote into its input; return a new tensor")


def _alone(bench: _Bench) -> None:
    """An image's result depends on its own draws, and on nothing else in the batch."""
    images = torch.randint(0, 256, (6, 3, _SIDE, _SIDE), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    config = bench.config(bench.on)
    together = _call_images(bench.row, config, images)
    _require(together.shape == images.shape, f"got {tuple(together.shape)} of {tuple(images.shape)}; keep the shape")
    one = torch.cat([_call_images(bench.row, config, images[i : i + 1], first=i) for i in range(6)])
    _require(torch.allclose(together, one, atol=1e-3), "an image depends on others in its batch; use its own draws")


def _others(bench: _Bench) -> None:
    """The holes of random erasing stay where they are."""
    if bench.row.name == "random_erasing":
        return
    erased = {"tricks.random_erasing.probability": 0.9}
    alone, beside = bench.trial(erased), bench.trial({**erased, **bench.on})
    for a, b in zip(alone.batches, beside.batches, strict=True):
        if a.inputs.shape == b.inputs.shape:
            hole = (a.inputs == 0).all(dim=1, keepdim=True)
            _require(
                bool((b.inputs.masked_select(hole.expand_as(b.inputs)) == 0).all()),
                "another part's draws change when it is on; draw only from what is handed over",
            )


def _bounds(bench: _Bench) -> None:
    settings = bench.row.settings
    fields = settings.model_fields if isinstance(settings, type) else {}
    for name, info in fields.items():
        for low_or_high in (("ge", "gt"), ("le", "lt")):
            bounds = [m for m in info.metadata if any(hasattr(m, kind) for kind in low_or_high)]
            for bound in bounds:
                kind = next(k for k in low_or_high if hasattr(bound, k))
                if kind in ("gt", "lt"):
                    continue  # not reached
                value = getattr(bound, kind)
                value = int(value) if info.annotation is int else float(value)
                rows = bench.trial({**bench.on, bench.row.key(name): value}).steps(0, 1)
                is_finite = all(math.isfinite(figure) for figure in rows[0].values())
                _require(is_finite, f"{name}={value} gives a step that is not finite")


def _loss_shape(bench: _Bench) -> None:
    hooks, settings = bench.row.hooks, _default_settings(bench.row)
    assert hooks is not None and hooks.loss is not None
    logits = torch.randn(6, _CLASSES, generator=torch.Generator().manual_seed(3), requires_grad=True)
    targets = torch.full((6, _CLASSES), 1 / _CLASSES)
    offered = {"logits": logits, "targets": targets, "settings": settings}
    losses = _called("loss", hooks.loss, offered)
    _require(losses.shape == (6,), f"got {tuple(losses.shape)} for 6 images; return (n,)")
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    _require(bool(gradient.isfinite().all()) and bool(gradient.any()), "its gradient is 0 or not finite")


def _counts(bench: _Bench) -> None:
    hooks, settings = bench.row.hooks, _default_settings(bench.row)
    assert hooks is not None and hooks.counts is not None and hooks.value is not None
    generator = torch.Generator().manual_seed(4)
    logits, labels = torch.randn(20, _CLASSES, generator=generator), torch.arange(20) % _CLASSES

    count = hooks.counts

    def counts(a: int, b: int) -> Tensor:
        offered = {"logits": logits[a:b], "labels": labels[a:b], "num_classes": _CLASSES, "settings": settings}
        return _called("counts", count, offered).double()

    whole, parts = counts(0, 20), counts(0, 7) + counts(7, 7) + counts(7, 20)
    _require(torch.allclose(whole, parts), "counts of parts do not add up to those of the whole; return sums, no means")
    value = _called("value", hooks.value, {"counts": whole, "settings": settings})
    _require(isinstance(value, float), f"value is a {type(value).__name__}; return a float")


def _model_answers(bench: _Bench) -> None:
    hooks = bench.row.hooks
    assert hooks is not None and hooks.build is not None
    settings = _default_settings(bench.row)
    if bench.is_built_in:  # theirs are those of the section, which holds the name
        settings = ModelConfig(name=bench.row.name + (_SMALL_OF_A_LIBRARY if bench.row.name.endswith(":") else ""))
    offered = {"num_classes": _CLASSES, "in_channels": 3, "image_size": 32, "settings": settings}
    model = _called("build", hooks.build, offered).eval()
    answer = model(torch.zeros(2, 3, 32, 32))
    wrong = f"gave {tuple(answer.shape)} for 2 images of {_CLASSES} classes; return (N, K)"
    _require(answer.shape == (2, _CLASSES), wrong)


def _tracks(bench: _Bench) -> None:
    """A record taken and the end told, in a directory that is then thrown away."""
    track = bench.row.hooks.track if bench.row.hooks is not None else None
    assert track is not None
    config = bench.config(bench.on)
    with TemporaryDirectory() as folder, chdir(folder):
        offered = {"run_dir": Path(folder, "run"), "config": config, "settings": settings_of(config, bench.row)}
        Path(folder, "run").mkdir()
        tracker = _called("track", track, offered)
        _require(isinstance(getattr(tracker, "name", None), str), "it has no name; a failure is told under it")
        tracker.log("step", 1, {"objective": 0.5})
        tracker.close(True)


_CHECKS = (
    _Check("off", _has_switch, _off),
    _Check("on", _has_switch, _on),
    _Check("bounds", lambda row: _has_switch(row) and row.kind == "trick", _bounds),
    _Check("resume", _has_switch, _resume),
    _Check("micro_batches", _has_switch, _micro_batches),
    _Check("gray", _has_switch, _gray),
    _Check("draws", lambda row: _has_switch(row) and _fills("pixels", "inputs")(row), _draws),
    _Check("pure", lambda row: _has_switch(row) and _fills("pixels", "inputs")(row), _pure),
    _Check("alone", lambda row: _has_switch(row) and _fills("pixels", "inputs")(row), _alone),
    _Check("others", lambda row: _has_switch(row) and _fills("pixels", "inputs")(row), _others),
    _Check("losses", _fills("loss"), _loss_shape),
    _Check("counts", _fills("counts"), _counts),
    _Check("tracks", lambda row: row not in BUILT_IN and _fills("track")(row), _tracks),
    _Check("answers", lambda row: row.kind == "model" and _fills("build")(row), _model_answers),
)


def _call_images(row: Part, config: ExperimentConfig, images: Tensor, first: int = 0) -> Tensor:
    """Return what a part's `pixels` and `inputs` make of (n, C, S, S) images, with draws of their own.

    Args:
        first: number of the first image, which its draws depend on.
    """
    chain = Chain(config)
    draws = np.random.default_rng(9).random((first + len(images), max(1, row.hooks.num_draws if row.hooks else 0)))
    given = draws[first:, : row.hooks.num_draws] if row.hooks else draws
    for slot in ("pixels", "inputs"):
        for call in chain.calls(slot):
            images = images.float() if slot == "inputs" else images
            images = call(images=images, draws=given)
    return images.float()


def _default_settings(row: Part) -> Any:
    return row.settings() if isinstance(row.settings, type) else None


def _called(slot: str, function: Callable[..., Any], offered: Mapping[str, Any]) -> Any:
    return function(**{name: offered[name] for name in wanted_arguments(slot, function)})


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, second, strict=True)
    )


@contextmanager
def _watched_generators() -> Iterator[list[str]]:
    """Yield the names of the global generators that were used, known at the end."""
    states: dict[str, Callable[[], Any]] = {
        "python's generator": random.getstate,
        "numpy's generator": lambda: np.random.get_state()[1].tolist(),  # type: ignore[union-attr, index]
        "torch's generator": lambda: torch.get_rng_state().tolist(),
    }
    before = {name: state() for name, state in states.items()}
    touched: list[str] = []
    yield touched
    touched += [name for name, state in states.items() if state() != before[name]]


__all__ = ["PartCheckError", "check_part"]
