"""How a searched setting is drawn: one class a kind, told apart by `kind`.

A kind knows its parameters and the rules between them. Whether they suit the setting that they
are drawn for is checked when a config is loaded, by `raytricks.config.space_values`.
"""

from collections.abc import Iterator
from math import ceil, floor
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from raytricks.parts.part import Section

MOST_STEPS = 2**40
"""Values that can be told apart on an axis of floats from 0 to 1, with room to spare."""
Number = int | float
Value = None | bool | int | float | str | tuple[float, ...]


def _tuples(value: object) -> object:
    """Return lists as tuples, so that a distribution made in Python may be given lists."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


Values = Annotated[tuple[Value, ...], BeforeValidator(_tuples)]


class _Kind(Section):
    def problems(self) -> Iterator[str]:
        """Yield every rule between the parameters that is broken."""
        yield from ()

    @model_validator(mode="after")
    def _parameters_agree(self):
        if found := list(self.problems()):
            raise ValueError("; ".join(found))
        return self


class _Range(_Kind):
    low: Number
    high: Number
    also: Values = ()
    """Single values outside the range that are drawn too, together a quarter of the draws."""

    def problems(self) -> Iterator[str]:
        """Yield every rule between the parameters that is broken."""
        if self.low >= self.high:
            yield f"low must be < high, got {self._bounds}"
        for value in dict.fromkeys(self.also):
            if isinstance(value, int | float) and self.low <= value <= self.high:
                yield f"also {_shown(value)} lies between {self._bounds} already; leave it out"
        yield from _repeated("also", self.also)

    @property
    def _bounds(self) -> str:
        return f"low {_shown(self.low)} and high {_shown(self.high)}"


class Uniform(_Range):
    """Any number from low to high."""

    kind: Literal["uniform"] = "uniform"
    low: float
    high: float


class LogUniform(_Range):
    """Any number from low to high, each factor alike: 0.01 to 0.1 as often as 0.1 to 1."""

    kind: Literal["loguniform"] = "loguniform"
    low: float
    high: float

    def problems(self) -> Iterator[str]:
        """Yield every rule between the parameters that is broken."""
        if self.low <= 0:
            zero = "; to draw 0 too, add also: [0]" if self.low == 0 else ""
            yield f"low of a loguniform must be > 0, got {_shown(self.low)}{zero}"
        else:
            yield from super().problems()


class QUniform(_Range):
    """The multiples of q from low to high."""

    kind: Literal["quniform"] = "quniform"
    q: Number

    def problems(self) -> Iterator[str]:
        """Yield every rule between the parameters that is broken."""
        yield from super().problems()
        if self.q <= 0:
            yield f"q must be > 0, got {_shown(self.q)}"
        elif max(abs(self.low), abs(self.high)) > self.q * MOST_STEPS:
            yield f"q {_shown(self.q)} is too small a step for {self._bounds}"
        elif self.low < self.high and not self.multiples:
            yield f"no multiple of q {_shown(self.q)} lies between {self._bounds}"

    @property
    def multiples(self) -> range:
        """The factors k for which k * q is drawn."""
        slack = 1e-9  # 0.3 / 0.1 is 2.9999999999999996
        return range(ceil(self.low / self.q - slack), floor(self.high / self.q + slack) + 1)


class RandInt(_Range):
    """The whole numbers from low to high, both included."""

    kind: Literal["randint"] = "randint"
    low: int
    high: int

    def problems(self) -> Iterator[str]:
        """Yield every rule between the parameters that is broken."""
        yield from super().problems()
        if self.high - self.low > MOST_STEPS:
            yield f"more whole numbers lie between {self._bounds} than can be drawn; say quniform"


class _Listed(_Kind):
    values: Values

    def problems(self) -> Iterator[str]:
        """Yield every rule between the parameters that is broken."""
        if not self.values:
            yield "values is empty; give at least one value"
        yield from _repeated("values", self.values)


class Choice(_Listed):
    """One of the values, each as often."""

    kind: Literal["choice"] = "choice"


class Grid(_Listed):
    """Each of the values in turn, with each of every other searched setting's."""

    kind: Literal["grid"] = "grid"


AnyKind = Uniform | LogUniform | QUniform | RandInt | Choice | Grid
KINDS: dict[str, type[AnyKind]] = {
    "uniform": Uniform,
    "loguniform": LogUniform,
    "quniform": QUniform,
    "randint": RandInt,
    "choice": Choice,
    "grid": Grid,
}
RANGES = (Uniform, LogUniform, QUniform, RandInt)
PARAMETERS = ("kind", "low", "high", "q", "also", "values")
"""Of all kinds, in the order in which they are written."""


def _listed_is_choice(value: object) -> object:
    return {"kind": "choice", "values": value} if isinstance(value, list | tuple) else value


Distribution = Annotated[
    Annotated[AnyKind, Field(discriminator="kind")],
    BeforeValidator(_listed_is_choice, json_schema_input_type=AnyKind | list[Any]),
]
"""Any kind. A bare list is short for a choice."""


def _shown(number: Number) -> str:
    return repr(float(number)).removesuffix(".0") if isinstance(number, float) else str(number)


def _repeated(name: str, values: tuple[Value, ...]) -> Iterator[str]:
    """Yield a line for each value that stands in the list more than once; True is not 1."""
    kinds = [(isinstance(value, bool), value) for value in values]
    for kind in dict.fromkeys(kind for index, kind in enumerate(kinds) if kind in kinds[:index]):
        shown = _shown(kind[1]) if isinstance(kind[1], float) else repr(kind[1])
        yield f"{name} holds {shown} more than once"
