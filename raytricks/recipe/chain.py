"""The parts that a config has on, slot by slot, in the order of their rows."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from raytricks.config import flatten
from raytricks.config.schema import ExperimentConfig
from raytricks.data.randomness import stream_of
from raytricks.errors import ConfigError
from raytricks.parts.hooks import Hooks, Tensor, wanted_arguments
from raytricks.parts.part import CHOSEN_BY, Part
from raytricks.parts.registry import in_order, named, of_kind
from raytricks.suggest import did_you_mean


@dataclass(frozen=True)
class Call:
    """A part's function in a slot; called by keyword with all that the slot offers, it takes what it names."""

    part: Part
    hooks: Hooks
    function: Callable[..., Any]
    wanted: tuple[str, ...]
    settings: object

    def __call__(self, **offered: Any) -> Any:
        offered["settings"] = self.settings
        return self.function(**{name: offered[name] for name in self.wanted})


class Chain:
    """What a config has on.

    Raises:
        ConfigError: two parts that are on exclude each other, or ask to come after one another.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        values = flatten(config)
        on = [row for row in of_kind("trick", config.rows) if row.is_on(values)]
        names = {row.name for row in on}
        if clashes := [(row, other) for row in on for other in row.conflicts if other in names]:
            raise ConfigError([f"{a.place} and {b} cannot be on together; turn one of them off" for a, b in clashes])
        try:
            rows = in_order(on)
        except ValueError as error:
            raise ConfigError(f"parts: {error}") from None
        self._active = [(row, row.hooks, settings_of(config, row)) for row in rows if row.code is not None]

    def calls(self, slot: str) -> tuple[Call, ...]:
        """Return the calls of a slot, in order."""
        return tuple(
            _call(slot, row, hooks, settings)
            for row, hooks, settings in self._active
            if hooks is not None and getattr(hooks, slot) is not None
        )

    def problems(self, **offered: Any) -> list[str]:
        """Return why the parts cannot run on this data and hardware; see the slot `problems`."""
        return [line for call in self.calls("problems") for line in call(**offered)]


def chosen_call(config: ExperimentConfig, kind: str, slot: str) -> Call:
    """Return a function of the one part of a kind that the config names."""
    section = getattr(config, CHOSEN_BY[kind].partition(".")[0])  # type: ignore[index]
    row = named(kind, section.name, config.rows)  # type: ignore[arg-type]
    assert row is not None, "the schema has checked the name"
    hooks = row.hooks
    assert hooks is not None, f"{row.name} has no code"
    return _call(slot, row, hooks, section)


def has_slot(config: ExperimentConfig, kind: str, slot: str) -> bool:
    """Return whether the one part of a kind that the config names fills a slot."""
    section = getattr(config, CHOSEN_BY[kind].partition(".")[0])  # type: ignore[index]
    row = named(kind, section.name, config.rows)  # type: ignore[arg-type]
    return row is not None and row.hooks is not None and getattr(row.hooks, slot) is not None


class Metric(NamedTuple):
    """A metric that a config names: counts of a batch, summed over all images and workers, and their value."""

    name: str
    counts: Call
    value: Call


def metrics_of(config: ExperimentConfig) -> tuple[Metric, ...]:
    """Return the metrics that a config names.

    Raises:
        ConfigError: there is no such metric.
    """
    metrics = []
    known = [row.name for row in of_kind("metric", config.rows)]
    for name in config.metrics:
        row = named("metric", name, config.rows)
        if row is None or row.hooks is None:
            hint = did_you_mean(name, known) or ";"
            raise ConfigError(f"metrics: unknown metric {name!r}{hint} 'raytricks parts metric' lists all")
        shown = row.title if ":" in name else name  # of code, the function's name
        metrics.append(Metric(shown, _call("counts", row, row.hooks, None), _call("value", row, row.hooks, None)))
    return tuple(metrics)


def callbacks_of(config: ExperimentConfig) -> tuple[Call, ...]:
    """Return the callbacks that a config names, and those that its `parts` bring."""
    rows = of_kind("callback", config.rows)
    return tuple(_call("record", row, row.hooks, None) for row in rows if row.hooks is not None)


def trackers_of(config: ExperimentConfig) -> tuple[Part, ...]:
    """Return the trackers that a config has on."""
    values = flatten(config)
    return tuple(row for row in of_kind("tracker", config.rows) if row.is_on(values))


def slot_calls(config: ExperimentConfig, rows: Iterable[Part], slot: str) -> tuple[Call, ...]:
    """Return the functions that rows have in a slot, with their settings in the config."""
    found = [(row, row.hooks) for row in rows]
    return tuple(
        _call(slot, row, hooks, settings_of(config, row))
        for row, hooks in found
        if hooks is not None and getattr(hooks, slot) is not None
    )


def settings_of(config: ExperimentConfig, row: Part) -> object:
    """Return the settings of a part: its section, or its value where it has only one."""
    value: object = config
    for name in row.place.split("."):
        value = getattr(value, name)
    return value


def _call(slot: str, row: Part, hooks: Hooks, settings: object) -> Call:
    function = getattr(hooks, slot)
    return Call(row, hooks, function, wanted_arguments(slot, function), settings)


Draw = Callable[[int, int], np.ndarray]
"""(num_draws, stream) -> (N, num_draws) uniforms in [0, 1), a row an image."""


@dataclass(frozen=True)
class ImageChain:
    """The parts that change training images; each draws from a stream of its own. See `ImageTricks`."""

    on_pixel_calls: tuple[Call, ...]
    on_input_calls: tuple[Call, ...]

    def on_pixels(self, images: Tensor, draw: Draw) -> Tensor:
        """Change (N, C, S, S) pixels before normalisation, in the order of the parts."""
        return _changed(images, draw, self.on_pixel_calls)

    def on_inputs(self, images: Tensor, draw: Draw) -> Tensor:
        """Change (N, C, S, S) float32 after normalisation, where 0 is the mean pixel."""
        return _changed(images, draw, self.on_input_calls)

    def describe(self) -> dict[str, str]:
        """Return what the images depend on, as plain values: the settings of each part."""
        return {call.part.name: repr(call.settings) for call in (*self.on_pixel_calls, *self.on_input_calls)}


def image_chain(config: ExperimentConfig) -> ImageChain | None:
    """Return the image parts that a config has on, None when all are off."""
    chain = Chain(config)
    pixels, inputs = chain.calls("pixels"), chain.calls("inputs")
    return ImageChain(pixels, inputs) if pixels or inputs else None


def _changed(images: Tensor, draw: Draw, calls: tuple[Call, ...]) -> Tensor:
    for call in calls:
        images = call(images=images, draws=draw(call.hooks.num_draws, stream_of(call.part.name)))
    return images
