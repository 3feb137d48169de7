"""Read raw logs into the tables of the lake, losing no row in silence.

Rows in = rows kept + duplicates + rejected. Rows with the same request and item are one
impression: an outcome counts when any copy reports it (the largest value), of every other column
the smallest counts. The rule does not depend on the order of files or of ingestions, so the same
or overlapping files change nothing.

DuckDB stages the rows on disk and sorts and joins out of core; a day of a table becomes one
immutable file, named by its content, and one new snapshot makes all of them visible at once.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from understudy import schema
from understudy.config import Config
from understudy.errors import BadInput, UnderstudyError
from understudy.hashing import hash64, request_row_key
from understudy.lake import Lake, file_digest
from understudy.logs.config import Attributes, Source
from understudy.logs.sources import find_files, literal, quoted, read_raw
from understudy.snapshot import ALL_DAYS, Snapshot

__all__ = ["Counts", "ingest"]

_BATCH = 1 << 17
_UNITS_US = {"s": 1_000_000, "ms": 1_000, "us": 1}
_TRIES = 5
_SHARE_OF_DUCKDB = 0.5
_BYTES_A_ROW = 800  # of a group while duplicates are removed, with room to spare; more rows go part by part
_DAY = "strftime(timezone(getvariable('zone'), make_timestamptz(us)), '%Y-%m-%d')"
_OWN = ("_source", "_slice")


@dataclass(frozen=True)
class Counts:
    """What became of the rows of one table: rows = kept + duplicates + rejected."""

    rows: int
    kept: int
    duplicates: int
    rejected: int
    reasons: dict[str, int]


@dataclass(frozen=True)
class Ingested:
    """The outcome of an ingestion.

    Args:
        tables: impressions, users, items → what became of their rows.
        first_day, last_day: of all impressions in the lake.
        changed: False where the lake held all of it already.
    """

    tables: dict[str, Counts]
    first_day: str
    last_day: str
    changed: bool


def ingest(
    config: Config, source: str | Path, lake_uri: str, progress: Callable[[str], None] = lambda _: None
) -> Ingested:
    """Read the files of ``source`` into the lake. Either all of it becomes visible, or nothing.

    Raises:
        BadInput: the files cannot be read, or too many of their rows are unusable.
    """
    folder = Path(source)
    work = Path(tempfile.mkdtemp(prefix="understudy-ingest-"))
    try:
        with duckdb.connect(str(work / "stage.duckdb")) as db:
            db.execute(f"SET TimeZone={literal(config.time_zone)}")
            db.execute(f"SET temp_directory={literal(str(work))}")
            _leave_room(db)
            db.execute("SET preserve_insertion_order=false")
            stage = _Stage(config, folder, db, progress)
            stage.read()
            for _ in range(_TRIES):
                done = _Merge(config, lake_uri, db, work, progress).run(stage)
                if done is not None:
                    return done
        raise UnderstudyError(f"lake {lake_uri}: expected to be its only writer for a moment, found others; try again")
    except duckdb.OutOfMemoryException as error:
        raise UnderstudyError(
            f"--source {source}: expected memory for these files, found too little; "
            "give the process more, or ingest fewer files at a time"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _leave_room(db: duckdb.DuckDBPyConnection) -> None:
    """DuckDB takes 80% of the memory (of the container's, where it is bounded); Python and Arrow need some."""
    db.execute(f"SET memory_limit='{int(_memory_bytes(db) * _SHARE_OF_DUCKDB) >> 10}KiB'")


def _memory_bytes(db: duckdb.DuckDBPyConnection) -> int:
    """What DuckDB may take."""
    value, unit = str(db.sql("SELECT current_setting('memory_limit')").fetchall()[0][0]).split()
    return int(float(value) * 1024 ** ("bytes", "KiB", "MiB", "GiB", "TiB").index(unit))


def source_of(config: Config) -> Source:
    """How the configuration reads raw logs.

    Raises:
        BadInput: it does not.
    """
    if config.source is None:
        raise BadInput(
            "configuration: expected the key source, which says how raw logs map to tables, found none; "
            "see examples/kuairand.yaml"
        )
    return config.source


class _Stage:
    """The source files as checked rows in DuckDB: tables new_<table>, and ``refused``."""

    def __init__(
        self, config: Config, folder: Path, db: duckdb.DuckDBPyConnection, progress: Callable[[str], None]
    ) -> None:
        self.config, self.folder, self.db, self.progress = config, folder, db, progress
        self.source = source_of(config)
        self.rows: dict[str, int] = {}
        self.reasons: dict[str, dict[str, int]] = {}

    def read(self) -> None:
        self.db.execute("CREATE TABLE refused (kind VARCHAR, source VARCHAR, reason VARCHAR, record VARCHAR)")
        self._impressions()
        for kind in ("users", "items"):
            attributes = getattr(self.source, kind)
            if attributes is not None:
                self._attributes(kind, attributes)

    def _impressions(self) -> None:
        source = self.source
        optional = [source.request, source.surface, source.position]
        plain = [source.user, source.item, source.time, *(c for c in optional if c), *source.outcomes.values()]
        columns = list(dict.fromkeys(plain))
        found = [(part, find_files(self.folder, part.files, columns, "impressions")) for part in source.impressions]
        if not any(files for _, files in found):
            patterns = ", ".join(p for part in source.impressions for p in part.files)
            raise BadInput(
                f"--source {self.folder}: expected files named {patterns} (.csv, .csv.gz or .parquet), found none; "
                "correct the path, or source.impressions in the configuration"
            )
        self._raw_table("raw", [raw for _, files in found for raw in files])
        for part, files in found:
            for raw in files:
                self.progress(f"reading {raw.path.name}")
                read_raw(self.db, "raw", raw, part.slice)
        self._checked("impressions", self._impression_columns(), self._impression_reasons(), self._time_us())

    def _attributes(self, kind: str, attributes: Attributes) -> None:
        extra = [c for c in (attributes.creator, attributes.topic) if c]
        columns = list(dict.fromkeys([attributes.key, *extra, *_listed(attributes)]))
        files = find_files(self.folder, attributes.files, columns, kind)
        if not files:
            raise BadInput(
                f"--source {self.folder}: expected files named {', '.join(attributes.files)} (source.{kind}), "
                "found none; correct the path, or remove that part of the configuration"
            )
        self._raw_table("raw", files)
        for raw in files:
            self.progress(f"reading {raw.path.name}")
            read_raw(self.db, "raw", raw)
        key = {"users": "user_id", "items": "item_id"}[kind]
        values = {key: quoted(attributes.key)}
        if kind == "items":
            values["creator_id"] = quoted(attributes.creator) if attributes.creator else "NULL::VARCHAR"
            topic = f"split_part({quoted(attributes.topic or '')}, {literal(attributes.topic_separator)}, 1)"
            values["topic_id"] = f"nullif({topic}, '')" if attributes.topic else "NULL::VARCHAR"
        values |= {name: quoted(name) for name in attributes.categorical}
        values |= {name: _number(name) for name in attributes.numeric}
        values |= {name: _iso_us(name) for name in attributes.times}
        reasons = [(f"{quoted(attributes.key)} IS NULL", f"no {attributes.key}")]
        reasons += [(_no_number(name), f"{name}: expected a number") for name in attributes.numeric]
        no_time = "{0} IS NOT NULL AND {1} IS NULL"
        reasons += [
            (no_time.format(quoted(name), _iso_us(name)), f"{name}: expected a time (iso)") for name in attributes.times
        ]
        self._checked(kind, values, reasons)

    def _raw_table(self, name: str, files: list[Any]) -> None:
        columns = {c.lower(): c for raw in files for c in raw.columns}
        if taken := sorted({*_OWN, "_us", "_reason"} & set(columns)):
            raise BadInput(f"--source {self.folder}: expected no column named {taken[0]}, found one; rename it")
        types = ", ".join(f"{quoted(c)} VARCHAR" for c in (*_OWN, *columns.values()))
        self.db.execute(f"CREATE OR REPLACE TABLE {name} ({types})")
        self.db.execute("CREATE OR REPLACE TABLE malformed (source VARCHAR, reason VARCHAR, record VARCHAR)")

    def _impression_columns(self) -> dict[str, str]:
        source = self.source
        request = quoted(source.request) if source.request else f"{quoted(source.user)} || ':' || _us"
        values = {
            "request_id": request,
            "user_id": quoted(source.user),
            "item_id": quoted(source.item),
            "us": "_us",
            "position": f"TRY_CAST({quoted(source.position)} AS INTEGER)" if source.position else "NULL::INTEGER",
            "surface": quoted(source.surface) if source.surface else "NULL::VARCHAR",
            "slice": "_slice",
        }
        return values | {f"y_{h}": f"coalesce({_number(c)}, 0)" for h, c in sorted(source.outcomes.items())}

    def _impression_reasons(self) -> list[tuple[str, str]]:
        source = self.source
        reasons = [
            (f"{quoted(c)} IS NULL", f"no {c}") for c in (source.user, source.item, source.time, source.request) if c
        ]
        reasons += [
            ("_us IS NULL", f"{source.time}: expected a time ({source.time_unit})"),
            ("_us < 0", f"{source.time}: a time before 1970"),
            ("_us > epoch_us(now()) + 86400000000", f"{source.time}: a time in the future"),
        ]
        if source.position:
            wrong = f"{quoted(source.position)} IS NOT NULL AND TRY_CAST({quoted(source.position)} AS INTEGER) IS NULL"
            reasons.append((wrong, f"{source.position}: expected a whole number"))
        for column in source.outcomes.values():
            reasons.append((_no_number(column), f"{column}: expected a number"))
        return reasons

    def _time_us(self) -> str:
        source = self.source
        if source.time_unit == "iso":
            return _iso_us(source.time)
        column = quoted(source.time)
        unit = _UNITS_US[source.time_unit]
        whole, fraction = f"TRY_CAST({column} AS BIGINT)", f"TRY_CAST({column} AS DOUBLE)"
        number = f"coalesce({whole} * {unit}, CAST({fraction} * {unit} AS BIGINT))"
        return f"CASE WHEN abs({fraction}) < 9e18 / {unit} THEN {number} END"

    def _checked(self, kind: str, columns: dict[str, str], reasons: list[tuple[str, str]], us: str = "NULL") -> None:
        """Split ``raw`` into new_<kind> and refused rows; stop where too many are refused."""
        cases = " ".join(f"WHEN {condition} THEN {literal(reason)}" for condition, reason in reasons)
        self.db.execute(
            f"CREATE OR REPLACE VIEW judged AS SELECT *, CASE {cases} END AS _reason "
            f"FROM (SELECT *, {us} AS _us FROM raw)"
        )
        values = ", ".join(f"{value} AS {quoted(name)}" for name, value in columns.items())
        self.db.execute(f"CREATE TABLE new_{kind} AS SELECT {values} FROM judged WHERE _reason IS NULL")
        own = [c for c, *_ in self.db.execute("DESCRIBE raw").fetchall() if c not in _OWN]
        record = ", ".join(f"{literal(c)}, {quoted(c)}" for c in own)
        self.db.execute(
            f"INSERT INTO refused SELECT '{kind}', _source, _reason, json_object({record}) "
            "FROM judged WHERE _reason IS NOT NULL"
        )
        self.db.execute(f"INSERT INTO refused SELECT '{kind}', * FROM malformed")
        self.db.execute("DROP VIEW judged; DROP TABLE raw")
        found = self.db.execute(
            "SELECT reason, count(*) FROM refused WHERE kind = ? GROUP BY reason ORDER BY count(*) DESC, reason", [kind]
        ).fetchall()
        self.reasons[kind] = dict(found)
        rejected = sum(self.reasons[kind].values())
        self.rows[kind] = _count(self.db, f"new_{kind}") + rejected
        if not self.rows[kind]:
            raise BadInput(f"--source {self.folder}: expected rows of {kind}, found none; fetch the files again")
        if rejected > self.source.max_rejected_share * self.rows[kind]:
            reason, count = found[0]
            where = self.db.execute(
                "SELECT source, record FROM refused WHERE kind = ? AND reason = ? ORDER BY ALL LIMIT 1", [kind, reason]
            ).fetchone() or ("", "")
            raise BadInput(
                f"{self.folder / where[0]}: expected at most {self.source.max_rejected_share:.0%} of the rows "
                f"of {kind} to be unusable, found {rejected} of {self.rows[kind]} ({count}: {reason}; such as "
                f"{where[1][:160]}); correct the files or the configuration, nothing was ingested"
            )


class _Merge:
    """Bring staged rows together with what the lake holds, as a new snapshot."""

    def __init__(
        self, config: Config, uri: str, db: duckdb.DuckDBPyConnection, work: Path, progress: Callable[[str], None]
    ) -> None:
        self.config, self.uri, self.db, self.work, self.progress = config, uri, db, work, progress
        lake = Lake(uri)
        self.lake = Lake.open(uri) if lake.exists("lake.json") else lake
        self.before = Snapshot.latest(self.lake)
        if self.before.heads and self.before.heads != config.heads:
            raise BadInput(
                f"lake {uri}: expected heads {', '.join(self.before.heads)}, found {', '.join(config.heads)} "
                "in the configuration; use the configuration of this lake, or another lake"
            )
        if any(part not in self.before.days() for part in Snapshot.current(self.lake).tables.get("impressions", {})):
            raise BadInput(
                f"lake {uri}: expected a lake of ingested logs, found segments that a collector wrote; "
                "ingest into another lake"
            )
        self.parts: dict[tuple[str, str], tuple[Path, dict[str, Any]]] = {}

    def run(self, stage: _Stage) -> Ingested | None:
        """None where another writer committed first."""
        counts = {"impressions": self._impressions(stage)}
        for kind, key in (("users", "user_id"), ("items", "item_id")):
            if kind in stage.rows:
                counts[kind] = self._attributes(kind, key, stage)
        self._rejected()
        tables = {table: dict(days) for table, days in self.before.tables.items()}
        for (table, day), (_, entry) in self.parts.items():
            tables.setdefault(table, {})[day] = entry
        after = replace(self.before, number=self.before.number + 1, heads=self.config.heads, tables=tables)
        changed = tables != self.before.tables
        if changed:
            self.lake = Lake.open_or_create(self.uri)
            for path, entry in self.parts.values():
                self.lake.put(path, entry["path"])
            if not after.commit(self.lake):
                return None
        days = after.days()
        return Ingested(counts, days[0], days[-1], changed)

    def _impressions(self, stage: _Stage) -> Counts:
        heads = self.config.heads
        outcomes = "".join(f", {quoted(f'y_{h}')}" for h in heads)
        self._existing_impressions()
        largest = "".join(f", max({quoted(f'y_{h}')}) AS {quoted(f'y_{h}')}" for h in heads)
        columns = "request_id, user_id, item_id, us, position, surface, slice"
        smallest = ", ".join(f"min({c}) AS {c}" for c in ("user_id", "us", "position", "surface", "slice"))
        before = _count(self.db, "old_impressions")
        self.progress("removing duplicates")
        parts = 1 + (before + _count(self.db, "new_impressions")) * _BYTES_A_ROW // _memory_bytes(self.db)
        for part in range(parts):
            self.db.execute(
                f"{'INSERT INTO merged' if part else 'CREATE OR REPLACE TABLE merged AS'} SELECT *, {_DAY} AS day FROM "
                f"(SELECT request_id, item_id, {smallest}{largest} FROM "
                f"(SELECT {columns}{outcomes} FROM new_impressions UNION ALL "
                f"SELECT {columns}{outcomes} FROM old_impressions)"
                f" WHERE hash(request_id, item_id) % {parts} = {part} GROUP BY request_id, item_id)"
            )
        for (day,) in self.db.execute("SELECT DISTINCT day FROM merged ORDER BY day").fetchall():
            self.progress(f"writing {day}")
            self._write_day(day)
        kept = _count(self.db, "merged") - before
        rejected = sum(stage.reasons["impressions"].values())
        return Counts(
            rows=stage.rows["impressions"],
            kept=kept,
            duplicates=stage.rows["impressions"] - kept - rejected,
            rejected=rejected,
            reasons=stage.reasons["impressions"],
        )

    def _existing_impressions(self) -> None:
        """Rows of every day that the new rows touch, with their outcomes, as ``old_impressions``."""
        heads = self.config.heads
        self.db.execute("SET VARIABLE zone = ?", [self.config.time_zone])
        touched = {d for (d,) in self.db.execute(f"SELECT DISTINCT {_DAY} FROM new_impressions").fetchall()}
        if source_of(self.config).request:
            touched |= self._days_of_known_requests()
        touched &= set(self.before.days())
        texts = ", ".join(f"{name} VARCHAR" for name in ("request_id", "user_id", "item_id", "surface", "slice"))
        types = f"{texts}, us BIGINT, position INTEGER"
        outcomes = "".join(f", {quoted(f'y_{h}')} DOUBLE" for h in heads)
        self.db.execute(f"CREATE OR REPLACE TABLE old_impressions ({types}{outcomes})")
        for one in sorted(touched):
            impressions = self.before.dataset(self.lake, "impressions", one, one)
            actions = self.before.dataset(self.lake, "actions", one, one)
            done = "".join(f", max(value) FILTER (WHERE action = {literal(h)}) AS {quoted(f'y_{h}')}" for h in heads)
            values = "".join(f", coalesce(done.{quoted(f'y_{h}')}, 0) AS {quoted(f'y_{h}')}" for h in heads)
            self.db.register("i", impressions)
            self.db.register("a", actions)
            self.db.execute(
                "INSERT INTO old_impressions BY NAME SELECT i.request_id, i.user_id, i.item_id, epoch_us(i.ts) AS us, "
                f"i.position, i.surface, i.slice{values} "
                f"FROM i LEFT JOIN (SELECT row_key{done} FROM a GROUP BY row_key) AS done USING (row_key)"
            )
            self.db.unregister("i")
            self.db.unregister("a")

    def _days_of_known_requests(self) -> set[str]:
        days = set()
        for day in self.before.days():
            self.db.register("i", self.before.dataset(self.lake, "impressions", day, day))
            known = self.db.execute("SELECT 1 FROM i SEMI JOIN new_impressions USING (request_id) LIMIT 1").fetchone()
            self.db.unregister("i")
            if known:
                days.add(day)
        return days

    def _write_day(self, day: str) -> None:
        heads = self.config.heads
        ordered = self.db.execute("SELECT * FROM merged WHERE day = ? ORDER BY us, request_id, item_id", [day])
        impressions = _File(self.work / "impressions.parquet", schema.arrow_schema("impressions", heads))
        actions = _File(self.work / "actions.parquet", schema.arrow_schema("actions", heads))
        done = dict.fromkeys(heads, 0)
        for batch in _rebatched(ordered.to_arrow_reader(_BATCH)):
            table = _impressions_of(batch, heads)
            impressions.write(table)
            acted = _actions_of(batch, table, heads)
            for head in heads:
                done[head] += int(pc.sum(pc.equal(acted["action"], head)).as_py() or 0)
            actions.write(acted)
        self._add("impressions", day, impressions, {})
        self._add("actions", day, actions, {"actions": done})

    def _attributes(self, kind: str, key: str, stage: _Stage) -> Counts:
        new = f"new_{kind}"
        columns = [name for name, *_ in self.db.execute(f"DESCRIBE {new}").fetchall()]
        before = 0
        union = f"SELECT * FROM {new}"
        if self.before.rows(kind):
            old = self.before.dataset(self.lake, kind)
            if set(old.schema.names) != set(columns):
                different = sorted(set(old.schema.names) ^ set(columns))
                raise BadInput(
                    f"table {kind}: expected the columns that the lake holds, found a difference in "
                    f"{', '.join(different)}; use the configuration of this lake, or another lake"
                )
            self.db.register("old", old)
            self.db.execute(f"CREATE OR REPLACE TABLE old_{kind} AS SELECT * FROM old")
            self.db.unregister("old")
            before = self.before.rows(kind)
            union += f" UNION ALL BY NAME SELECT * FROM old_{kind}"
        # Of rows that disagree, the one that sorts first counts, as a whole.
        fields = ", ".join(quoted(c) for c in columns)
        ordered = self.db.execute(
            f"SELECT * FROM ({union}) QUALIFY row_number() OVER (PARTITION BY {quoted(key)} ORDER BY {fields}) = 1 "
            f"ORDER BY {quoted(key)}"
        )
        reader = ordered.to_arrow_reader(_BATCH)
        file = _File(self.work / f"{kind}.parquet", _attribute_schema(kind, reader.schema))
        for batch in _rebatched(reader):
            file.write(batch.cast(file.schema))
        rows = self._add(kind, ALL_DAYS, file, {})
        rejected = sum(stage.reasons[kind].values())
        return Counts(
            rows=stage.rows[kind],
            kept=rows - before,
            duplicates=stage.rows[kind] - (rows - before) - rejected,
            rejected=rejected,
            reasons=stage.reasons[kind],
        )

    def _rejected(self) -> None:
        refused = self.db.execute("SELECT DISTINCT source, reason, record FROM refused ORDER BY ALL").to_arrow_table()
        if not refused.num_rows:
            return
        keys = hash64(refused["reason"], refused["record"])
        fields = schema.arrow_schema("rejected", self.config.heads)
        table = refused.append_column("record_key", pa.array(keys)).select(fields.names).cast(fields)
        old = self.before.dataset(self.lake, "rejected").to_table()
        self.db.register("refusals", pa.concat_tables([table, old.cast(fields)]))
        distinct = self.db.execute(
            "SELECT record_key, min(source) AS source, min(reason) AS reason, min(record) AS record "
            "FROM refusals GROUP BY record_key ORDER BY record_key"
        ).to_arrow_table()
        self.db.unregister("refusals")
        file = _File(self.work / "rejected.parquet", fields)
        file.write(distinct.cast(fields))
        self._add("rejected", ALL_DAYS, file, {})

    def _add(self, table: str, day: str, file: "_File", more: dict[str, Any]) -> int:
        """Name a finished file by its content and keep it for the snapshot."""
        digest = file.close()
        kept = self.work / f"{table}-{day}.parquet"
        file.path.replace(kept)
        path = f"tables/{table}/{day}/{digest[:16]}.parquet"
        entry = {"path": path, "sha256": digest, "rows": file.rows, **more, **schema.mark()}
        self.parts[table, day] = (kept, entry)
        return file.rows


class _File:
    """One Parquet file in the making."""

    def __init__(self, path: Path, fields: pa.Schema) -> None:
        self.path, self.schema, self.rows = path, fields, 0
        self.out = pq.ParquetWriter(path, fields, compression="zstd", store_schema=False)

    def write(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        self.out.write_table(table, row_group_size=_BATCH)

    def close(self) -> str:
        self.out.close()
        with self.path.open("rb") as file:
            return file_digest(file)


def _impressions_of(batch: pa.Table, heads: tuple[str, ...]) -> pa.Table:
    rows = batch.num_rows
    known = {
        "row_key": pa.array(request_row_key(batch["request_id"], batch["item_id"])),
        "ts": batch["us"].cast(schema.TIMESTAMP),
        "seen": pa.repeat(pa.scalar(True), rows),
        "negative_keep_rate": pa.repeat(pa.scalar(1.0), rows),
        **{c: batch[c] for c in ("request_id", "user_id", "item_id", "position", "surface", "slice")},
    }
    fields = schema.arrow_schema("impressions", heads)
    return pa.table([known.get(f.name, pa.nulls(rows, f.type)) for f in fields], schema=fields)


def _actions_of(batch: pa.Table, impressions: pa.Table, heads: tuple[str, ...]) -> pa.Table:
    fields = schema.arrow_schema("actions", heads)
    parts = []
    for head in heads:
        value = batch[f"y_{head}"].cast(pa.float64())
        done = pc.greater(value, 0.0)
        kept = impressions.select(["row_key", "request_id", "item_id", "ts"]).filter(done)
        action = pa.repeat(pa.scalar(head), kept.num_rows)
        parts.append(kept.append_column("action", action).append_column("value", value.filter(done)))
    return pa.concat_tables([part.select(fields.names).cast(fields) for part in parts])


def _attribute_schema(kind: str, found: pa.Schema) -> pa.Schema:
    declared = schema.arrow_schema(kind, ())
    extra = [field for field in found if field.name not in declared.names]
    types = [f.type if f.type in (pa.float64(), pa.int64()) else pa.string() for f in extra]
    return pa.schema([*declared, *(pa.field(f.name, t) for f, t in zip(extra, types, strict=True))])


def _rebatched(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Tables of exactly ``_BATCH`` rows, so that equal rows make equal files."""
    waiting = reader.schema.empty_table()
    for batch in reader:
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
        while waiting.num_rows >= _BATCH:
            yield waiting.slice(0, _BATCH).combine_chunks()
            waiting = waiting.slice(_BATCH)
    if waiting.num_rows:
        yield waiting.combine_chunks()


def _number(column: str) -> str:
    """A column as a finite number; null where it is missing (empty or NaN) or none."""
    number = f"coalesce(TRY_CAST({quoted(column)} AS DOUBLE), CAST(TRY_CAST({quoted(column)} AS BOOLEAN) AS DOUBLE))"
    return f"CASE WHEN isfinite({number}) THEN {number} END"


def _listed(attributes: Attributes) -> tuple[str, ...]:
    return (*attributes.categorical, *attributes.numeric, *attributes.times)


def _iso_us(column: str) -> str:
    """A column of ISO 8601 times as microseconds; null where it is none."""
    return f"epoch_us(TRY_CAST({quoted(column)} AS TIMESTAMPTZ))"


def _no_number(column: str) -> str:
    """Whether a column holds something else than a finite number."""
    missing = f"coalesce(isnan(TRY_CAST({quoted(column)} AS DOUBLE)), false)"
    return f"{quoted(column)} IS NOT NULL AND NOT {missing} AND {_number(column)} IS NULL"


def _count(db: duckdb.DuckDBPyConnection, table: str) -> int:
    row = db.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0]) if row else 0
