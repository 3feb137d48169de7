"""Snapshots of the logs: which files, together, are the tables at one moment.

A part of a table is one immutable file, named by its content: a day of ingested logs, or a segment
of an hour that a collector wrote. A snapshot lists the parts of every table; the newest number
counts, and a new one is created or not at all, so readers never see half an ingestion, and a run
goes on reading the snapshot that its plan names. Collectors do not write snapshots: the next plan
takes up the segments that it finds.
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from understudy import schema
from understudy.formats import Format
from understudy.lake import Lake
from understudy.section import canonical_json

__all__ = ["ALL_DAYS", "SEGMENTS", "Snapshot"]

_FOLDER = "tables/snapshots"
SEGMENTS = "tables/segments"
_DAY = len("2022-05-04")
FORMAT: Format[dict[str, Any]] = Format("list of tables", 1, "ingest the logs into a new lake")  # of segments too
ALL_DAYS = "all"  # the part of a table that has no days: users, items, rejected


@dataclass(frozen=True)
class Snapshot:
    """The files of the logs.

    Args:
        number: 0 for the empty lake; each commit adds one.
        heads: the heads that the logs know.
        tables: table → part → {path, sha256, rows, for actions count per action, and schema, the version of the
            tables, where it is not the first}. A part is named ``all``, by its day, or by a name that begins with it.
    """

    number: int = 0
    heads: tuple[str, ...] = ()
    tables: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def latest(cls, lake: Lake) -> "Snapshot":
        numbers = lake.names(_FOLDER)
        return cls._read(lake, numbers[-1]) if numbers else cls()

    @classmethod
    def current(cls, lake: Lake) -> "Snapshot":
        """The newest snapshot with the segments that collectors have finished since; not yet committed."""
        latest = cls.latest(lake)
        tables = {table: dict(parts) for table, parts in latest.tables.items()}
        heads = latest.heads
        known = {part for parts in tables.values() for part in parts}
        for name in lake.names(SEGMENTS):
            segment = name.removesuffix(".json")
            if segment in known:
                continue
            value = FORMAT.unmarked(lake.read_json(SEGMENTS, name), lake.path(SEGMENTS, name))
            heads = tuple(value["heads"])
            for table, part in value["tables"].items():
                tables.setdefault(table, {})[segment] = part
        if tables == latest.tables:
            return latest
        return replace(latest, number=latest.number + 1, heads=heads, tables=tables)

    @classmethod
    def admit(cls, lake: Lake) -> "Snapshot":
        """``current``, committed."""
        while True:
            found = cls.current(lake)
            if found.number == cls.latest(lake).number or found.commit(lake):
                return found

    @classmethod
    def load(cls, lake: Lake, number: int) -> "Snapshot":
        return cls._read(lake, f"{number:08d}.json") if number else cls()

    @classmethod
    def _read(cls, lake: Lake, name: str) -> "Snapshot":
        value = FORMAT.unmarked(lake.read_json(_FOLDER, name), lake.path(_FOLDER, name))
        return cls(number=int(name.split(".", maxsplit=1)[0]), heads=tuple(value["heads"]), tables=value["tables"])

    def commit(self, lake: Lake) -> bool:
        """Make this the newest snapshot. False where another writer was first."""
        value = {"heads": list(self.heads), "tables": self.tables, **FORMAT.mark()}
        return lake.create_json(f"{_FOLDER}/{self.number:08d}.json", value)

    def days(self, table: str = "impressions") -> list[str]:
        """Days (``YYYY-MM-DD``) that hold rows, in order."""
        return sorted({part[:_DAY] for part in self.tables.get(table, {})})

    def parts(self, table: str, first: str = "", last: str = "~") -> list[dict[str, Any]]:
        """The parts of the days from ``first`` to ``last``, both included, in order."""
        found = self.tables.get(table, {})
        return [part for name, part in sorted(found.items()) if first <= name[:_DAY] <= last]

    def files(self, table: str, first: str = "", last: str = "~") -> list[str]:
        """Paths in the lake of the days from ``first`` to ``last``, both included."""
        return [part["path"] for part in self.parts(table, first, last)]

    def by_version(self, table: str, first: str = "", last: str = "~") -> dict[int, list[str]]:
        """Version of the tables → paths in the lake of the files that are of it, those of the newest version first."""
        found: dict[int, list[str]] = {}
        for part in sorted(self.parts(table, first, last), key=schema.version_of, reverse=True):
            found.setdefault(schema.version_of(part), []).append(part["path"])
        return found

    def rows(self, table: str, first: str = "", last: str = "~") -> int:
        return sum(part["rows"] for part in self.parts(table, first, last))

    def fingerprint(self, last: str) -> str:
        """Digest of the contents of all tables up to the day ``last``."""
        parts = [
            [table, name, part["sha256"]]
            for table, parts in sorted(self.tables.items())
            for name, part in sorted(parts.items())
            if table != "rejected" and (name == ALL_DAYS or name[:_DAY] <= last)
        ]
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()

    def dataset(self, lake: Lake, table: str, first: str = "", last: str = "~") -> pads.Dataset:
        """The rows of a table from ``first`` to ``last``, as Arrow reads them.

        Raises:
            BadInput: a file is of a version of the tables that this version does not read.
        """
        found = self.by_version(table, first, last)
        if not found:
            return pads.dataset(pa.Table.from_pylist([], schema.arrow_schema(table, self.heads)))
        datasets = []
        for version, paths in found.items():
            written = pads.dataset([lake.path(path) for path in paths], filesystem=lake.fs, format="parquet")
            if version != schema.FORMAT.newest:
                written = pads.dataset(schema.brought_forward(table, written.to_table(), version))
            datasets.append(written)
        return datasets[0] if len(datasets) == 1 else pads.dataset(datasets)
