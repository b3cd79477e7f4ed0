"""A row for a function or class that a config names directly: its parameters are the settings.

Parameters that the place of use hands over (the model gets `num_classes`) are no settings; every other one is, with
the type of its annotation or else of its default.
"""

from collections.abc import Callable, Mapping
import inspect
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import create_model

from raytricks.parts.hooks import HookError, Hooks
from raytricks.parts.part import Kind, Part, Section

HANDED_OVER: Mapping[Kind, tuple[str, ...]] = {
    "model": ("num_classes", "in_channels", "image_size"),
    "optimizer": ("params", "lr", "weight_decay"),
    "loss": ("logits", "targets", "reduction"),
    "source": ("path",),
    "metric": ("logits", "labels", "num_classes"),
    "callback": ("record",),
}
"""Names of the parameters that are not settings, by kind."""
_SIMPLE = (int, float, str, bool)


def row_of(kind: Kind, spec: str, found: Callable[..., Any]) -> Part:
    """Return the row of a function or class; its name is the spec.

    Raises:
        TypeError: a parameter hides what it takes, or has neither a type nor a default.
    """
    fields, handed = _split(kind, found)
    settings = create_model("Settings", __base__=Section, __doc__=inspect.getdoc(found), **fields) if fields else None
    return Part(
        kind=kind,
        name=spec,
        title=spec.rpartition(":")[2],
        source="-",
        code=_HOOKS[kind](found, tuple(fields), handed),
        settings=settings,
        origin=spec,
    )


def _split(kind: Kind, found: Callable[..., Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the fields of the settings, and which of the handed-over parameters are taken."""
    hints = _hints(found)
    fields: dict[str, Any] = {}
    handed: list[str] = []
    for name, parameter in inspect.signature(found).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            raise HookError(f"{stars}{name} hides typing mistakes; name each setting", found)
        if name in HANDED_OVER[kind]:
            handed.append(name)
            continue
        annotation = _annotation(hints.get(name), parameter.default)
        if annotation is None:
            if parameter.default is None:
                continue  # a switch of the library's own, such as `foreach`, stays as it is
            raise HookError(f"{name} has neither a type nor a default; give it one", found)
        fields[name] = (annotation, ... if parameter.default is parameter.empty else parameter.default)
    return fields, tuple(handed)


def _hints(found: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(found.__init__ if isinstance(found, type) else found)
    except (NameError, TypeError, AttributeError):  # names that only a type checker sees
        return {}


def _annotation(hint: Any, default: Any) -> Any:
    """Return a type that a config can hold, None where there is none."""
    if hint is not None and _is_plain(hint):
        return hint
    if isinstance(default, _SIMPLE):
        return type(default)
    items: list[Any] = list(default) if isinstance(default, tuple | list) else []  # pyright: ignore
    if items and all(isinstance(item, _SIMPLE) for item in items):
        return tuple[tuple(type(item) for item in items)]  # type: ignore[misc]
    return None


def _is_plain(hint: Any) -> bool:
    if hint in (*_SIMPLE, NoneType):
        return True
    if get_origin(hint) is Literal:
        return True
    parts = [part for part in get_args(hint) if part is not ...]
    return get_origin(hint) in (Union, UnionType, tuple) and all(_is_plain(part) for part in parts)


def _given(settings: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in names}


def _model(found: Callable[..., Any], names: tuple[str, ...], handed: tuple[str, ...]) -> Hooks:
    def build(num_classes: int, in_channels: int, image_size: int, settings: Any) -> Any:
        facts = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
        return found(**{name: facts[name] for name in handed}, **_given(settings, names))

    return Hooks(build=build)


def _optimizer(found: Callable[..., Any], names: tuple[str, ...], handed: tuple[str, ...]) -> Hooks:
    def build(groups: list[dict[str, Any]], lr: float, settings: Any) -> Any:
        rate = {"lr": lr} if "lr" in handed else {}
        return found(groups, **rate, **_given(settings, names))

    return Hooks(build=build)


def _loss(found: Callable[..., Any], names: tuple[str, ...], handed: tuple[str, ...]) -> Hooks:
    made: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def loss(logits: Any, targets: Any, settings: Any) -> Any:
        given = _given(settings, names)
        if not isinstance(found, type):
            return found(logits, targets, **given)
        key = tuple(given.values())
        if key not in made:  # a class, such as torch.nn's, is made once
            made[key] = found(**given, **({"reduction": "none"} if "reduction" in handed else {}))
        return made[key](logits, targets)

    return Hooks(loss=loss)


def _source(found: Callable[..., Any], names: tuple[str, ...], handed: tuple[str, ...]) -> Hooks:
    def build(config: Any, settings: Any) -> Any:
        return found(**({"path": config.path} if "path" in handed else {}), **_given(settings, names))

    return Hooks(build=build)


def _metric(found: Callable[..., Any], names: tuple[str, ...], handed: tuple[str, ...]) -> Hooks:
    def counts(logits: Any, labels: Any, num_classes: int) -> Any:
        facts = {"logits": logits, "labels": labels, "num_classes": num_classes}
        values = found(**{name: facts[name] for name in handed}).double()
        if values.shape != labels.shape:
            raise HookError(f"got {tuple(values.shape)} for {len(labels)} images; return (n,)", found)
        return values.new_tensor([values.sum(), len(labels)])

    def value(counts: Any) -> float:
        return float(counts[0] / counts[1])

    return Hooks(counts=counts, value=value)


def _callback(found: Callable[..., Any], names: tuple[str, ...], handed: tuple[str, ...]) -> Hooks:
    observer = found() if isinstance(found, type) else None

    def record(record: dict[str, Any]) -> None:
        if observer is None:
            found(record)
        else:
            observer.record(record)

    return Hooks(record=record)


_HOOKS: Mapping[Kind, Callable[..., Hooks]] = {
    "model": _model,
    "optimizer": _optimizer,
    "loss": _loss,
    "source": _source,
    "metric": _metric,
    "callback": _callback,
}
