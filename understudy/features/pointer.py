"""Which features are current: ``features/current.json``."""

import urllib.parse
from typing import Any

from understudy.errors import BadInput
from understudy.lake import Lake

__all__ = ["POINTER", "REDIS_URL", "current_features", "redis_parts"]

POINTER = "features/current.json"
REDIS_URL = "UNDERSTUDY_REDIS_URL"  # redis://[:password@]host:port/db; a secret, so never on a command line


def redis_parts(url: str) -> urllib.parse.SplitResult:
    """The parts of a Redis' URL.

    Raises:
        BadInput: it is none, or none that Feast can take; the text never holds the URL, which has a password.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise BadInput(
            f"{REDIS_URL}: expected redis://[:password@]host:port/db, found something else; "
            "write characters such as / and @ of a password as %2F and %40"
        )
    if any("," in urllib.parse.unquote(value or "") for value in (parts.username, parts.password)):
        raise BadInput(f"{REDIS_URL}: expected a user and password without commas, which Feast can't take; change them")
    return parts


def current_features(lake: Lake) -> dict[str, Any]:
    """``run_id``, whose tables they are; ``window_end``; ``items``, the item snapshot; ``as_of_us``, of the refresh.

    Raises:
        BadInput: no features were built yet.
    """
    if not lake.exists(POINTER):
        raise BadInput(
            f"lake {lake.root}: expected features, found none; run `understudy features refresh --lake {lake.root}`"
        )
    pointer: dict[str, Any] = lake.read_json(POINTER)
    return pointer
