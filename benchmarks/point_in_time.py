"""The point-in-time join through Feast: entity rows from a pandas frame beside the same rows from a file.

Both go through our offline store; a bare as-of join in DuckDB over the same files, without the rules of readability,
stands beside them. All three give the same value for every row here, where a feature row is readable at its event.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureView, Field, FileSource
from feast.types import Float32
from feast.value_type import ValueType

from understudy.cli.output import print_table
from understudy.features.repository import open_store

BARE = """
SELECT e.place, {features} FROM read_parquet('{asked}') e
ASOF LEFT JOIN read_parquet('{rows}') v ON e.user_id = v.user_id AND e.event_timestamp > v.created_timestamp
ORDER BY e.place
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--asked", type=int, default=200_000, help="entity rows")
    parser.add_argument("--rows", type=int, default=1_000_000, help="feature rows")
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = written(folder, args.asked, args.rows, args.features, args.users)
        names = [f"f{i}" for i in range(args.features)]
        store = opened(folder, names)
        refs = [f"history:{one}" for one in names]
        query = BARE.format(features=", ".join(names), asked=folder / "asked.parquet", rows=folder / "rows.parquet")
        ways: dict[str, Callable[[], pa.Table]] = {
            "bare DuckDB, from a file": lambda: duckdb.connect().execute(query).to_arrow_table(),
            "through Feast, from a file": lambda: joined(store, str(folder / "asked.parquet"), refs),
            "through Feast, from a frame": lambda: joined(store, asked, refs),
        }
        measure(ways, names, args.repeats)


def measure(ways: dict[str, Callable[[], pa.Table]], names: list[str], repeats: int) -> None:
    """One way after the other, several times, so that a machine's moods meet all of them."""
    spent: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    first: pa.Table | None = None
    for _ in range(repeats):
        for way, work in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            found = work().select(["place", *names])
            spent[way].append((time.perf_counter() - wall, time.process_time() - cpu))
            first = first if first is not None else found
            if not found.equals(first):
                sys.exit(f"{way}: other values than {next(iter(ways))}")
    medians = {way: [statistics.median(one) for one in zip(*times, strict=True)] for way, times in spent.items()}
    base = medians["through Feast, from a file"][0]
    rows = [[way, f"{wall:.2f}", f"{cpu:.2f}", f"{wall / base:.2f}"] for way, (wall, cpu) in medians.items()]
    print_table("point-in-time join", ["join", "seconds", "CPU seconds", "seconds, of those from a file"], rows)


def written(folder: Path, asked: int, rows: int, features: int, users: int) -> pd.DataFrame:
    """Feature rows and entity rows at random times of 30 days; returns the latter."""
    random, day = np.random.default_rng(0), 86_400_000_000
    stamp = pa.timestamp("us", tz="UTC")

    def of(count: int) -> dict[str, pa.Array]:
        user = pa.array([f"u{i}" for i in random.integers(0, users, count)])
        return {
            "user_id": user,
            "event_timestamp": pa.array(random.integers(0, 30 * day, count), pa.int64()).cast(stamp),
        }

    table = pa.table(of(rows))
    table = table.append_column("created_timestamp", table["event_timestamp"])
    for i in range(features):
        table = table.append_column(f"f{i}", pa.array(random.random(rows, np.float32)))
    pq.write_table(table, folder / "rows.parquet")
    entities = pa.table({**of(asked), "place": pa.array(np.arange(asked))})
    pq.write_table(entities, folder / "asked.parquet")
    frame: pd.DataFrame = entities.to_pandas()
    return frame


def opened(folder: Path, names: list[str]) -> object:
    store = open_store(folder, str(folder / "registry.db"), str(folder / "online.db"))
    source = FileSource(
        name="history",
        path=str(folder / "rows.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    fields = [Field(name=one, dtype=Float32) for one in names]
    store.apply([user, FeatureView(name="history", entities=[user], schema=fields, source=source)])
    return store


def joined(store: object, entities: pd.DataFrame | str, refs: list[str]) -> pa.Table:
    return store.get_historical_features(entity_df=entities, features=refs).to_arrow()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
