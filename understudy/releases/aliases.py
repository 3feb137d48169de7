"""Aliases: which digest is ``candidate``, ``production``, ``previous``.

They live in a log of numbered entries, each the whole map. To move an alias is to create the next
number, which succeeds only once: compare-and-swap on any store, and the history stays.
"""

import datetime
from typing import Any

from understudy.errors import BadInput
from understudy.lake import Lake

__all__ = ["ALIASES", "aliases", "history", "move", "resolve_alias"]

ALIASES = ("candidate", "production", "previous")
_FOLDER = "releases/aliases"


def history(lake: Lake) -> list[dict[str, Any]]:
    """Every entry of the log, oldest first: ``number``, ``aliases``, ``reason``, ``at``."""
    return [{"number": int(name.split(".")[0]), **lake.read_json(_FOLDER, name)} for name in lake.names(_FOLDER)]


def aliases(lake: Lake) -> dict[str, str]:
    """Alias → digest, as they stand now."""
    _, known = _newest(lake)
    return known


def resolve_alias(lake: Lake, name: str) -> str | None:
    """The digest of an alias, or None where it is not set."""
    return aliases(lake).get(name)


def move(lake: Lake, changes: dict[str, str | None], reason: str, *, expected: dict[str, str | None]) -> dict[str, str]:
    """Move aliases, all or none; returns the map that stands afterwards. Where they stand already, nothing moves.

    Args:
        changes: alias → digest; None removes it.
        reason: why, for the history.
        expected: alias → digest that must still hold.

    Raises:
        BadInput: another writer was first.
    """
    number, known = _newest(lake)
    after = {name: digest for name, digest in {**known, **changes}.items() if digest is not None}
    if after == known:
        return known
    for name, digest in expected.items():
        if known.get(name) != digest:
            raise _moved(lake, name, digest, known.get(name))
    at = datetime.datetime.now(datetime.UTC).isoformat()
    entry = {"aliases": after, "reason": reason, "at": at}
    if not lake.create_json(f"{_FOLDER}/{number + 1:08d}.json", entry):
        found = aliases(lake)
        if found != after:
            name = next(iter(changes))
            raise _moved(lake, name, known.get(name), found.get(name))
    return after


def _newest(lake: Lake) -> tuple[int, dict[str, str]]:
    names = lake.names(_FOLDER)
    if not names:
        return 0, {}
    return int(names[-1].split(".")[0]), dict(lake.read_json(_FOLDER, names[-1])["aliases"])


def _moved(lake: Lake, name: str, expected: str | None, found: str | None) -> BadInput:
    return BadInput(
        f"alias {name} in lake {lake.root}: expected {_short(expected)}, found {_short(found)}: it has moved "
        "meanwhile; look at `understudy releases list`, then give the command again"
    )


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
