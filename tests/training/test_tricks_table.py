"""The TRICKS table: every trick and every pair of them trains, resumes and can be switched off."""

from dataclasses import dataclass, replace
import io
from itertools import combinations
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from raytricks.config import flatten, load_config
from raytricks.data.batches import TrainBatches
from raytricks.data.loading import find_data
from raytricks.data.prepared import LabelledImages, prepare_data
from raytricks.data.store import UniformStore
from raytricks.parts.part import Part
from raytricks.parts.registry import BUILT_IN
from raytricks.parts.tricks import TEACHER
from raytricks.recipe.chain import Chain, image_chain
from raytricks.recipe.parallel_plan import plan_parallel
from raytricks.recipe.recipe import make_recipe
from raytricks.recipe.resolve import resolve_config, stats_of, training_sides
from raytricks.report.parts_table import markdown_table
from raytricks.training.loop import TrainingJob, run_epochs
from raytricks.training.loss import RunContext
from raytricks.training.state import build_state
from raytricks.training.step import Stepper
from raytricks.training.step_log import STEP_VALUES
from raytricks.training.worker import Worker

TRICKS = tuple(row for row in BUILT_IN if row.on and row.kind != "tracker")
"""Every part that has a switch: the tricks, and the optimizers and losses that are not the default."""
PLAIN = {
    "data.source": "digits",
    "data.channels": 3,
    "data.augmentation": "none",
    "model.name": "resnet8",
    "model.width": 8,
    "recipe.epochs": 4,
    "recipe.global_batch_size": 8,
    "logging.tensorboard": False,
} | {key: value for trick in TRICKS for key, value in trick.keyed(trick.off).items()}


def are_exclusive(first: Part, second: Part) -> bool:
    """Return whether two parts turn the same switch, as two optimizers do, or say that they exclude each other."""
    is_shared = bool(first.keyed(first.on).keys() & second.keyed(second.on).keys())
    return is_shared or second.name in first.conflicts or first.name in second.conflicts


PAIRS = [pair for pair in combinations(TRICKS, 2) if not are_exclusive(*pair)]
IDS = [trick.name for trick in TRICKS]
PAIR_IDS = [f"{a.name} + {b.name}" for a, b in PAIRS]


@dataclass
class Trial:
    """A few steps of a tiny run, without files."""

    stepper: Stepper
    state: object
    micro_batches: list

    def steps(self, first: int, last: int) -> list[dict[str, float]]:
        rows = []
        for batch in self.micro_batches[first:last]:
            self.stepper.begin()
            self.stepper.accumulate(batch)
            row = self.stepper.update(self.stepper.gradient_norm())
            rows.append(dict(zip(STEP_VALUES + self.stepper.measured, row.tolist(), strict=True)))
        return rows

    def tensors(self) -> list[torch.Tensor]:
        return [value.clone() for model in self.state.models for value in model.state_dict().values()]


@pytest.fixture(scope="module")
def workbench(tmp_path_factory):
    """Return a function that makes a trial of settings; all share the data and one trained teacher."""
    splits = find_data(load_config(None, PLAIN).config.data, 0)
    folder = tmp_path_factory.mktemp("tricks")

    def resolved(settings):
        return resolve_config(load_config(None, PLAIN | settings).config, stats_of(splits))[0]

    data = prepare_data(splits, resolved({}).data)
    teacher_dir = folder / "teacher"
    teacher_dir.mkdir()
    few = _first(data, 32)
    torch.set_num_threads(1)
    list(run_epochs(TrainingJob(config=resolved({"seed": 9}), data=few, run_dir=Path(teacher_dir)), Worker()))

    def make(settings) -> Trial:
        settings = {k: str(teacher_dir) if v == TEACHER else v for k, v in settings.items()}
        config = resolved(settings)
        parallel = plan_parallel(config, num_workers=1, device_type="cpu")
        batches = TrainBatches(
            data=few.train,
            transform=data.transform,
            global_batch_size=8,
            rank=0,
            world_size=1,
            images_per_device=None,
            seed=config.seed,
            image_tricks=image_chain(config),
            device=torch.device("cpu"),
            with_neighbours=bool(Chain(config).calls("blend")),
            sides=training_sides(config),
        )
        run = RunContext(config=config, data=data, batches=batches, worker=Worker(), parallel=parallel)
        state = build_state(
            config, class_names=data.class_names, worker=Worker(), precision=parallel.precision, run=run
        )
        recipe = make_recipe(config, len(few.train))
        stepper = Stepper(config, recipe, state, Worker(), parallel.precision)
        return Trial(stepper, state, list(batches.epoch(0)))

    return make


def _first(data, count):
    def part(split):
        return LabelledImages(UniformStore(split.images.pixels[:count]), split.labels[:count], split.origin)

    return replace(data, train=part(data.train), evaluation=part(data.evaluation))


def require_a_trained_finite_step(trial: Trial) -> None:
    before = [p.detach().clone() for p in trial.state.model.parameters()]
    (row,) = trial.steps(0, 1)
    assert all(math.isfinite(value) for value in row.values()), row
    assert row["objective"] > 0 and row["grad_norm"] > 0 and not row["skipped"]
    assert any(not torch.equal(a, b) for a, b in zip(before, trial.state.model.parameters(), strict=True))


def require_identical_resume(make, settings) -> None:
    """Two steps, against one step, everything through a file and back, and the other step."""
    whole, half, resumed = make(settings), make(settings), make(settings)
    whole.steps(0, 2)
    half.steps(0, 1)
    file = io.BytesIO()
    buffers = torch.cat([b.flatten() for m in half.state.models for b in m.buffers() if b.is_floating_point()])
    torch.save(half.state.content(buffers[None]), file)
    file.seek(0)
    resumed.state.load(torch.load(file, weights_only=True), Worker())
    resumed.steps(1, 2)
    for a, b in zip(whole.tensors(), resumed.tensors(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("trick", TRICKS, ids=IDS)
def test_trick_trains_one_step_and_resumes_identically(workbench, trick: Part):
    require_a_trained_finite_step(workbench(trick.keyed(trick.on)))
    require_identical_resume(workbench, trick.keyed(trick.on))


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=PAIR_IDS)
def test_pair_trains_one_step_and_resumes_identically(workbench, first: Part, second: Part):
    require_a_trained_finite_step(workbench({**first.keyed(first.on), **second.keyed(second.on)}))
    require_identical_resume(workbench, {**first.keyed(first.on), **second.keyed(second.on)})


@pytest.fixture(scope="module")
def plain(workbench):
    trial = workbench({})
    return trial.steps(0, 2), trial.tensors()


@pytest.mark.parametrize("trick", TRICKS, ids=IDS)
def test_trick_off_equals_plain_bit_for_bit(workbench, plain, trick: Part):
    trial = workbench(trick.keyed({**trick.off, **trick.dormant}))
    rows, tensors = plain
    assert trial.steps(0, 2) == rows
    assert all(torch.equal(a, b) for a, b in zip(trial.tensors(), tensors, strict=True))


@pytest.fixture(scope="module")
def alone(workbench):
    """The weights after two steps with one trick, computed once."""
    known: dict[str, list[torch.Tensor]] = {}

    def of(trick: Part) -> list[torch.Tensor]:
        if trick.name not in known:
            trial = workbench(trick.keyed(trick.on))
            trial.steps(0, 2)
            known[trick.name] = trial.tensors()
        return known[trick.name]

    return of


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=PAIR_IDS)
def test_pair_with_one_off_equals_the_other_alone_bit_for_bit(workbench, alone, first: Part, second: Part):
    for on, off in ((first, second), (second, first)):
        if not off.dormant and (on, off) != (first, second):
            continue  # without dormant settings it is the same config as the other alone
        trial = workbench({**off.keyed({**off.off, **off.dormant}), **on.keyed(on.on)})
        trial.steps(0, 2)
        assert all(torch.equal(a, b) for a, b in zip(trial.tensors(), alone(on), strict=True))


@pytest.mark.parametrize("trick", TRICKS, ids=IDS)
def test_trick_on_changes_the_weights_unless_it_is_communication_or_measurement(plain, alone, trick: Part):
    theirs = alone(trick)
    differs = len(theirs) != len(plain[1]) or any(
        a.shape != b.shape or not torch.equal(a, b) for a, b in zip(theirs, plain[1], strict=True)
    )
    assert differs == (trick.does == "weights")


def test_plain_equals_a_loop_of_torch_alone(workbench):
    trial = workbench({})
    twin = workbench({})
    optimizer = torch.optim.SGD(twin.state.model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    twin.state.model.train()
    rows = trial.steps(0, 4)
    for batch, row in zip(twin.micro_batches, rows, strict=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(
            twin.state.model(batch.inputs.contiguous(memory_format=torch.channels_last)), batch.labels
        )
        loss.backward()
        optimizer.step()
        assert row["objective"] / 8 == pytest.approx(float(loss.detach()), rel=1e-5)
    for ours, torchs in zip(trial.state.model.parameters(), twin.state.model.parameters(), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-6)


def test_table_switches_are_config_keys_that_turn_a_part_on_and_off():
    for trick in TRICKS:
        on, off = trick.keyed(trick.on), trick.keyed(trick.off)
        known = flatten(load_config(None, PLAIN | off | trick.keyed(trick.dormant)).config)
        shown = [] if trick.shown is None else [trick.key(trick.shown)]
        assert {*off, *trick.keyed(trick.dormant), *shown} <= set(known)
        assert not trick.is_on(known) and trick.is_on({**known, **on})
        assert trick.label(known | on) and "{" not in trick.plain_title


def test_table_switches_belong_to_one_trick_each_but_for_those_that_exclude_one_another():
    seen = [key for trick in TRICKS if trick.kind == "trick" for key in trick.keyed(trick.off)]
    assert len(seen) == len(set(seen))


def test_table_names_every_trick_that_has_a_file(repository: Path):
    listed = {name for row in BUILT_IN for name in row.files}
    folder = repository / "raytricks" / "tricks"
    shared = {"tricks/layerwise.py", "tricks/__init__.py"}
    assert {f"tricks/{path.name}" for path in folder.glob("*.py")} - shared <= listed
    assert all((repository / "raytricks" / name).is_file() for name in listed)


def test_docs_have_a_row_for_every_part_with_its_formula_and_its_keys(repository: Path):
    rows = markdown_table(BUILT_IN).splitlines()[2:]
    assert len(rows) == len(BUILT_IN)
    for part, row in zip(BUILT_IN, rows, strict=True):
        assert part.formula and part.source and f"| {part.plain_title} |" in row
        assert part.name in row if part.kind != "trick" else all(f"`{key}`" in row for key in part.keyed(part.off))
    assert "<!-- parts: trick -->" in (repository / "docs" / "tricks.md").read_text()
