"""The collector as clients know it: a real server process over HTTP."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from collecting import Server, action, seen, served


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    one = Server(tmp_path)
    yield one
    if one.process.poll() is None:
        one.stop(signal.SIGKILL)


def test_a_positive_reaches_the_lake_with_what_was_served(server: Server) -> None:
    events = [served("r1"), seen("r1"), action("r1")]
    assert server.send("b1", events).json() == {"accepted": 3, "refused": []}
    server.stop()
    shown = server.rows("impressions").drop_duplicates("row_key")
    row = shown[shown["item_id"] == "i1"].iloc[0]
    assert (row["user_id"], row["position"], row["release"], row["seen"]) == ("u1", 1, "abc", True)
    assert row["p_click"] == pytest.approx(0.1)
    assert 0 <= row["bucket"] < 100
    assert server.rows("actions")["action"].tolist() == ["click"]


def test_a_bad_event_does_not_harm_its_neighbours(server: Server) -> None:
    events = [served("r1"), action("r1"), action("never"), action("r1", "i9"), {"kind": "dance"}]
    answer = server.send("b1", events).json()
    assert answer["accepted"] == 2
    assert [one["index"] for one in answer["refused"]] == [2, 3, 4]
    assert "expected a request that was served" in answer["refused"][0]["reason"]
    assert "expected an item that this request was served" in answer["refused"][1]["reason"]


def test_a_batch_sent_twice_changes_nothing(server: Server) -> None:
    now = time.time_ns() // 1_000
    first = server.send("b1", [served("r1"), action("r1")], now)
    assert server.send("b1", [served("r1"), action("r1")], now).content == first.content
    server.stop()
    assert len(server.rows("actions")) == 1


def test_another_batch_under_a_used_id_is_refused_and_not_lost_in_silence(server: Server) -> None:
    server.send("b1", [served("r1")])
    answer = server.send("b1", [action("r1")])
    assert (answer.status_code, "expected the events that came with it before" in answer.text) == (409, True)


def test_only_clients_with_the_token_and_sensible_batches_are_heard(server: Server) -> None:
    body = {"batch_id": "b", "sent_at": 1, "events": []}
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert httpx.post(f"{server.url}/v1/events", json=body, headers=headers).status_code == 401
    assert server.client.post("/v1/events", content=b"{not json").status_code == 400
    assert server.client.post("/v1/events", content=b" " * (2 << 20)).status_code == 413
    assert server.client.post("/v1/events", json={**body, "events": [{}] * 6_000}).status_code == 413


def test_a_wrong_clock_is_corrected(server: Server) -> None:
    now = time.time_ns() // 1_000
    server.send("b1", [served("r1")])
    wrong = now + 5 * 3_600_000_000
    event = {**action("r1"), "at": wrong - 1_000_000}
    server.client.post("/v1/events", json={"batch_id": "b2", "sent_at": wrong, "events": [event]})
    server.stop()
    ts_us = server.rows("actions")["ts"].astype("int64").iloc[0]
    assert now - 1_000_000 <= ts_us <= time.time_ns() // 1_000


def test_it_counts_for_prometheus(server: Server) -> None:
    server.send("b1", [served("r1"), action("r1"), action("never"), {"kind": "dance"}])
    text = server.client.get("/metrics").text
    for line in (
        "understudy_collector_batches_total 1.0",
        "understudy_collector_events_total 4.0",
        'understudy_collector_refused_events_total{cause="unknown_request"} 1.0',
        'understudy_collector_refused_events_total{cause="form"} 1.0',
        'understudy_collector_failures_total{where="lake"} 0.0',
        "understudy_collector_waiting_bytes 0.0",
        "understudy_collector_acknowledgement_seconds_count 1.0",
    ):
        assert line in text.splitlines()
