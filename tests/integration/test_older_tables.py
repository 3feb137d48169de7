"""Tables that an older version wrote, read by Spark and by Arrow alike."""

import datetime

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from understudy import schema, spark
from understudy.formats import Format
from understudy.lake import Lake
from understudy.logs.segments import write_segments
from understudy.schema import Rows
from understudy.snapshot import Snapshot

HEADS = ("click",)
NOON = datetime.datetime(2026, 1, 5, 12, tzinfo=datetime.UTC)


def logged(lake: Lake, day: int, slice_name: str) -> None:
    """Two impressions and an action of a day."""
    ts, fields = NOON + datetime.timedelta(days=day), schema.arrow_schema("impressions", HEADS)
    plain = {"user_id": "u", "item_id": "i", "ts": ts, "seen": True, "slice": slice_name, "negative_keep_rate": 1.0}
    values = [plain | {"row_key": 10 * day + place, "request_id": f"r{day}-{place}"} for place in (0, 1)]
    impressions = pa.Table.from_pylist([{name: one.get(name) for name in fields.names} for one in values], fields)
    actions = pa.table(
        {"row_key": [10 * day], "request_id": [f"r{day}-0"], "item_id": ["i"], "action": ["click"]}
        | {"ts": pa.array([ts], schema.TIMESTAMP), "value": [1.0]}
    )
    write_segments(lake, HEADS, "UTC", impressions, actions)


def test_spark_and_arrow_read_tables_of_several_versions_alike(
    session: SparkSession, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def renamed(found: Rows) -> Rows:
        """An invented change: the slice that was called ``chance`` is called ``random``."""
        import pyarrow.compute as pc

        if found.table != "impressions":
            return found
        column = pc.replace_substring(found.rows["slice"], "chance", "random")
        return Rows(found.table, found.rows.set_column(found.rows.column_names.index("slice"), "slice", column))

    lake = Lake.open_or_create(str(tmp_path_factory.mktemp("tables") / "lake"))
    logged(lake, 0, "chance")
    monkeypatch.setattr(schema, "FORMAT", Format("table", 2, "ingest again", {1: renamed}))
    logged(lake, 1, "random")
    snapshot = Snapshot.admit(lake)
    for table in ("impressions", "actions"):
        read = spark.read_logs(lake, snapshot, table)
        assert read is not None
        found = read.toArrow().sort_by("row_key")
        expected = snapshot.dataset(lake, table).to_table().sort_by("row_key")
        assert found.to_pylist() == expected.select(found.column_names).to_pylist()
        if table == "impressions":
            assert set(found["slice"].to_pylist()) == {"random"}
    assert spark.read_logs(lake, snapshot, "users") is None
