"""From the journal to the lake: join served context, take the keep decision, write segments.

Entries leave the journal after their segment is visible. A collector that dies in between writes them
again; compaction counts a row once.
"""

import sys
from typing import Any

import numpy as np
import pyarrow as pa

from understudy import schema
from understudy.config import Config
from understudy.hashing import request_row_key
from understudy.lake import Lake
from understudy.logs.config import Logging
from understudy.logs.events import Item, Served
from understudy.logs.journal import Entry, Journal
from understudy.logs.keep import is_random, keeps
from understudy.logs.segments import write_segments

__all__ = ["flush", "tables_of"]

_AT_ONCE = 100_000


def flush(journal: Journal, lake: Lake, config: Config) -> int:
    """Write what waits to the lake; returns the number of impressions and actions written."""
    assert config.logging is not None, "checked when the collector starts"
    written = 0
    while True:
        last, entries = journal.waiting(_AT_ONCE)
        if not entries:
            return written
        contexts = journal.contexts({entry.request_id for entry in entries})
        known = [entry for entry in entries if entry.request_id in contexts]
        if lost := len(entries) - len(known):
            print(f"collect: {lost} events: expected their served context to outlive them, found none", file=sys.stderr)
        impressions, actions = tables_of(known, contexts, config.logging)
        write_segments(lake, config.heads, config.time_zone, impressions, actions)
        journal.forget(last)
        written += impressions.num_rows + actions.num_rows


def tables_of(entries: list[Entry], contexts: dict[str, Served], logging: Logging) -> tuple[pa.Table, pa.Table]:
    """The impressions and actions that the log keeps of entries."""
    heads = tuple(sorted(logging.heads))
    requests = pa.array([entry.request_id for entry in entries], pa.string())
    keys = request_row_key(requests, pa.array([entry.item_id for entry in entries], pa.string()))
    random = is_random(requests, logging.random_share)
    kinds = np.array([entry.kind for entry in entries])
    positive = np.array([entry.action in heads for entry in entries], bool)
    rate = np.where(random, 1.0, logging.negative_keep_rate)
    kept = np.where(kinds == "served", random, positive | ((kinds == "seen") & keeps(keys, positive, rate)))
    shown = [_impression(entries[i], int(keys[i]), bool(random[i]), contexts, logging) for i in np.flatnonzero(kept)]
    acted = [
        {
            "row_key": int(keys[i]),
            "request_id": entries[i].request_id,
            "item_id": entries[i].item_id,
            "action": entries[i].action,
            "ts": entries[i].ts,
            "value": entries[i].value,
        }
        for i in np.flatnonzero(kinds == "action")
    ]
    return _table(shown, "impressions", heads), _table(acted, "actions", heads)


def _impression(entry: Entry, key: int, random: bool, contexts: dict[str, Served], logging: Logging) -> dict[str, Any]:
    served = contexts[entry.request_id]
    item: Item = next(one for one in served.items if one.item_id == entry.item_id)
    propensity = (1 / served.candidate_count if item.propensity is None else item.propensity) if random else None
    return {
        "row_key": key,
        "request_id": entry.request_id,
        "user_id": served.user_id,
        "item_id": entry.item_id,
        "ts": served.at,
        "position": item.position,
        "surface": served.surface,
        "candidate_count": served.candidate_count,
        "seen": entry.kind != "served",
        "slice": "random" if random else "policy",
        "propensity": propensity,
        "bucket": served.bucket,
        "arm": served.arm,
        "release": served.release,
        **{f"p_{head}": item.p.get(head) for head in logging.heads},
        "negative_keep_rate": 1.0 if random else logging.negative_keep_rate,
    }


def _table(rows: list[dict[str, Any]], name: str, heads: tuple[str, ...]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema.arrow_schema(name, heads))
