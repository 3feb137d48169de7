"""What the configuration says of logs: how to read them, and when an outcome is known."""

import re
from collections.abc import Iterable

from understudy.section import duration_s, number, section

__all__ = ["Attributes", "Impressions", "Labels", "Logging", "Source"]

_KEYS = {"user_id", "item_id", "creator_id", "topic_id"}  # what the tables call them


@section
class Impressions:
    """Files that hold impressions, and which slice they belong to.

    Args:
        files: name patterns in the source folder.
        slice: ``policy`` for what the ranker showed, ``random`` for what was shown at random.
    """

    files: tuple[str, ...]
    slice: str = "policy"

    def __post_init__(self) -> None:
        if self.slice not in ("policy", "random"):
            raise ValueError(f"slice: expected policy or random, found {self.slice!r}")


@section
class Attributes:
    """Files with one row per user or item.

    Args:
        files: name patterns in the source folder.
        key: column of the user or item.
        categorical: columns to read as text.
        numeric: columns to read as numbers.
        times: columns of dates or times (ISO 8601; without an offset, in the configuration's time zone), such as
            when an item was made. The network is fed their age at the impression.
        creator, topic: (items only) columns of the item's maker and topic.
        topic_separator: where a topic column lists several, the first counts.
    """

    files: tuple[str, ...]
    key: str
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    times: tuple[str, ...] = ()
    creator: str | None = None
    topic: str | None = None
    topic_separator: str = ","


@section
class Source:
    """How raw logs map to tables. Columns are named as they are in the files.

    Args:
        impressions: the log files.
        user, item, time: columns of who, what and when.
        time_unit: ``s``, ``ms`` or ``us`` since 1970, or ``iso`` (without an offset: the
            configuration's time zone).
        outcomes: head → column; a value of 0 is no action, above 0 is one. Never inputs.
        outcome_columns: further columns that are known only afterwards. Never inputs.
        request, surface, position: columns, where the log has them. Without a request column, a
            user at a moment is a request.
        users, items: attribute files.
        max_rejected_share: more rejected rows than this, and nothing is ingested.
    """

    impressions: tuple[Impressions, ...]
    user: str
    item: str
    time: str
    outcomes: dict[str, str]
    time_unit: str = "iso"
    outcome_columns: tuple[str, ...] = ()
    request: str | None = None
    surface: str | None = None
    position: str | None = None
    users: Attributes | None = None
    items: Attributes | None = None
    max_rejected_share: float = number(0.05, low=0, high=1)

    def __post_init__(self) -> None:
        if self.time_unit not in ("s", "ms", "us", "iso"):
            raise ValueError(f"time_unit: expected s, ms, us or iso, found {self.time_unit!r}")
        _check_heads("outcomes", self.outcomes)
        forbidden = {*self.outcomes.values(), *self.outcome_columns}
        for name in ("users", "items"):
            attributes = getattr(self, name)
            listed = (*attributes.categorical, *attributes.numeric, *attributes.times) if attributes else ()
            used = set(listed)
            if len({column.lower() for column in listed} | _KEYS) < len(listed) + len(_KEYS):
                raise ValueError(f"{name}: expected each column once, and none named {', '.join(sorted(_KEYS))}")
            if used & forbidden:
                column = sorted(used & forbidden)[0]
                raise ValueError(f"{name}: column {column!r} is an outcome and can never become an input; remove it")


@section
class Logging:
    """What a feed keeps of what it showed: every positive, few of the rest, a random slice in full.

    Args:
        heads: outcomes that become heads; only these make an impression a positive.
        negative_keep_rate: share of seen impressions without a positive that is kept.
        random_share: share of requests whose order is random, and which are logged in full.
        lateness: how long after its attribution window an action may still arrive.
        salt: of the users' buckets.
    """

    heads: tuple[str, ...]
    negative_keep_rate: float = number(0.1, low=1e-6, high=1)
    random_share: float = number(0.02, low=0, high=1)
    lateness: str = "1d"
    salt: str = "understudy"

    def __post_init__(self) -> None:
        duration_s(self.lateness)
        _check_heads("heads", self.heads)


@section
class Labels:
    """When an outcome counts.

    Args:
        attribution_window: an action later than this after the impression is no label; and an
            impression's outcome becomes readable (in features) only after it.
    """

    attribution_window: str = "30m"

    def __post_init__(self) -> None:
        duration_s(self.attribution_window)


def _check_heads(key: str, heads: Iterable[str]) -> None:
    """Heads name columns of tables, inputs and metrics."""
    if not heads:
        raise ValueError(f"{key}: expected at least one outcome, found none")
    for head in heads:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", head):
            raise ValueError(f"{key}: expected a name of letters, digits and _, found {head!r}")
