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
from understudy.snapshot import ALL_DAYS, FORMAT, SEGMENTS, Snapshot

__all__ = ["write_attributes", "write_segments"]

_QUARTER_US = 900_000_000  # offsets of time zones are multiples of a quarter of an hour
_TRIES = 5


def write_segments(lake: Lake, heads: tuple[str, ...], time_zone: str, impressions: pa.Table, actions: pa.Table) -> int:
    """Write rows of both tables as segments by local day and hour; returns how many.

    Args:
        impressions, actions: rows with the declared columns, in any order.
    """
    zone = zoneinfo.ZoneInfo(time_zone)
    tables = {"impressions": impressions, "actions": actions}
    hours = {name: _hours(table, zone) for name, table in tables.items()}
    found = np.unique(np.concatenate(list(hours.values())))
    for hour in found:
        parts = {
            name: table.select(schema.arrow_schema(name, heads).names)
            .filter(pa.array(hours[name] == hour))
            .sort_by([("ts", "ascending"), ("row_key", "ascending")])
            for name, table in tables.items()
        }
        _write(lake, heads, str(hour), parts)
    return len(found)


def _hours(table: pa.Table, zone: zoneinfo.ZoneInfo) -> Any:
    """The local day and hour of each row, such as ``2022-05-01T18``."""
    quarters, places = np.unique(table["ts"].cast(pa.int64()).to_numpy() // _QUARTER_US, return_inverse=True)
    names = [f"{datetime.datetime.fromtimestamp(int(q) * 900, zone):%Y-%m-%dT%H}" for q in quarters]
    return np.array(names, dtype="<U13")[places]


def _write(lake: Lake, heads: tuple[str, ...], hour: str, parts: dict[str, pa.Table]) -> None:
    entries: dict[str, dict[str, Any]] = {}
    for name, table in parts.items():
        if not table.num_rows:
            continue
        entry = _put(lake, name, f"{hour.replace('T', '/')}-", table.cast(schema.arrow_schema(name, heads)))
        if name == "actions":
            entry["actions"] = {h: int(pc.sum(pc.equal(table["action"], h)).as_py() or 0) for h in heads}
        entries[name] = entry
    digest = hashlib.sha256("".join(entry["sha256"] for entry in entries.values()).encode()).hexdigest()
    note = {"heads": list(heads), "tables": entries, **FORMAT.mark()}
    lake.create_json(f"{SEGMENTS}/{hour}-{digest[:16]}.json", note)


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
    return {"path": target, "sha256": digest, "rows": rows.num_rows, **schema.mark()}
