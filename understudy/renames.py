"""Names that have changed: of configuration keys, of annotations, and of the fields of a rollout's state.

A name that a person writes works under both names for one minor version, with a warning; after that it is an error that
names the new one. What a version of ours has written (a release, a plan, a rollout, an uploaded pipeline) is read
through every rename, without a word. A rename changes no value.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from understudy import __version__
from understudy.errors import BadInput

__all__ = ["RENAMES", "Asked", "Found", "Rename", "asked", "is_newer", "names", "renamed", "state_fields", "today"]

VERSION = __version__
_KINDS = ("key", "annotation", "state")
_EACH, _ANY = "[]", "*"  # of a path: every element of a list, every key of a mapping


@dataclass(frozen=True)
class Rename:
    """A name that has changed.

    Args:
        kind: ``key``: of the configuration; ``annotation``: of an object in a cluster; ``state``: a field of a
            rollout's state.
        old, new: names. A key's name is its path, such as ``rollout.look``, ``sampling.rules[].rate`` or
            ``pipeline.steps.*.cpu``; only a path without ``[]`` and ``*`` may move to another section.
        since: the version that has the new name first, and the last minor version in which people may use the old one.
    """

    kind: str
    old: str
    new: str
    since: str

    def __post_init__(self) -> None:
        assert self.kind in _KINDS, f"kind: one of {', '.join(_KINDS)}"
        _minor(self.since)
        old, new = self.path, self.new_path
        assert self.kind != "key" or old[: len(new)] != new[: len(old)], f"{self.old}: neither may lie in the other"
        assert self.kind != "key" or not {_EACH, _ANY} & {old[-1], new[-1]}, f"{self.old}: a path ends in a name"
        assert not self.moves or not {_EACH, _ANY} & {*old, *new}, f"{self.old}: name the section to move it"

    @property
    def path(self) -> tuple[str, ...]:
        return path_of(self.old)

    @property
    def new_path(self) -> tuple[str, ...]:
        return path_of(self.new)

    @property
    def moves(self) -> bool:
        """Whether a key goes to another section."""
        return self.kind == "key" and self.path[:-1] != self.new_path[:-1]

    @property
    def is_over(self) -> bool:
        """Whether people may no longer use the old name."""
        return _minor(VERSION) > _minor(self.since)

    @property
    def end(self) -> str:
        """The first version in which people may no longer use the old name."""
        major, minor = _minor(self.since)
        return f"{major}.{minor + 1}.0"


# Oldest first. An old name is never given to something else.
RENAMES: tuple[Rename, ...] = ()


class Found(NamedTuple):
    """An old key that a configuration has.

    Args:
        place: the path to it: names of keys, and numbers of list elements.
    """

    rename: Rename
    place: tuple[str | int, ...]

    @property
    def old(self) -> str:
        return text_of(self.place)

    @property
    def new(self) -> str:
        """What it is called today, also where it was renamed twice."""
        path = self.rename.new_path
        for later in _of("key"):
            if later.path == path:
                path = later.new_path
        return text_of((*self.place[:-1], path[-1]) if {_EACH, _ANY} & {*path} else path)


class Asked(NamedTuple):
    """What an annotation says.

    Args:
        value: None: nothing that counts.
        names: under which it stands.
        warning: that an old name was used; empty: none was.
        refusal: why what stands there does not count; empty: nothing is refused.
    """

    value: str | None
    names: tuple[str, ...] = ()
    warning: str = ""
    refusal: str = ""


def renamed(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[Found]]:
    """A configuration in today's names, and which old ones it had.

    Raises:
        BadInput: it has a key under both names.
    """
    value, found = dict(config), []
    between = set()  # names that were new once, and are old again
    for rename in _of("key"):
        for place in list(places(value, rename.path)):
            target = rename.new_path if rename.moves else (*place[:-1], rename.new_path[-1])
            if not _can_hold(value, target[:-1]):
                continue
            if _has(value, target):
                raise BadInput(
                    f"`{text_of(place)}` and `{text_of(target)}`: expected one of the two names of this key, found "
                    f"both; remove `{text_of(place)}`, the old one"
                )
            value = _moved(value, place, target)
            between.add(target)
            if place not in between:
                found.append(Found(rename, place))
    return value, found


def today(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that a version of ours has written, in today's names."""
    return renamed(config)[0]


def state_fields(value: Mapping[str, Any]) -> dict[str, Any]:
    """A rollout's state, in today's names."""
    now = {one.old: one.new for one in _of("state")}
    found = dict(value)
    for name in value:
        last = name
        while last in now:
            last = now[last]
        if last != name:
            found[last] = found.pop(name)
    return found


def names(kind: str, new: str) -> tuple[str, ...]:
    """Every name of an annotation or a field: today's first."""
    found = [new]
    for one in reversed(_of(kind)):
        if one.new in found:
            found.append(one.old)
    return tuple(found)


def asked(annotations: Mapping[str, str], new: str) -> Asked:
    """What a person says by an annotation, under today's name or an old one that still works."""
    there = tuple(name for name in names("annotation", new) if name in annotations)
    if len(there) > 1:
        both = " and ".join(there)
        return Asked(None, there, refusal=f"annotations {both}: expected one name, found {len(there)}; use {new}")
    if not there or there[0] == new:
        return Asked(annotations.get(new), there)
    rename = next(one for one in _of("annotation") if one.old == there[0])
    if rename.is_over:
        text = f"annotation {rename.old}: it is called {new} since version {rename.since}; use that name"
        return Asked(None, there, refusal=text)
    text = f"warning: annotation {rename.old} is now called {new}; the old name works until version {rename.end}"
    return Asked(annotations[rename.old], there, warning=text)


def is_newer(version: str) -> bool:
    """Whether a version, as a release or a plan records it, is a later minor version than this one."""
    try:
        return _minor(version) > _minor(VERSION)
    except ValueError:
        return False


def path_of(name: str) -> tuple[str, ...]:
    """The parts of a key's name: ``rules[].rate`` is ``rules``, ``[]``, ``rate``."""
    return tuple(name.replace(_EACH, f".{_EACH}").split("."))


def text_of(place: Iterable[str | int]) -> str:
    """A path as people read it."""
    return "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in place).removeprefix(".")


def places(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str | int, ...]]:
    """Where a path leads to in a configuration."""
    if not path:
        yield ()
        return
    first, rest = path[0], path[1:]
    steps: Iterable[Any] = ()
    if first == _EACH:
        steps = range(len(value)) if isinstance(value, list | tuple) else ()
    elif isinstance(value, Mapping):
        steps = list(value) if first == _ANY else [first] if first in value else []
    for step in steps:
        for place in places(value[step], rest):
            yield (step, *place)


def _of(kind: str) -> list[Rename]:
    return [one for one in RENAMES if one.kind == kind]


def _minor(version: str) -> tuple[int, int]:
    """Major and minor number.

    Raises:
        ValueError: it is no version.
    """
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _has(value: Any, place: tuple[str | int, ...]) -> bool:
    """Whether something stands at a place that ``_can_hold`` allows."""
    *way, last = place
    for step in way:
        if isinstance(value, Mapping) and step not in value:
            return False
        value = value[step]
    return last in value


def _can_hold(value: Any, place: tuple[str | int, ...]) -> bool:
    """Whether a section stands at a place, or could."""
    for step in place:
        if isinstance(value, Mapping) and step not in value:
            return True
        value = value[step]
        if not isinstance(value, Mapping | list | tuple):
            return False
    return isinstance(value, Mapping)


def _moved(value: dict[str, Any], place: tuple[str | int, ...], target: tuple[str | int, ...]) -> dict[str, Any]:
    if place[:-1] == target[:-1]:
        return dict(_changed(value, place[:-1], lambda at: _renamed_in(at, place[-1], target[-1])))
    kept: list[Any] = []
    value = _changed(value, place[:-1], lambda at: _without(at, place[-1], kept))
    return dict(_changed(value, target[:-1], lambda at: {**at, target[-1]: kept[0]}))


def _renamed_in(at: Mapping[Any, Any], old: Any, new: Any) -> dict[Any, Any]:
    return {new if key == old else key: item for key, item in at.items()}


def _without(at: Mapping[Any, Any], old: Any, kept: list[Any]) -> dict[Any, Any]:
    kept.append(at[old])
    return {key: item for key, item in at.items() if key != old}


def _changed(value: Any, place: tuple[str | int, ...], change: Any) -> Any:
    """A copy in which the section at a place is another; one that is missing is made."""
    if not place:
        return change(value)
    step, rest = place[0], place[1:]
    if isinstance(value, list | tuple):
        return [_changed(one, rest, change) if at == step else one for at, one in enumerate(value)]
    return {**value, step: _changed(value.get(step, {}), rest, change)}
