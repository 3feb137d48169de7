"""Snapshots of the ingested tables: which files, together, are the logs at one moment.

A day of a table is one immutable file, named by its content. A snapshot lists the files of every
table; the newest number counts, and a new one is created or not at all, so readers never see half
an ingestion, and a run goes on reading the snapshot that its plan names.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from understudy import schema
from understudy.lake import Lake
from understudy.section import canonical_json

__all__ = ["ALL_DAYS", "Snapshot"]

_FOLDER = "tables/snapshots"
ALL_DAYS = "all"  # the part of a table that has no days: users, items, rejected


@dataclass(frozen=True)
class Snapshot:
    """The files of the ingested tables.

    Args:
        number: 0 for the empty lake; each commit adds one.
        heads: the heads that the logs know.
        tables: table → day (or ``all``) → {path, sha256, rows, and for actions: count per action}.
    """

    number: int = 0
    heads: tuple[str, ...] = ()
    tables: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def latest(cls, lake: Lake) -> "Snapshot":
        numbers = lake.names(_FOLDER)
        return cls._read(lake, numbers[-1]) if numbers else cls()

    @classmethod
    def load(cls, lake: Lake, number: int) -> "Snapshot":
        return cls._read(lake, f"{number:08d}.json") if number else cls()

    @classmethod
    def _read(cls, lake: Lake, name: str) -> "Snapshot":
        value = lake.read_json(_FOLDER, name)
        return cls(number=int(name.split(".", maxsplit=1)[0]), heads=tuple(value["heads"]), tables=value["tables"])

    def commit(self, lake: Lake) -> bool:
        """Make this the newest snapshot. False where another writer was first."""
        value = {"heads": list(self.heads), "tables": self.tables}
        return lake.create_json(f"{_FOLDER}/{self.number:08d}.json", value)

    def days(self, table: str = "impressions") -> list[str]:
        """Days (``YYYY-MM-DD``) that hold rows, in order."""
        return sorted(self.tables.get(table, {}))

    def files(self, table: str, first: str = "", last: str = "~") -> list[str]:
        """Paths in the lake of the days from ``first`` to ``last``, both included."""
        return [part["path"] for day, part in sorted(self.tables.get(table, {}).items()) if first <= day <= last]

    def rows(self, table: str, first: str = "", last: str = "~") -> int:
        return sum(part["rows"] for day, part in self.tables.get(table, {}).items() if first <= day <= last)

    def fingerprint(self, last: str) -> str:
        """Digest of the contents of all tables up to the day ``last``."""
        parts = [
            [table, day, part["sha256"]]
            for table, days in sorted(self.tables.items())
            for day, part in sorted(days.items())
            if table != "rejected" and (day == ALL_DAYS or day <= last)
        ]
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()

    def dataset(self, lake: Lake, table: str, first: str = "", last: str = "~") -> pads.Dataset:
        """The rows of a table from ``first`` to ``last``, as Arrow reads them."""
        paths = [lake.path(path) for path in self.files(table, first, last)]
        if not paths:
            return pads.dataset(pa.Table.from_pylist([], schema.arrow_schema(table, self.heads)))
        return pads.dataset(paths, filesystem=lake.fs, format="parquet")
