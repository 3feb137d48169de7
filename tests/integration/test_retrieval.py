"""Point-in-time retrieval through Feast, against a slow and obvious reference."""

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource
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


def tables(folder: Path, crosses: tuple[str, ...]) -> dict[str, tuple[str, pa.Schema]]:
    """Empty feature tables where a run writes them; users have no attributes."""
    stamps = [pa.field(c.name, c.type) for c in FEATURE_ROW]
    found = {}
    for view in views_of(crosses):
        features = [pa.field("impressions_1d", pa.float32())] if view.name != "user_profile" else []
        fields = pa.schema([*(pa.field(key, pa.string()) for key in view.keys), *stamps, *features])
        path = folder / "runs" / "r1" / "steps" / "build_features" / "attempt-1" / view.name
        path.mkdir(parents=True, exist_ok=True)
        pq.write_table(fields.empty_table(), path / "part.parquet")
        found[view.name] = (str(path), fields)
    return found


def test_a_view_that_the_configuration_no_longer_names_leaves_the_registry(tmp_path: Path) -> None:
    store = open_store(tmp_path, str(tmp_path / "registry.db"), str(tmp_path / "online.db"))
    given = [view.name for view in views_of(("creator", "topic")) if view.name != "user_profile"]
    assert apply(store, definitions(tables(tmp_path, ("creator", "topic")))) == given
    assert store.get_feature_view("user_topic_history").join_keys == ["user_id", "topic_id"]
    left = apply(store, definitions(tables(tmp_path, ("creator",))))
    assert sorted(view.name for view in store.list_feature_views()) == sorted(left)
    assert "user_topic_history" not in left


def test_what_somebody_else_registered_stays_with_its_online_tables(tmp_path: Path) -> None:
    """Views of every kind, also one whose name a configuration of ours could take."""
    store = open_store(tmp_path, str(tmp_path / "registry.db"), str(tmp_path / "online.db"))
    apply(store, definitions(tables(tmp_path, ())))
    shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING)
    user = store.get_entity("user")
    rows = pd.DataFrame({"shop_id": ["s1"], "user_id": ["u1"], "topic_id": ["t"], "sales": [7], "ts": [START]})
    rows.to_parquet(tmp_path / "user_topic_history")
    source = FileSource(name="sales", path=str(tmp_path / "user_topic_history"), timestamp_field="ts")
    push = PushSource(name="pushed", batch_source=source)
    fields = [Field(name="sales", dtype=Int64)]
    views = [
        FeatureView(name="shop_sales", entities=[shop], schema=fields, source=source),
        FeatureView(name="user_topic_history", entities=[user], schema=fields, source=source),
        FeatureView(name="pushed_sales", entities=[shop], schema=fields, source=push),
    ]
    service = FeatureService(name="shops", features=views[:1])
    store.apply([shop, *views, service])
    store.materialize(START - datetime.timedelta(days=1), START + datetime.timedelta(days=1))
    for crosses in (("creator",), (), ("creator",)):
        apply(store, definitions(tables(tmp_path, crosses)))
        registered = {view.name for view in store.list_all_feature_views()}
        assert {view.name for view in views} <= registered
        assert ("user_creator_history" in registered) == bool(crosses)
        assert {one.name for one in store.list_feature_services()} == {"ranker", "shops"}
        asked = [f"{view.name}:sales" for view in views if view.name != "user_topic_history"]
        found = store.get_online_features(asked, [{"shop_id": "s1"}], full_feature_names=True).to_dict()
        assert {name: found[name.replace(":", "__")] for name in asked} == {name: [7] for name in asked}
        assert store.get_online_features(["user_topic_history:sales"], [{"user_id": "u1"}]).to_dict()["sales"] == [7]


@pytest.mark.parametrize("what", ["feature view 'user_topic_history'", "entity 'user'", "feature service 'ranker'"])
def test_a_name_that_somebody_else_took_is_not_taken_over(tmp_path: Path, what: str) -> None:
    store = open_store(tmp_path, str(tmp_path / "registry.db"), str(tmp_path / "online.db"))
    pd.DataFrame({"uid": ["u1"], "sales": [7], "ts": [START]}).to_parquet(tmp_path / "rows.parquet")
    source = FileSource(name="sales", path=str(tmp_path / "rows.parquet"), timestamp_field="ts")
    user = Entity(name="user" if "entity" in what else "uid", join_keys=["uid"], value_type=ValueType.STRING)
    name = "user_topic_history" if "view" in what else "sales"
    view = FeatureView(name=name, entities=[user], schema=[Field(name="sales", dtype=Int64)], source=source)
    service = FeatureService(name="ranker" if "service" in what else "sales", features=[view])
    store.apply([user, view, service])
    before = (tmp_path / "registry.db").read_bytes()
    with pytest.raises(BadInput, match=rf"{what} is not Understudy's, which needs that name; rename yours"):
        apply(store, definitions(tables(tmp_path, ("creator", "topic"))))
    assert (tmp_path / "registry.db").read_bytes() == before


def test_duckdb_knows_how_many_entity_rows_it_joins(tmp_path: Path) -> None:
    """Of a frame as of a file: where it expects one row, it joins by a loop over every pair."""
    store = store_of(tmp_path, [("a", 0, 0, 1), ("b", 1, 1, 2)])
    entities = pd.DataFrame({"user_id": ["a", "b"] * 500, "event_timestamp": [at(9)] * 1000})
    entities.to_parquet(tmp_path / "asked.parquet")
    for asked in (entities, str(tmp_path / "asked.parquet")):
        job = store.get_historical_features(entity_df=asked, features=["history:value"])
        with duckdb.connect() as db:
            job.prepare(db)
            plan = json.loads(db.execute(f"EXPLAIN (FORMAT json) {job.query}").fetchall()[0][1])
        operators = set(operators_of(plan))
        assert "ASOF_JOIN" in operators, operators
        assert "NESTED_LOOP_JOIN" not in operators
        assert len(job.to_df()) == 1000


def operators_of(plan: list[Any]) -> Iterator[str]:
    for one in plan:
        yield one["name"].strip()
        yield from operators_of(one["children"])
