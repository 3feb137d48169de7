"""Sections of the configuration: frozen dataclasses that stand beside what they configure.

A section uses the standard library only, so that it can be read in an image that has no
pydantic. ``understudy.config`` checks types and unknown keys; a section checks its own bounds.
"""

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, dataclass_transform

from understudy import __version__, renames
from understudy.errors import BadInput

__all__ = ["canonical_json", "content", "duration_s", "from_json", "number", "part", "placed", "section", "stored"]

T = TypeVar("T")

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_DURATION_S = 3650 * 86400


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
def section(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen, keyword-only dataclass whose numbers stay in their bounds."""
    own_check = cls.__dict__.get("__post_init__")

    def check(self: Any) -> None:
        for field in dataclasses.fields(self):
            _check_bounds(field, getattr(self, field.name))
        if own_check:
            own_check(self)

    cls.__post_init__ = check  # type: ignore[attr-defined]
    cls.__pydantic_config__ = {"extra": "forbid", "strict": True}  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def number(
    default: Any = dataclasses.MISSING, *, low: float, high: float = float("inf"), is_placed: bool = False
) -> Any:
    """A numeric field that must lie in [low, high]."""
    return dataclasses.field(default=default, metadata={"bounds": (low, high), "placed": is_placed})


def placed(default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """A field that says where work is done, and nothing of what comes out: no run is another for it."""
    if default is not dataclasses.MISSING:
        more["default"] = default
    return dataclasses.field(metadata={"placed": True}, **more)


def content(value: Any) -> Any:
    """A section as plain data, without its ``placed`` fields."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    plain = dataclasses.asdict(value)
    for field in dataclasses.fields(value):
        if field.metadata.get("placed"):
            del plain[field.name]
        elif dataclasses.is_dataclass(inner := getattr(value, field.name)):
            plain[field.name] = content(inner)
    return plain


def _check_bounds(field: "dataclasses.Field[Any]", value: Any) -> None:
    bounds = field.metadata.get("bounds")
    if bounds is None or value is None:
        return
    low, high = bounds
    for one in value.values() if isinstance(value, dict) else [value]:
        if not (low <= one <= high and math.isfinite(one)):
            upper = "" if high == float("inf") else f" and at most {high:g}"
            raise ValueError(f"{field.name}: expected a number of at least {low:g}{upper}, found {one:g}")


def duration_s(text: str) -> int:
    """Seconds of a duration such as ``90s``, ``15m``, ``1h`` or ``7d``.

    Raises:
        ValueError: the text is no such duration.
    """
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    seconds = int(match[1]) * _UNITS_S[match[2]] if match else _MAX_DURATION_S + 1
    if seconds > _MAX_DURATION_S:
        raise ValueError(f"expected a duration such as 90s, 15m, 1h or 7d, 3650d at most, found {text!r}")
    return seconds


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces. Digests are taken from it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def from_json(cls: type[T], text: str, at: str = "", where: str = "configuration", by: str = "") -> T:
    """Read back a section that ``canonical_json`` wrote, also in an earlier version.

    Args:
        at: its place in the configuration, such as ``training.ranker``; empty: it is the whole configuration.
        where, by: what holds it, and the version that wrote it, for the error.

    Raises:
        BadInput: a later version wrote it, with a key that this one does not know.
    """
    config = json.loads(text)
    for name in reversed(at.split(".") if at else ()):
        config = {name: config}
    return stored(cls, config, at, where, by)


def part(cls: type[T], text: str, name: str) -> T:
    """The section ``name`` of a step's canonical JSON, also of a pipeline that an earlier version compiled.

    Raises:
        BadInput: the pipeline does not give the section, or a key that lay in another one when it was compiled; the
            default might not be what the configuration says.
    """
    config = renames.today(json.loads(text))
    wanted = [f"the section {name}"] if name not in config else []
    wanted += [
        f"`{one.new}`, which was `{one.old}`"
        for one in renames.RENAMES
        if one.moves and one.path[0] not in config and _lacks(cls, config.get(name), name, one.new_path)
    ]
    if wanted:
        found = ", ".join(config) or "none"
        raise BadInput(f"the step's configuration: expected {wanted[0]}, found {found}; upload the pipeline again")
    return stored(cls, config, name, "the step's configuration")


def _lacks(cls: Any, value: Any, name: str, path: tuple[str, ...]) -> bool:
    """Whether a section has a key by its code, and not by its text, which says all but what is ``placed``."""
    if path[0] != name:
        return False
    for step in path[1:]:
        known = {one.name: one for one in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
        if step not in known or known[step].metadata.get("placed"):
            return False
        if not isinstance(value, dict) or step not in value:
            return True
        cls, value = typing.get_type_hints(cls)[step], value[step]
    return False


def stored(cls: type[T], config: Mapping[str, Any], at: str = "", where: str = "configuration", by: str = "") -> T:
    """A section of a configuration that lies in a release, a plan or a pipeline, whichever version wrote it.

    Old names are read without a word, and what is missing has its default. See ``from_json``.
    """
    value: Any = renames.today(config)
    for name in at.split(".") if at else ():
        value = value.get(name) or {}
    return typing.cast(T, _build(cls, value, _Place(at, where, by)))


class _Place(typing.NamedTuple):
    """Where in a stored configuration a value stands, see ``from_json``."""

    at: str
    where: str
    by: str

    def of(self, step: object) -> "_Place":
        return self._replace(at=f"{self.at}.{step}".removeprefix("."))

    def unknown(self) -> BadInput:
        """The error of a key that no version up to this one has had."""
        newer, this = renames.is_newer(self.by), f"version {__version__}"
        wrote = f"version {self.by} wrote it" if newer else "another version wrote it, or somebody has changed it"
        use = f"version {self.by} or newer" if newer else "the version that wrote it"
        return BadInput(
            f"{self.where}: `{self.at}`: expected a key that {this} knows, found another: {wrote}; use {use}"
        )


def _build(kind: Any, value: Any, place: _Place) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        kinds = [k for k in arguments if k is not type(None)]
        return None if value is None else _build(kinds[0], value, place)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        for key in value:
            if key not in hints:
                raise place.of(key).unknown()
        return typing.cast(Any, kind)(**{key: _build(hints[key], item, place.of(key)) for key, item in value.items()})
    if origin is tuple:
        return tuple(_build(arguments[0], item, place.of(at)) for at, item in enumerate(value))
    if origin is dict:
        return {key: _build(arguments[1], item, place.of(key)) for key, item in value.items()}
    if kind is float:
        return float(value)
    return value
