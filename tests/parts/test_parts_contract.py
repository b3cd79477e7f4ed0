"""The contract for authors: our own rows keep it, and each way of breaking it is found."""

from pathlib import Path
import subprocess
import sys
from typing import Annotated

from pydantic import Field
import pytest
import torch

from raytricks.parts import Hooks, Part, Section, Setting
from raytricks.parts.registry import BUILT_IN, of_kind
from raytricks.testing import PartCheckError, check_part

BROUGHT = Path(__file__).with_name("brought.py")


@pytest.mark.parametrize("row", BUILT_IN, ids=lambda row: f"{row.kind} {row.name}")
def test_contract_holds_for_our_own_parts(row: Part):
    made = check_part(row)
    # sources need data, trackers their packages, distillation a finished run
    assert made or row.kind in ("source", "tracker") or row.name in ("sgd", "distillation")
    if row.kind == "trick" and made:
        assert {"off", "on", "resume", "micro_batches", "gray"} <= set(made)


@pytest.mark.parametrize("name", ["SHARPEN", "PULL"])
def test_contract_holds_for_brought_parts(name):
    made = check_part(f"{BROUGHT}:{name}")
    assert {"off", "on", "bounds", "resume", "micro_batches"} <= set(made)
    assert ("draws" in made) == (name == "SHARPEN")


def test_contract_holds_for_a_brought_tracker_and_finds_a_broken_one():
    assert check_part(f"{BROUGHT}:LINES") == ["tracks"]
    nameless = Part(
        kind="tracker",
        name="nameless",
        title="nameless",
        source="-",
        settings=Setting(annotation=bool, default=False, doc="Whether it is on."),
        code=Hooks(track=lambda run_dir: Nameless()),
        on={"": True},
        off={"": False},
    )
    with pytest.raises(PartCheckError, match="check tracks: it has no name; a failure is told under it"):
        check_part(nameless)


class Nameless:
    def log(self, kind, step, values): ...

    def close(self, ok): ...


class Settings(Section):
    amount: Annotated[float, Field(ge=0, le=2)] = 0.0


def trick(hooks: Hooks, **changes) -> Part:
    row = {"kind": "trick", "name": "broken", "title": "broken", "source": "-", "settings": Settings, "code": hooks}
    return Part(**row | {"on": {"amount": 0.5}, "off": {"amount": 0.0}} | changes)


def brighter(images, settings):
    return (images.float() + 9 * settings.amount).clamp(0, 255)


def in_place(images, settings):
    images += 1
    return images


def of_torchs_generator(images, settings):
    return images.float() + torch.rand(len(images), 1, 1, 1) * settings.amount


def of_the_batch(images, settings):
    return images.float() - images.float().mean() * settings.amount


def smaller(images, settings):
    return images[..., :4, :4]


class Forgets:
    """Counts, and does not say so."""

    def __init__(self, model):
        self.weights, self.count = list(model.parameters()), 0

    @torch.no_grad()
    def step(self):
        self.count += 1
        for weight in self.weights:
            weight.mul_(1 - 0.01 * self.count)

    def state_dict(self):
        return {}

    def load_state_dict(self, content):
        pass


class HoldsAFunction(Forgets):
    def state_dict(self):
        return {"count": self.count, "how": test_contract_holds_for_brought_parts}


def after_step(state):
    state.step()


BROKEN = {
    "off": (trick(Hooks(pixels=brighter), off={"amount": 0.5}, on={"amount": 0.6}), "check off: off={'amount': 0.5}"),
    "on": (trick(Hooks(pixels=lambda images: images)), "check on: on={'amount': 0.5} changes nothing"),
    "pure": (trick(Hooks(pixels=in_place)), "check pure: it wrote into its input; return a new tensor"),
    "draws": (trick(Hooks(pixels=of_torchs_generator)), "check draws: torch's generator was used"),
    "alone": (trick(Hooks(pixels=of_the_batch)), "check alone: an image depends on others in its batch"),
    "shape": (trick(Hooks(pixels=smaller)), "check alone: got (6, 3, 4, 4) of (6, 3, 8, 8); keep the shape"),
    "resume": (trick(Hooks(state=Forgets, after_step=after_step)), "check resume: step 2 differs"),
    "state": (trick(Hooks(state=HoldsAFunction, after_step=after_step)), "check resume: state holds more than tensors"),
    "losses": (
        trick(Hooks(losses=lambda losses: losses.mean().expand_as(losses) * len(losses))),
        "check micro_batches: a batch in pieces gives another step",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_contract_finds_what_is_broken(name):
    part, line = BROKEN[name]
    with pytest.raises(PartCheckError) as failed:
        check_part(part)
    assert any(found.startswith(line) for found in str(failed.value).splitlines()), str(failed.value)


def test_contract_takes_expected_failures_and_refuses_those_that_hold():
    part = trick(Hooks(pixels=of_the_batch))
    reasons = {"alone": "it subtracts the mean of the batch", "micro_batches": "so", "bounds": "so"}
    with pytest.raises(PartCheckError, match="check bounds: holds, though it was expected not to"):
        check_part(part, expected_failures=reasons)
    check_part(part, expected_failures={name: reasons[name] for name in ("alone", "micro_batches")})


def command(*words: str) -> subprocess.CompletedProcess:
    raytricks = str(Path(sys.executable).with_name("raytricks"))
    return subprocess.run([raytricks, "parts", *words], capture_output=True, text=True, timeout=120)


def test_cli_lists_parts_and_checks_one_of_ones_own(tmp_path):
    assert "random_erasing" in command("trick").stdout and "lamb" not in command("trick").stdout
    assert command("optimizer", "--markdown").stdout.count("|\n") == 2 + len(of_kind("optimizer"))
    assert command("trik").stderr.startswith("error: parts: unknown kind 'trik'; did you mean trick?")
    held = command("check", f"{BROUGHT}:SHARPEN")
    assert held.returncode == 0 and "checks hold" in held.stdout
    head = "def sharpen(images, draws, settings):\n"
    spoilt = BROUGHT.read_text().replace(head, head + "    images += 1\n")
    (tmp_path / "broken.py").write_text(spoilt)
    broken = command("check", f"{tmp_path / 'broken.py'}:SHARPEN")
    assert broken.returncode == 1 and "check pure: it wrote into its input" in broken.stderr
