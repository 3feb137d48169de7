"""Segments: what a collector has gathered of one hour, as files that appear whole or not at all.

A segment is up to two Parquet files (impressions, actions) and a note that names them; only the
note makes it visible. It is named by its content, so writing it twice changes nothing.
"""

import datetime
import hashlib
import tempfile
import zoneinfo
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from understudy import schema
from understudy.errors import UnderstudyError
from understudy.lake import Lake, file_digest
from understudy.snapshot import ALL_DAYS, SEGMENTS, Snapshot

__all__ = ["write_attributes", "write_segments"]

_HOUR_US = 3_600_000_000
_TRIES = 5


def write_segments(lake: Lake, heads: tuple[str, ...], time_zone: str, impressions: pa.Table, actions: pa.Table) -> int:
    """Write rows of both tables as segments by local day and hour; returns how many.

    Args:
        impressions, actions: rows with the declared columns, in any order.
    """
    zone = zoneinfo.ZoneInfo(time_zone)
    tables = {"impressions": impressions, "actions": actions}
    hours = {name: _hours(table) for name, table in tables.items()}
    found = np.unique(np.concatenate(list(hours.values())))
    for hour in found:
        at = datetime.datetime.fromtimestamp(int(hour) * 3600, zone)
        parts = {
            name: table.select(schema.arrow_schema(name, heads).names)
            .filter(pa.array(hours[name] == hour))
            .sort_by([("ts", "ascending"), ("row_key", "ascending")])
            for name, table in tables.items()
        }
        _write(lake, heads, at, parts)
    return len(found)


def _hours(table: pa.Table) -> Any:
    return table["ts"].cast(pa.int64()).to_numpy() // _HOUR_US


def _write(lake: Lake, heads: tuple[str, ...], at: datetime.datetime, parts: dict[str, pa.Table]) -> None:
    entries: dict[str, dict[str, Any]] = {}
    for name, table in parts.items():
        if not table.num_rows:
            continue
        entry = _put(lake, name, f"{at:%Y-%m-%d}/{at:%H}-", table.cast(schema.arrow_schema(name, heads)))
        if name == "actions":
            entry["actions"] = {h: int(pc.sum(pc.equal(table["action"], h)).as_py() or 0) for h in heads}
        entries[name] = entry
    digest = hashlib.sha256("".join(entry["sha256"] for entry in entries.values()).encode()).hexdigest()
    lake.create_json(f"{SEGMENTS}/{at:%Y-%m-%dT%H}-{digest[:16]}.json", {"heads": list(heads), "tables": entries})


def write_attributes(lake: Lake, heads: tuple[str, ...], tables: dict[str, pa.Table]) -> None:
    """Make ``users`` and ``items`` the current attributes, in a new snapshot."""
    entries = {name: _put(lake, name, f"{ALL_DAYS}/", table) for name, table in tables.items()}
    for _ in range(_TRIES):
        before = Snapshot.current(lake)
        merged = before.tables | {name: {ALL_DAYS: entry} for name, entry in entries.items()}
        if merged == before.tables or replace(before, number=before.number + 1, heads=heads, tables=merged).commit(
            lake
        ):
            return
    raise UnderstudyError(f"lake {lake.root}: expected to be its only writer for a moment, found others; try again")


def _put(lake: Lake, table: str, prefix: str, rows: pa.Table) -> dict[str, Any]:
    """A file in the lake, named by its content."""
    with tempfile.TemporaryDirectory(prefix="understudy-segment-") as folder:
        path = Path(folder) / "rows.parquet"
        pq.write_table(rows, path, compression="zstd", store_schema=False)
        with path.open("rb") as file:
            digest = file_digest(file)
        target = f"tables/{table}/{prefix}{digest[:16]}.parquet"
        lake.put(path, target)
    return {"path": target, "sha256": digest, "rows": rows.num_rows}
