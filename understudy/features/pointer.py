"""Which features are current: ``features/current.json``."""

from typing import Any

from understudy.errors import BadInput
from understudy.lake import Lake

__all__ = ["POINTER", "REDIS_URL", "current_features"]

POINTER = "features/current.json"
REDIS_URL = "UNDERSTUDY_REDIS_URL"  # redis://[:password@]host:port/db; a secret, so never on a command line


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
