"""A part is one row: what it is called, its settings, where its code is. Imports neither torch nor the code.

The rows are read by the config's schema, the header, `raytricks parts`, the docs, the doctor, `tune` and the tests
of all pairs; none of them lists parts by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from raytricks.parts.hooks import Hooks

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Proportion = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Strict (True is no number, "3" is no integer), frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


Kind = Literal["trick", "optimizer", "loss", "model", "source", "metric", "callback", "tracker"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SECTIONS: Mapping[Kind, str] = {
    "trick": "tricks",
    "optimizer": "optimizer",
    "loss": "loss",
    "model": "model",
    "source": "data",
    "metric": "metrics",
    "callback": "callbacks",
    "tracker": "logging",
}
"""Where the settings of a kind stand in a config."""
CHOSEN_BY: Mapping[Kind, str] = {
    "optimizer": "optimizer.name",
    "loss": "loss.name",
    "model": "model.name",
    "source": "data.source",
}
"""The setting that names the one part of a kind that is used; its settings stand beside it."""

Values = Mapping[str, object]


@dataclass(frozen=True)
class Usual:
    """The range that published recipes keep a setting in, and where to start."""

    low: float
    high: float
    start: float


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The one setting of a part that needs no section of its own, such as `tricks.zero_gamma: true`.

    Attributes:
        annotation: its type and range, as of a field of a Section.
        default: its value where a config says nothing.
        doc: one or two sentences for people.
    """

    annotation: Any
    default: object
    doc: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One row.

    Attributes:
        kind: what it is.
        name: its key in the config's section, the key of its state in a checkpoint, the seed of its random stream;
            that of a library of models ends in a colon and stands for all names that begin with it.
        title: for the header and the docs; "{}" stands for the value of `shown`.
        source: section of the paper, or where else it is from.
        formula: what it computes, in one line; Markdown.
        gain: top-1 points of ResNet-50 on ImageNet in the paper, or what its source says of it.
        measured: our own measurement, or that there is none.
        code: "package.module:NAME" of its Hooks, imported when it is used; None: there is nothing to hook in, the
            part is how the recipe or the loop reads a setting.
        file: below raytricks/, for the docs and the tests; "" where `code` says it.
        settings: None where they are fields of the config's own sections, at `at`.
        at: dotted key of its settings; "": below the section of its kind, under its name.
        on: switches that turn it on, with the paper's values where it has some; "" is the key `at` itself.
        off: the same switches turned off.
        dormant: settings that have no effect while it is off.
        shown: the key whose value stands in `title`.
        changeable: keys that may change in the course of a run; "*": all of them.
        changes_images: it changes the images themselves, which a cached teacher must not be told of late.
        does: "weights", or what else where it leaves one worker's weights alone.
        has_own_row: the header shows it elsewhere.
        needs: of a source, settings of `data` that must not be null.
        after: names of parts that come before it in every slot.
        conflicts: names of parts that cannot be on beside it.
        rules: the doctor's rules that are about it: names in raytricks.recipe.doctor_rules, or "module:function".
        extra: of raytricks, which installs what its code imports; "": none.
        secrets: environment variables that its code reads and no message, file or job may hold.
        usual: dotted keys, and peak_lr, which the part wants in another range than others do; the doctor warns outside.
    """

    kind: Kind
    name: str
    title: str
    source: str
    formula: str = ""
    gain: str = "-"
    measured: str = "not measured"
    code: str | Hooks | None = None
    file: str = ""
    settings: type[Section] | Setting | None = None
    at: str = ""
    on: Values = field(default_factory=dict[str, object])
    off: Values = field(default_factory=dict[str, object])
    dormant: Values = field(default_factory=dict[str, object])
    shown: str | None = None
    changeable: tuple[str, ...] = ()
    changes_images: bool = False
    does: Literal["weights", "communication", "measurement"] = "weights"
    has_own_row: bool = False
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    extra: str = ""
    secrets: tuple[str, ...] = ()
    usual: Mapping[str, Usual] = field(default_factory=dict[str, Usual])
    origin: str = "raytricks"
    """Where the row is from: raytricks, a file, a distribution."""
    sha256: str | None = None
    """Of the file that it was read from."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TypeError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if set(self.on) != set(self.off):
            raise TypeError(f"on and off must have the same keys, got {sorted(self.on)} and {sorted(self.off)}")

    def is_library_of(self, name: object) -> bool:
        """Return whether this row stands for all names that begin with its own, and this is one of them."""
        return self.name.endswith(":") and isinstance(name, str) and name.startswith(self.name)

    @property
    def place(self) -> str:
        """The dotted key of its settings; those of a part that is chosen by name stand beside the name."""
        if self.at or self.kind in CHOSEN_BY:
            return self.at or SECTIONS[self.kind]
        return f"{SECTIONS[self.kind]}.{self.name}"

    def key(self, name: str) -> str:
        """Return the dotted key of one of its settings; "" names the settings as a whole."""
        return f"{self.place}.{name}" if name else self.place

    def keyed(self, values: Values) -> dict[str, object]:
        """Return `on`, `off` or `dormant` with dotted keys."""
        return {self.key(name): value for name, value in values.items()}

    def is_on(self, values: Values) -> bool:
        """Return whether a config, as dotted keys and values, has it on."""
        return any(values[self.key(name)] != value for name, value in self.off.items())

    def label(self, values: Values) -> str:
        """Return its title with its value in a config."""
        if self.shown is None:
            return self.title
        value = values[self.key(self.shown)]
        return self.title.format(f"{value:g}" if isinstance(value, float) else value)

    @property
    def plain_title(self) -> str:
        """Its title without a value."""
        return " ".join(self.title.replace("{}", "").split())

    @property
    def files(self) -> tuple[str, ...]:
        """Files below raytricks/ that hold its code."""
        if self.file:
            return tuple(self.file.split(", "))
        if not isinstance(self.code, str):
            return ()
        return (self.code.partition(":")[0].removeprefix("raytricks.").replace(".", "/") + ".py",)

    @property
    def hooks(self) -> Hooks | None:
        """Its code, imported now; None where it has none."""
        if self.code is None or isinstance(self.code, Hooks):
            return self.code
        module, _, name = self.code.partition(":")
        hooks = getattr(import_module(module), name)
        assert isinstance(hooks, Hooks), f"{self.code} is no Hooks"
        return hooks
