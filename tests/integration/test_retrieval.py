"""Point-in-time retrieval through Feast, against a slow and obvious reference."""

import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureView, Field, FileSource
from feast.types import Float32, Int64
from feast.value_type import ValueType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from understudy.errors import BadInput
from understudy.features.repository import apply, definitions, open_store
from understudy.features.views import views_of
from understudy.schema import FEATURE_ROW

START = datetime.datetime(2022, 5, 1, tzinfo=datetime.UTC)
ROWS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 8), st.integers(0, 4), st.integers(0, 99)), max_size=12)
ASKED = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(0, 12)), min_size=1, max_size=10)


def at(minute: int) -> datetime.datetime:
    return START + datetime.timedelta(minutes=minute)


def store_of(folder: Path, rows: list[tuple[str, int, int, int]], ttl_min: int = 0) -> Any:
    table = pa.table(
        {
            "user_id": pa.array([key for key, *_ in rows], pa.string()),
            "event_timestamp": pa.array([at(event) for _, event, _, _ in rows], pa.timestamp("us", tz="UTC")),
            "created_timestamp": pa.array(
                [at(event + late) for _, event, late, _ in rows], pa.timestamp("us", tz="UTC")
            ),
            "value": pa.array([value for *_, value in rows], pa.int64()),
            "seen": pa.array([0.5] * len(rows), pa.float32()),
        }
    )
    pq.write_table(table, folder / "rows.parquet")
    store = open_store(folder, str(folder / "registry.db"), str(folder / "online.db"))
    source = FileSource(
        name="history",
        path=str(folder / "rows.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    fields = [Field(name="value", dtype=Int64), Field(name="seen", dtype=Float32)]
    ttl = datetime.timedelta(minutes=ttl_min)
    store.apply([user, FeatureView(name="history", entities=[user], ttl=ttl, schema=fields, source=source)])
    return store


def reference(rows: list[tuple[str, int, int, int]], key: str | None, minute: int) -> tuple[int, int] | None:
    """Of the rows readable before the moment, the newest event, then the newest creation."""
    readable = [(event, event + late) for k, event, late, _ in rows if k == key and event + late < minute]
    return max(readable) if readable else None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, asked=ASKED)
def test_each_row_gets_the_newest_value_that_was_readable_then(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], asked: list[Any]
) -> None:
    unique = list({(key, event, late): (key, event, late, value) for key, event, late, value in rows}.values())
    store = store_of(tmp_path_factory.mktemp("store"), unique)
    entities = pd.DataFrame(
        {"user_id": [key for key, _ in asked], "event_timestamp": [at(minute) for _, minute in asked]}
    )
    entities["place"] = range(len(asked))
    job = store.get_historical_features(entity_df=entities, features=["history:value"], full_feature_names=True)
    found = job.to_df()
    assert found["place"].tolist() == list(range(len(asked)))
    values = {(key, event, event + late): value for key, event, late, value in unique}
    for (key, minute), value in zip(asked, found["history__value"], strict=True):
        newest = reference(unique, key, minute)
        expected = None if newest is None else values[(key, *newest)]
        assert (None if pd.isna(value) else int(value)) == expected


def test_a_slate_of_one_user_at_one_moment_stays_three_rows(tmp_path: Path) -> None:
    store = store_of(tmp_path, [("a", 1, 0, 7)])
    rows = pa.table({"user_id": ["a"] * 3, "item_id": ["x", "x", "y"], "ts": pa.array([at(5)] * 3)})
    pq.write_table(rows, tmp_path / "entities.parquet")
    job = store.get_historical_features(entity_df=str(tmp_path / "entities.parquet"), features=["history:value"])
    assert job.to_df()["value"].tolist() == [7, 7, 7]


def test_a_value_created_at_the_same_moment_is_not_yet_readable(tmp_path: Path) -> None:
    store = store_of(tmp_path, [("a", 1, 2, 7)])
    entities = pd.DataFrame({"user_id": ["a", "a"], "event_timestamp": [at(3), at(4)]})
    found = store.get_historical_features(entity_df=entities, features=["history:value"]).to_df()["value"]
    assert pd.isna(found[0])
    assert found[1] == 7


def test_a_row_older_than_its_time_to_live_is_not_taken(tmp_path: Path) -> None:
    store = store_of(tmp_path, [("a", 1, 0, 7)], ttl_min=5)
    entities = pd.DataFrame({"user_id": ["a", "a"], "event_timestamp": [at(5), at(30)]})
    found = store.get_historical_features(entity_df=entities, features=["history:value"]).to_df()["value"]
    assert found[0] == 7
    assert pd.isna(found[1])


def test_what_is_materialised_is_each_keys_newest_row(tmp_path: Path) -> None:
    store = store_of(tmp_path, [("a", 1, 0, 7), ("a", 3, 1, 8), ("b", 2, 0, 9)])
    store.materialize(start_date=START, end_date=at(60))
    asked = [{"user_id": "a"}, {"user_id": "b"}, {"user_id": "c"}]
    found = store.get_online_features(features=["history:value"], entity_rows=asked).to_dict()
    assert found["value"] == [8, 9, None]


def test_a_missing_key_column_is_named(tmp_path: Path) -> None:
    store = store_of(tmp_path, [("a", 1, 0, 7)])
    entities = pd.DataFrame({"who": ["a"], "event_timestamp": [at(5)]})
    with pytest.raises(BadInput, match="expected column 'user_id'"):
        store.get_historical_features(entity_df=entities, features=["history:value"])


def test_a_view_that_the_configuration_no_longer_names_leaves_the_registry(tmp_path: Path) -> None:
    stamps = [pa.field(c.name, c.type) for c in FEATURE_ROW]

    def views(crosses: tuple[str, ...]) -> dict[str, tuple[str, pa.Schema]]:
        counted = [*stamps, pa.field("impressions_1d", pa.float32())]
        keyed = {view.name: [pa.field(key, pa.string()) for key in view.keys] for view in views_of(crosses)}
        tables = {name: pa.schema([*keys, *counted]) for name, keys in keyed.items()}
        for name, fields in tables.items():
            (tmp_path / name).mkdir(exist_ok=True)
            pq.write_table(fields.empty_table(), tmp_path / name / "part.parquet")
        return {name: (str(tmp_path / name), fields) for name, fields in tables.items()}

    store = open_store(tmp_path, str(tmp_path / "registry.db"), str(tmp_path / "online.db"))
    assert apply(store, definitions(views(("creator", "topic")))) == [v.name for v in views_of(("creator", "topic"))]
    assert store.get_feature_view("user_topic_history").join_keys == ["user_id", "topic_id"]
    left = apply(store, definitions(views(("creator",))))
    assert sorted(view.name for view in store.list_feature_views()) == sorted(left)
    assert "user_topic_history" not in left
