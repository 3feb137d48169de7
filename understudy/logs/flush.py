"""From the journal to the lake: rows that wait become segments.

Rows leave the journal after their segment is visible and on disk. A collector that dies in between
writes them again; compaction counts a row once.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from understudy.config import Config
from understudy.lake import Lake
from understudy.logs.journal import Journal
from understudy.logs.segments import write_segments

__all__ = ["Flushed", "flush"]

_AT_ONCE = 100_000


class Flushed(NamedTuple):
    """Rows that reached the lake."""

    impressions: int
    actions: int


def flush(journal: Journal, lake: Lake, config: Config) -> Flushed:
    """Write what waits to the lake."""
    written, more = Flushed(0, 0), True
    while more:
        last, impressions, actions = journal.waiting(_AT_ONCE)
        more = impressions.num_rows + actions.num_rows >= _AT_ONCE
        if last:
            impressions = _once(impressions)
            write_segments(lake, config.heads, config.time_zone, impressions, actions)
            written = Flushed(written.impressions + impressions.num_rows, written.actions + actions.num_rows)
        journal.forget(last)
    return written


def _once(impressions: pa.Table) -> pa.Table:
    """Each row_key once, seen before unseen. Compaction does the same over all segments; here it saves room."""
    order = pc.sort_indices(impressions, [("row_key", "ascending"), ("seen", "descending")])
    ordered = impressions.take(order)
    keys = ordered["row_key"].to_numpy()
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    return ordered.filter(pa.array(first))
