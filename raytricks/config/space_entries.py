"""Find the searched settings in the dotted keys below `tune.space`.

Files and overrides arrive flattened: `tricks.mixup.alpha.low` is the parameter `low` of what is
drawn for `tricks.mixup.alpha`. A later layer (file, then overrides) replaces what an earlier one
says about a setting, and null takes the setting out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from raytricks.config import problems as lines
from raytricks.config.keys import dotted_keys, leaves, section_keys
from raytricks.config.schema import ExperimentConfig
from raytricks.config.schemas import key_of_another_part
from raytricks.config.search_space import PARAMETERS

SPACE = "tune.space"
NOT_SEARCHED = {
    "seed": "a lucky seed is no better recipe; tune.retrain_seeds trains the winner with several",
    "recipe.epochs": "every trial gets the same epochs, or the longest would win",
    "name": "it names the run and trains nothing",
    "output_dir": "it says where runs are kept and trains nothing",
    "workers": "it changes how fast a run trains, not what it learns",
    "changes": "it is a schedule of settings, not one setting",
    "tune": "it describes the search itself",
    "hardware": "it changes how fast a run trains, not what it learns",
    "checkpoint": "it says what is saved and trains nothing",
    "logging": "it says what is reported and trains nothing",
    "data": "trials must see the same images to be compared; of data, only augmentation, shift_pixels, crop_scale, "
    "crop_aspect, horizontal_flip, normalization and image_size can be searched",
}
"""Keys and sections that cannot be searched, and why."""
SEARCHED_ANYWAY = (
    "data.augmentation",
    "data.shift_pixels",
    "data.crop_scale",
    "data.crop_aspect",
    "data.horizontal_flip",
    "data.normalization",
    "data.image_size",
)


@dataclass
class SpaceEntry:
    """What one layer says about one setting.

    Args:
        source: the place of the first thing said, for messages.
        values: parameter -> value, or {"": value} for a bare list or anything else that is no mapping.
        sources: the place of each.
    """

    source: str
    values: dict[str, object] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


class SpaceEntries:
    """The searched settings of all layers so far.

    Attributes:
        entries: searched key -> what is said about it; the keys exist and may be searched.
    """

    def __init__(self, schema: type[ExperimentConfig]) -> None:
        self.entries: dict[str, SpaceEntry] = {}
        self._schema = schema
        self._fields = dotted_keys(schema)
        self._sections = section_keys(schema)

    def add_layer(self, entries: Iterable[tuple[str, object, str]]) -> list[str]:
        """Take in one layer's keys below `tune.space`, with values and sources; return what is wrong."""
        problems: list[str] = []
        parts: list[tuple[str, object, str]] = []
        for key, value, source in (part for entry in entries for part in _flattened(*entry)):
            if key:
                parts.append((key, value, source))
            elif value is None or value == {}:
                self.entries.clear()
            else:
                got = lines.show_value(value)
                problems.append(f"{source}: {SPACE}: maps config keys to how they are drawn, got {got}")
        for target, entry in self._grouped(parts, problems).items():
            if problem := self._target_problem(target, entry):
                problems.append(f"{entry.source}: {SPACE}: {problem}")
            elif entry.values == {"": None}:
                self.entries.pop(target, None)
            else:
                self.entries[target] = entry
        return problems

    def _grouped(self, parts: list[tuple[str, object, str]], problems: list[str]) -> dict[str, SpaceEntry]:
        """Return what the parts of one layer say about each searched key."""
        layer: dict[str, SpaceEntry] = {}
        unknown = self._unknown_targets(key for key, _, _ in parts)
        for key, value, source in parts:
            target, parameter = self._split(key, unknown)
            if target in self._sections and not parameter and (value is None or value == {}):
                continue  # a section whose keys are all commented out is empty, not wrong
            entry = layer.setdefault(target, SpaceEntry(source))
            if entry.values and ("" in entry.values or not parameter or parameter in entry.values):
                problems.append(f"{source}: {SPACE}.{target} is set twice")
                continue
            entry.values[parameter], entry.sources[parameter] = value, source
        return layer

    def _unknown_targets(self, keys: Iterable[str]) -> set[str]:
        """Return what is said to be searched, by its parameters, though it is no setting."""
        outside = [key.rpartition(".") for key in keys if self._split(key, set()) == (key, "")]
        return {target for target, _, parameter in outside if parameter in PARAMETERS} - {""}

    def _split(self, key: str, unknown: set[str]) -> tuple[str, str]:
        """Return the searched key and the parameter of it that a dotted key names, "" for none."""
        prefix = key
        while prefix:
            if prefix in self._fields or prefix in unknown:
                return prefix, key[len(prefix) + 1 :]
            prefix = prefix.rpartition(".")[0]
        return key, ""

    def _target_problem(self, target: str, entry: SpaceEntry) -> str | None:
        searched = [key for key in self._fields if _why_not(key) is None]
        if target not in self._fields and target not in self._sections:
            return key_of_another_part(self._schema, target) or lines.unknown_key(target, searched)
        if reason := _why_not(target):
            return f"{target} cannot be searched: {reason}"
        if target in self._fields:
            return None
        keys = [key for key in searched if key in self._sections[target]]
        return lines.value_for_section(target, keys, entry.values.get("", entry.values))


def _flattened(key: str, value: object, source: str) -> Iterable[tuple[str, object, str]]:
    """Yield what a key below `tune.space` says, by dotted key without that prefix, "" for itself."""
    rest = key[len(SPACE) + 1 :]
    if isinstance(value, Mapping) and value:
        prefix = f"{rest}." if rest else ""
        return [(name, item, source) for name, item in leaves(value, prefix)]
    return [(rest, value, source)]


def _why_not(key: str) -> str | None:
    """Return why a key or a section cannot be searched, None if it can."""
    if key in SEARCHED_ANYWAY or key == "data":
        return None
    return NOT_SEARCHED.get(key) or NOT_SEARCHED.get(key.partition(".")[0])
