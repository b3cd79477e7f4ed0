"""The name a typo leads to."""

import random

import pytest

from raytricks.config import did_you_mean, dotted_keys
from raytricks.parts.models import RESNETS, SMALL_RESNETS

KEYS = list(dotted_keys())


def typo(key: str, rng: random.Random) -> str:
    """Return the key with one letter of its last part dropped, doubled, swapped or replaced."""
    section, dot, leaf = key.rpartition(".")
    at = rng.randrange(len(leaf) - 1)
    changed = {
        "drop": leaf[:at] + leaf[at + 1 :],
        "double": leaf[: at + 1] + leaf[at:],
        "swap": leaf[:at] + leaf[at + 1] + leaf[at] + leaf[at + 2 :],
        "replace": leaf[:at] + "x" + leaf[at + 1 :],
    }
    wrong = section + dot + changed[rng.choice(sorted(changed))]
    return wrong if wrong not in KEYS else typo(key, rng)


@pytest.mark.parametrize("seed", range(20))
def test_did_you_mean_names_the_mistyped_key_first(seed):
    rng = random.Random(seed)
    key = rng.choice(KEYS)
    hint = did_you_mean(typo(key, rng), KEYS)
    assert hint.rstrip("?").replace(",", " ").split()[4] == key


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("mixup_alpha", "tricks.mixup.alpha"),
        ("tricks.mixup_alfa", "tricks.mixup.alpha"),
        ("mixup-alpha", "tricks.mixup.alpha"),
        ("alfa", "tricks.mixup.alpha"),
        ("lr", "recipe.base_lr"),
        ("optimizer.lr", "recipe.base_lr"),
        ("batch_size", "recipe.global_batch_size"),
        ("epochs", "recipe.epochs"),
        ("warmup_epochs", "tricks.warmup.epochs"),
        ("label_smoothing", "tricks.label_smoothing.epsilon"),
        ("Recipe.Epochs", "recipe.epochs"),
        ("--recipe.epochs", "recipe.epochs"),
    ],
)
def test_did_you_mean_finds_a_key_by_its_parts(word, first):
    assert did_you_mean(word, KEYS, limit=1) == f"; did you mean {first}?"


@pytest.mark.parametrize("word", ["", ".", "zzzz", "quokka"])
def test_did_you_mean_is_empty_when_nothing_is_alike(word):
    assert did_you_mean(word, KEYS) == ""


def test_did_you_mean_without_names_is_empty():
    assert did_you_mean("x", []) == ""


def test_did_you_mean_joins_names_and_keeps_the_limit():
    known = ["mode_a", "mode_b", "mode_c", "mode_d"]
    assert did_you_mean("mode", known) == "; did you mean mode_a, mode_b or mode_c?"
    assert did_you_mean("mode", known, limit=2) == "; did you mean mode_a or mode_b?"


def test_did_you_mean_works_on_model_names():
    assert did_you_mean("resnet5O", SMALL_RESNETS + RESNETS, limit=1) == "; did you mean resnet50?"
    assert did_you_mean("ResNet18", SMALL_RESNETS + RESNETS, limit=1) == "; did you mean resnet18?"
