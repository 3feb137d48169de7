"""What the server reads of users, held against Feast's own ``get_online_features``."""

import datetime
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis as client
from ranking import items_of, users_of
from redis_server import Redis

from understudy.errors import BadInput
from understudy.features import online, repository
from understudy.features.pointer import REDIS_URL, current_features
from understudy.features.views import CROSSES, VIEWS
from understudy.lake import Lake
from understudy.runs import Run
from understudy.serving.online import Asked, OnlineStore, RedisStore, Row, SqliteStore, Unavailable

needs_redis = pytest.mark.needs("redis-server")


@pytest.fixture(scope="module")
def released(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lake with a first release, for this module alone."""
    lake = tmp_path_factory.mktemp("readers") / "lake"
    shutil.copytree(released, lake)
    return lake


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    one = Redis(tmp_path_factory.mktemp("redis"), password="p@ss word")
    yield one
    one.stop()


@pytest.fixture(scope="module")
def asked(released: Path) -> list[Asked]:
    """Rows of a few users, known and unknown, and of them with creators and topics."""
    lake = Lake.open(str(released))
    items = items_of(released)
    profile = online.current_tables(lake)["item_profile"][0]
    known = lake.dataset(profile.removeprefix(f"{lake.root}/")).to_table().to_pylist()
    of = {row["item_id"]: row for row in known}
    found: list[Asked] = []
    for user in [*users_of(released)[:12], "nobody"]:
        found += [("user_history", (user,)), ("user_profile", (user,))]
        for cross in CROSSES:
            values = {of[item][f"{cross}_id"] for item in items[:60] if item in of} - {None}
            found += [(f"user_{cross}_history", (user, value)) for value in sorted(values)]
    return found


def by_feast(store: Any, asked: list[Asked]) -> list[Row]:
    rows: list[Row] = [{} for _ in asked]
    for view in dict.fromkeys(view for view, _ in asked):
        places = [place for place, (of, _) in enumerate(asked) if of == view]
        keys = [dict(zip(VIEWS[view].keys, asked[place][1], strict=True)) for place in places]
        names = [field.name for field in store.get_feature_view(view).features]
        found = store.get_online_features(features=[f"{view}:{name}" for name in names], entity_rows=keys).to_dict()
        for at, place in enumerate(places):
            rows[place] = {name: found[name][at] for name in names}
    return rows


def assert_same(ours: list[Row], theirs: list[Row]) -> None:
    assert len(ours) == len(theirs)
    for mine, his in zip(ours, theirs, strict=True):
        for name, value in his.items():
            found = mine.get(name)
            if value is None:
                assert found is None
            elif isinstance(value, list):
                np.testing.assert_array_equal(list(found), value, err_msg=name)
            else:
                assert found == value or (math.isnan(found) and math.isnan(value)), name


def feasts(lake: Path, redis: str | None = None) -> Any:
    folder = lake / "features"
    return repository.open_store(folder, str(folder / "registry.db"), str(folder / "online.db"), redis)


def test_sqlite_gives_what_feast_gives(released: Path, asked: list[Asked]) -> None:
    store = SqliteStore(released / "features" / "online.db")
    rows = store.read(asked)
    assert_same(rows, by_feast(feasts(released), asked))
    assert sum(bool(row) for (view, _), row in zip(asked, rows, strict=True) if view == "user_topic_history") > 3
    assert rows[0]["events_us"]
    store.close()


@needs_redis
def test_redis_gives_what_feast_gives(
    released: Path, asked: list[Asked], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake.open(str(released))
    views = json.loads(next(released.glob("releases/*/feature_service.json")).read_text())["views"]
    monkeypatch.setenv(REDIS_URL, redis.url)
    run = Run(lake, current_features(lake)["run_id"])
    epoch, now = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), datetime.datetime.now(datetime.UTC)
    online.materialise(lake, run, epoch, now)
    features = {view: list(one["features"]) for view, one in views.items() if view.startswith("user_")}
    store = RedisStore(redis.url, features)
    rows = store.read(asked)
    assert_same(rows, by_feast(feasts(released, redis.url), asked))
    bare = RedisStore(redis.url, {view: names for view, names in features.items() if view != "user_profile"})
    without = [{} if view == "user_profile" else row for (view, _), row in zip(asked, rows, strict=True)]
    assert_same(bare.read(asked), without)  # as of a release whose users have no attributes
    assert bare.read([("user_profile", ("u",))]) == [{}]
    bare.close()
    sqlite = SqliteStore(released / "features" / "online.db")
    assert_same(rows, sqlite.read(asked))
    with client.Redis.from_url(redis.url) as direct:
        assert direct.dbsize() > 100
    store.close()
    sqlite.close()


@needs_redis
def test_a_redis_that_is_gone_is_left_alone_for_a_while(tmp_path: Path, asked: list[Asked]) -> None:
    one = Redis(tmp_path)
    store: OnlineStore = RedisStore(one.url, {"user_history": ["events_us"]})
    wanted = [("user_history", ("u",))]
    assert store.read(wanted) == [{}]
    one.stop()
    with pytest.raises(Unavailable) as first:
        store.read(wanted)
    with pytest.raises(Unavailable) as second:
        store.read(wanted)
    assert (first.value.cause, second.value.cause) == ("redis", "paused")
    store.close()


def test_a_store_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "none.db")
    with pytest.raises(Unavailable, match="unable to open"):
        store.read([("user_history", ("u",))])


@pytest.mark.parametrize("url", ["http://h", "redis://", "redis://:a%2Cb@h:1/0", "redis://:se/cret@h:1/0"])
def test_a_redis_that_feast_can_not_take_is_one_clear_line(released: Path, url: str) -> None:
    with pytest.raises(BadInput, match="UNDERSTUDY_REDIS_URL: expected") as refused:
        feasts(released, url)
    assert "cret" not in str(refused.value)
