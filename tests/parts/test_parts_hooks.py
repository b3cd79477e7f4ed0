"""Slots: which there are, what they offer, and what is refused when a part is made."""

from dataclasses import fields

import pytest

from raytricks.parts import Hooks
from raytricks.parts.hooks import OFFERED, wanted_arguments

OFFERED_OF_PIXELS = r"pixels takes \(images, draws, settings\)"


def test_hooks_have_a_field_for_every_slot_and_no_other():
    assert {field.name for field in fields(Hooks)} - set(OFFERED) == {"num_draws", "measured"}


def test_hooks_of_an_unknown_slot_are_a_type_error():
    with pytest.raises(TypeError, match="image"):
        Hooks(image=lambda images: images)  # type: ignore[call-arg]


def test_hooks_name_what_is_offered_where_a_function_wants_something_else():
    with pytest.raises(TypeError, match=OFFERED_OF_PIXELS + ", got image$"):
        Hooks(pixels=lambda image: image)
    with pytest.raises(TypeError, match=OFFERED_OF_PIXELS + ", got rng$"):
        Hooks(pixels=lambda images, rng: images)


@pytest.mark.parametrize("function", [lambda **offered: None, lambda images, *others: images])
def test_hooks_refuse_a_function_that_hides_what_it_wants(function):
    with pytest.raises(TypeError, match=r"hides typing mistakes; name what it takes of pixels \(images, draws"):
        Hooks(pixels=function)


def test_hooks_refuse_what_cannot_be_called():
    with pytest.raises(TypeError, match=r"pixels must be a function of \(images, draws, settings\), got int"):
        Hooks(pixels=3)  # type: ignore[arg-type]


def test_hooks_take_defaults_of_a_function_of_someone_elses():
    def gray(images, strength=0.5):
        return images * strength

    assert wanted_arguments("pixels", gray) == ("images",)
    assert Hooks(pixels=gray).filled == ("pixels",)


@pytest.mark.parametrize("slot", OFFERED)
def test_hooks_take_a_function_of_all_that_a_slot_offers(slot):
    function = eval(f"lambda {', '.join(OFFERED[slot])}: None")
    assert Hooks(**{slot: function}).filled == (slot,)
    assert wanted_arguments(slot, function) == OFFERED[slot]
    assert wanted_arguments(slot, lambda: None) == ()
