"""Configuration files: safe YAML, small, every key once, each variation beside its base."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from understudy.errors import BadInput, first_line

__all__ = ["base_of", "line_in", "line_of", "parsed", "read", "read_one"]

_MAX_BYTES = 1 << 20
_MAX_VALUES = 100_000
_MERGE = "tag:yaml.org,2002:merge"
_BASE = "base"


Change = Callable[[Path, dict[str, Any]], dict[str, Any]]


def read(path: Path, change: Change = lambda _, own: own) -> dict[str, Any]:
    """The keys of a file. Its key ``base`` names a file in the same folder, whose keys it adds to or replaces.

    Args:
        change: is given each file and its own keys, and returns the keys that count.

    Raises:
        BadInput: says which file, where in it, what was expected and what was found.
    """
    own = read_one(path)
    beside = base_of(path, own)
    if beside is None:
        return change(path, own)
    own.pop(_BASE)
    base = read_one(beside)
    if _BASE in base:
        raise BadInput(
            f"configuration {path}: base: expected a file without a base, found one in {beside.name}; name its base"
        )
    return _merged(change(beside, base), change(path, own))


def base_of(path: Path, own: dict[str, Any]) -> Path | None:
    """The file that a file's key ``base`` names."""
    if _BASE not in own:
        return None
    name = own[_BASE]
    if not isinstance(name, str) or Path(name).name != name:
        raise BadInput(f"configuration {path}: base: expected the name of a file beside it, found {name!r}; correct it")
    return path.with_name(name)


def parsed(text: str) -> tuple[Any, yaml.Node | None]:
    """The value of a text, and the nodes that say where in it each key stands.

    Raises:
        yaml.YAMLError: it is no safe YAML.
    """
    return yaml.load(text, _Strict), yaml.compose(text, _Strict)


def line_of(path: Path, place: tuple[str | int, ...]) -> int | None:
    """The line of a key in a file, see ``line_in``."""
    return line_in(yaml.compose(path.read_bytes(), _Strict), place)


def line_in(node: yaml.Node | None, place: tuple[str | int, ...]) -> int | None:
    """The line of a key, counted from 1; None where it does not stand in the text, but a YAML merge brings it."""
    line = None
    for step in place:
        found: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            found, node = next(((key, value) for key, value in node.value if key.value == step), (None, None))
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            found = node = node.value[step]
        if found is None:
            return None
        line = found.start_mark.line + 1
    return line


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    both = {key: _merged(base[key], own[key]) for key in base if _is_section(base[key]) and _is_section(own.get(key))}
    return {**base, **own, **both}


def _is_section(value: Any) -> bool:
    return isinstance(value, dict)


def read_one(path: Path) -> dict[str, Any]:
    """The keys that stand in a file itself."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"configuration {path}: expected a file, found none ({error.strerror}); correct --config"
        ) from error
    if len(data) > _MAX_BYTES:
        raise BadInput(
            f"configuration {path}: expected at most {_MAX_BYTES} bytes, found {len(data)}; correct --config"
        )
    try:
        value = yaml.load(data, _Strict)
        size = _size(value, {})
    except (RecursionError, ValueError) as error:
        raise BadInput(
            f"configuration {path}: expected plain nested keys, found {first_line(error)}; write it out"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = (getattr(error, "problem", None) or "not text").removeprefix("found ")
        raise BadInput(f"configuration {path}{where}: expected YAML, found {problem}; mend that line") from error
    if size > _MAX_VALUES:
        raise BadInput(
            f"configuration {path}: expected at most {_MAX_VALUES} values, found {size}, its YAML aliases written out; "
            "remove some"
        )
    if not isinstance(value, dict):
        raise BadInput(
            f"configuration {path}: expected keys such as source, found {type(value).__name__}; see examples/"
        )
    return value


class _Strict(yaml.SafeLoader):
    """Safe YAML in which a key may stand only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        known = set()
        for key, _ in node.value:
            name = key.value if isinstance(key.value, str) else id(key)
            if key.tag != _MERGE and name in known:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} twice", key.start_mark)
            known.add(name)
        return super().construct_mapping(node, deep)


def _size(value: Any, known: dict[int, int]) -> int:
    """How many values there are when aliases are written out.

    Args:
        known: identity → size of what was counted; 0 while it is being counted.

    Raises:
        ValueError: a value contains itself.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = 0
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(part, known) for part in parts)
    if not known[id(value)]:
        raise ValueError("a value that contains itself")
    return known[id(value)]
