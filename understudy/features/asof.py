"""The point-in-time join: for each entity row, each view's newest row that was readable then.

One as-of join per view in DuckDB, out of core. A row that became readable at or after the entity
row's own time is never taken: at that time no server could have read it. Every entity row comes
out exactly once, in order, whatever repeats among them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from understudy.logs.sources import literal, quoted
from understudy.object_store import file_system, settled

if TYPE_CHECKING:
    import duckdb

__all__ = ["Joined", "latest_query", "point_in_time_query", "reach"]

ROW = "__row"


@dataclass(frozen=True)
class Joined:
    """A feature view in a join.

    Args:
        paths: its Parquet files.
        keys: the view's key column → the entity rows' column.
        features: the view's column → name in the result.
        event, created: its timestamp columns; without ``created``, a row is readable at its event.
        ttl: rows older than this at the entity row's time are not taken; zero: no limit.
    """

    paths: tuple[str, ...]
    keys: dict[str, str]
    features: dict[str, str]
    event: str
    created: str | None
    ttl: timedelta


def reach(db: "duckdb.DuckDBPyConnection", paths: Iterable[str]) -> None:
    """Let a connection read files of an object store, which stay as they are, the way the lake reads them."""
    for path in paths:
        if "://" in path:
            fs, _ = file_system(path)
            name = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
            if not db.filesystem_is_registered(name):
                db.register_filesystem(settled(fs))


def point_in_time_query(entities: str, ts: str, views: list[Joined]) -> str:
    """SQL that returns the columns of ``entities`` and every view's features, in order of ``__row``.

    Args:
        entities: a relation with ``__row`` (0 … rows − 1), ``ts`` and the keys.
        ts: its time column.
    """
    joins, columns = [], [f"e.* EXCLUDE ({ROW})"]
    for i, view in enumerate(views):
        readable = quoted(view.created or view.event)
        equal = [f"e.{quoted(theirs)} = v{i}.{quoted(ours)}" for ours, theirs in view.keys.items()]
        comparison = ">" if view.created else ">="
        condition = " AND ".join([*equal, f"e.{quoted(ts)} {comparison} v{i}.{readable}"])
        joins.append(f"ASOF LEFT JOIN ({_readable(view)}) AS v{i} ON {condition}")
        fresh = f"v{i}.{quoted(view.event)} >= e.{quoted(ts)} - INTERVAL {int(view.ttl.total_seconds())} SECOND"
        for name, alias in view.features.items():
            value = f"v{i}.{quoted(name)}"
            columns.append(f"{f'CASE WHEN {fresh} THEN {value} END' if view.ttl else value} AS {quoted(alias)}")
    return f"SELECT {', '.join(columns)} FROM {entities} AS e {' '.join(joins)} ORDER BY e.{ROW}"


def _readable(view: Joined) -> str:
    """The view's rows, without those that a newer event's row had overtaken when they became readable."""
    columns = ", ".join(quoted(name) for name in {*view.keys, *view.features, view.event})
    if not view.created:
        return f"SELECT {columns} FROM {_files(view.paths)}"
    keys = ", ".join(quoted(name) for name in view.keys)
    event, created = quoted(view.event), quoted(view.created)
    before = f"PARTITION BY {keys} ORDER BY {created}, {event} ROWS UNBOUNDED PRECEDING"
    at_once = f"PARTITION BY {keys}, {created} ORDER BY {event} DESC"
    return (
        f"SELECT {columns}, {created} FROM {_files(view.paths)} "
        f"QUALIFY {event} >= max({event}) OVER ({before}) AND row_number() OVER ({at_once}) = 1"
    )


def latest_query(view: Joined, start: str, end: str, *, latest: bool) -> str:
    """SQL of the view's rows that were readable between two ISO times; ``latest``: one row per key."""
    event, readable = quoted(view.event), quoted(view.created or view.event)
    columns = [*view.keys, *view.features, view.event, *([view.created] if view.created else [])]
    chosen = ", ".join(quoted(name) for name in dict.fromkeys(columns))
    query = (
        f"SELECT {chosen} FROM {_files(view.paths)} "
        f"WHERE {readable} >= TIMESTAMPTZ {literal(start)} AND {readable} <= TIMESTAMPTZ {literal(end)}"
    )
    if latest:
        keys = ", ".join(quoted(name) for name in view.keys)
        query += f" QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {event} DESC, {readable} DESC) = 1"
    return query


def _files(paths: tuple[str, ...]) -> str:
    return f"read_parquet([{', '.join(literal(path) for path in paths)}], hive_partitioning=false, union_by_name=true)"
