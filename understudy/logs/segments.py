"""Segments: what a collector has gathered of one hour, as files that appear whole or not at all.

A segment is up to two Parquet files (impressions, actions) and a note that names them; only the
note makes it visible. It is named by its content, so writing it twice changes nothing.
"""

import datetime
import hashlib
import tempfile
import zoneinfo
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from understudy import schema
from understudy.lake import Lake, file_digest
from understudy.snapshot import SEGMENTS

__all__ = ["write_segments"]

_HOUR_US = 3_600_000_000


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
    with tempfile.TemporaryDirectory(prefix="understudy-segment-") as folder:
        for name, table in parts.items():
            if not table.num_rows:
                continue
            path = Path(folder) / f"{name}.parquet"
            fields = schema.arrow_schema(name, heads)
            pq.write_table(table.cast(fields), path, compression="zstd", store_schema=False)
            with path.open("rb") as file:
                digest = file_digest(file)
            entry: dict[str, Any] = {
                "path": f"tables/{name}/{at:%Y-%m-%d}/{at:%H}-{digest[:16]}.parquet",
                "sha256": digest,
                "rows": table.num_rows,
            }
            if name == "actions":
                entry["actions"] = {h: int(pc.sum(pc.equal(table["action"], h)).as_py() or 0) for h in heads}
            lake.put(path, entry["path"])
            entries[name] = entry
    digest = hashlib.sha256("".join(entry["sha256"] for entry in entries.values()).encode()).hexdigest()
    lake.create_json(f"{SEGMENTS}/{at:%Y-%m-%dT%H}-{digest[:16]}.json", {"heads": list(heads), "tables": entries})
