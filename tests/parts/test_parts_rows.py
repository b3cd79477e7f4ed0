"""Rows: what each of those that come with raytricks must have, and the order that they ask for."""

from pathlib import Path

import pytest

import raytricks
from raytricks.config import ExperimentConfig, flatten
from raytricks.parts import Hooks, Part
from raytricks.parts.registry import BUILT_IN, in_order, named, of_kind

PACKAGE = Path(raytricks.__file__).parent
IDS = [f"{row.kind}-{row.name}" for row in BUILT_IN]


def row(name: str, *after: str, **values) -> Part:
    return Part(kind="trick", name=name, title=name, source="-", after=after, **values)


def names(rows) -> list[str]:
    return [part.name for part in rows]


@pytest.mark.parametrize("part", BUILT_IN, ids=IDS)
def test_row_points_at_code_and_files_that_exist(part):
    assert part.files and all((PACKAGE / file).is_file() for file in part.files)
    assert part.code is None or isinstance(part.hooks, Hooks)
    assert part.hooks is None or part.hooks.filled
    assert named(part.kind, part.name) is part and part in of_kind(part.kind)


@pytest.mark.parametrize("part", of_kind("trick"), ids=names(of_kind("trick")))
def test_row_of_a_trick_switches_settings_that_exist(part):
    values = flatten(ExperimentConfig())
    assert part.off
    assert {*part.keyed(part.on), *part.keyed(part.off), *part.keyed(part.dormant)} <= set(values)
    assert part.is_on(values | part.keyed(part.on)) and not part.is_on(values | part.keyed(part.off))
    assert "{}" not in part.label(values) and "{}" not in part.plain_title


def test_rows_have_names_of_their_own():
    assert len({(part.kind, part.name) for part in BUILT_IN}) == len(BUILT_IN)


def test_row_rejects_an_unknown_kind_and_switches_that_do_not_match():
    with pytest.raises(TypeError, match="kind must be one of trick, optimizer, loss, .*, got 'trikc'"):
        Part(kind="trikc", name="a", title="a", source="-")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"on and off must have the same keys, got \['alpha'\] and \['beta'\]"):
        row("a", on={"alpha": 1}, off={"beta": 0})


def test_rows_in_order_stay_where_none_asks_for_more():
    assert in_order(()) == ()
    assert in_order(BUILT_IN) == BUILT_IN
    assert names(in_order([row("c"), row("a"), row("b", "absent")])) == ["c", "a", "b"]


def test_rows_in_order_come_after_those_that_they_name():
    assert names(in_order([row("a", "c"), row("b"), row("c", "d"), row("d")])) == ["b", "d", "c", "a"]
    assert names(in_order([row("a", "b", "c"), row("b"), row("c")])) == ["b", "c", "a"]
    assert names(in_order([row("a", "a")])) == ["a"]  # itself is nothing to wait for


@pytest.mark.parametrize(
    ("rows", "circle"),
    [
        ([row("a", "b"), row("b", "a")], "a, b"),
        ([row("free"), row("c", "b"), row("a", "c"), row("b", "a")], "a, b, c"),
    ],
)
def test_rows_in_order_reject_a_circle(rows, circle):
    with pytest.raises(ValueError, match=f"^{circle} ask to come after one another; leave one `after` out$"):
        in_order(rows)
