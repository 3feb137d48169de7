"""What is known of a served request meets what was seen and done: the rows that the log keeps. No I/O.

The keep decision is taken here, once for all events that are written together: a served item of the
random slice, and an item with a positive action, always; a seen item by the hash of request and item.
"""

from collections.abc import Sequence
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from understudy import schema
from understudy.hashing import bucket, request_row_key
from understudy.logs.config import Logging
from understudy.logs.context import Context
from understudy.logs.events import Action, Seen, Served
from understudy.logs.keep import is_random, keeps

__all__ = ["Joined", "contexts_of", "served_fault", "tables_of", "unknown"]


class Joined(NamedTuple):
    """An item of a served request: served, seen (``action`` is None) or acted on.

    Args:
        ts: µs since 1970, on the collector's clock.
    """

    context: Context
    request_id: str
    item_id: str
    seen: bool
    ts: int
    action: str | None = None
    value: float = 0.0


def contexts_of(served: Sequence[Served], at: Sequence[int], logging: Logging) -> dict[str, Context]:
    """What is kept of served requests, by request; where one is reported twice, the first counts.

    Args:
        at: when each was served, on the collector's clock, in µs.
    """
    if not served:
        return {}
    random = is_random(pa.array([one.request_id for one in served], pa.string()), logging.random_share).tolist()
    buckets = bucket(logging.salt, [one.user_id for one in served]).tolist()
    found: dict[str, Context] = {}
    for one, at_us, is_one, number in zip(served, at, random, buckets, strict=True):
        if one.request_id not in found:
            found[one.request_id] = _context(one, at_us, is_one, number, logging)
    return found


def _context(served: Served, at_us: int, random: bool, number: int, logging: Logging) -> Context:
    heads = list(logging.heads)
    by_chance = 1 / served.candidate_count  # of any item at any position of a random order
    items = {}
    for item in served.items:
        propensity = (by_chance if item.propensity is None else item.propensity) if random else None
        items[item.item_id] = [item.position, propensity, *map(item.p.get, heads)]
    return Context(
        at=at_us,
        user_id=served.user_id,
        candidate_count=served.candidate_count,
        surface=served.surface,
        release=served.release,
        arm=served.arm,
        bucket=number if served.bucket is None else served.bucket,
        random=random,
        rate=1.0 if random else logging.negative_keep_rate,
        heads=heads,
        items=items,
    )


def served_fault(served: Served, age_us: int, keep_us: int) -> tuple[str, str] | None:
    """Why a served event can't be taken: reason and cause."""
    if len({item.item_id for item in served.items}) != len(served.items):
        return f"request_id {served.request_id!r}: expected each item once, found one twice", "repeated_item"
    if age_us > keep_us:
        return f"at: expected at most {keep_us // 1_000_000} s before sent_at, found {age_us // 1_000_000} s", "too_old"
    return None


def unknown(event: Seen | Action, context: Context | None) -> tuple[str, str] | None:
    """Why an event can't be joined: reason and cause."""
    if context is None:
        return f"request_id {event.request_id!r}: expected a request that was served, found none", "unknown_request"
    if event.item_id not in context.items:
        return f"item_id {event.item_id!r}: expected an item that this request was served, found none", "unknown_item"
    return None


def tables_of(joined: Sequence[Joined], heads: tuple[str, ...]) -> tuple[pa.Table, pa.Table]:
    """The impressions and actions that the log keeps; an impression once, seen before unseen."""
    keys = request_row_key(
        pa.array([one.request_id for one in joined], pa.string()),
        pa.array([one.item_id for one in joined], pa.string()),
    )
    positive = np.array([one.action in heads for one in joined], bool)
    rate = np.array([one.context.rate for one in joined], np.float64)
    kept = keeps(keys, positive, rate)
    shown: dict[int, Joined] = {}
    for one, key in zip(compress(joined, kept), keys[kept].tolist(), strict=True):
        if one.seen or key not in shown:
            shown[key] = one
    impressions = [_impression(key, one, heads) for key, one in shown.items()]
    actions = [
        (key, one.request_id, one.item_id, one.action, one.ts, one.value)
        for key, one in zip(keys.tolist(), joined, strict=True)
        if one.action is not None
    ]
    return _table(impressions, "impressions", heads), _table(actions, "actions", heads)


def _impression(key: int, joined: Joined, heads: tuple[str, ...]) -> tuple[Any, ...]:
    """A row of the table, in the declared order of its columns."""
    context = joined.context
    position, propensity, *p = context.items[joined.item_id]
    by_head = dict(zip(context.heads, p, strict=True))
    return (
        key,
        joined.request_id,
        context.user_id,
        joined.item_id,
        context.at,
        position,
        context.surface,
        context.candidate_count,
        joined.seen,
        "random" if context.random else "policy",
        propensity,
        context.bucket,
        context.arm,
        context.release,
        *map(by_head.get, heads),
        context.rate,
    )


def _table(rows: list[tuple[Any, ...]], name: str, heads: tuple[str, ...]) -> pa.Table:
    declared = schema.arrow_schema(name, heads)
    if not rows:
        return declared.empty_table()
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(values, field.type) for values, field in zip(columns, declared, strict=True)], declared)
