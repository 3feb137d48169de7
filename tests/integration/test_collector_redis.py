"""Served context in Debian's redis-server: shared, lost, and out of reach."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from collecting import Server, action, seen, served
from redis_server import Redis

pytestmark = pytest.mark.needs("redis-server")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Redis]:
    one = Redis(tmp_path)
    yield one
    one.stop()


@pytest.fixture
def server(tmp_path: Path, store: Redis) -> Iterator[Server]:
    one = Server(tmp_path, "--redis", store.url)
    yield one
    if one.process.poll() is None:
        one.stop()


def test_context_is_shared_between_collectors(tmp_path: Path, store: Redis, server: Server) -> None:
    (tmp_path / "two").mkdir()
    other = Server(tmp_path / "two", "--redis", store.url)
    server.send("b1", [served("r1")])
    assert other.send("b2", [action("r1")]).json()["accepted"] == 1
    other.stop()
    assert other.rows("impressions")["user_id"].tolist() == ["u1"]


def test_context_lives_for_the_window_and_the_lateness(store: Redis, server: Server) -> None:
    server.send("b1", [served("r1")])
    assert 86_400 + 1_800 - 60 <= store.client.ttl("understudy:served:r1") <= 86_400 + 1_800


def test_while_redis_is_down_nothing_is_acknowledged_and_nothing_is_lost(store: Redis, server: Server) -> None:
    assert server.send("b1", [served("r1"), action("r1")]).status_code == 200
    store.stop()
    answer = server.send("b2", [served("r2"), action("r2")])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert server.client.get("/healthz").status_code == 200
    assert 'failures_total{where="journal"} 1.0' in server.client.get("/metrics").text
    store.start()
    assert server.send("b2", [served("r2"), action("r2"), action("r1", "i2")]).json()["accepted"] == 3
    server.stop()
    assert sorted(server.rows("actions")["request_id"]) == ["r1", "r1", "r2"]
    assert set(server.rows("actions")["row_key"]) == set(server.rows("impressions")["row_key"])


def test_a_context_that_redis_lost_loses_nothing_acknowledged(tmp_path: Path, store: Redis, server: Server) -> None:
    server.send("b1", [served("r1"), seen("r1"), action("r1")])
    store.client.flushall()
    server.stop()
    assert server.rows("impressions")["item_id"].tolist() == ["i1"]
    server.start()
    answer = server.send("b2", [action("r1")]).json()
    assert (answer["accepted"], "expected a request that was served" in answer["refused"][0]["reason"]) == (0, True)
    assert 'refused_events_total{cause="unknown_request"} 1.0' in server.client.get("/metrics").text
