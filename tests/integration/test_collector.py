"""The collector as clients know it: a real server process over HTTP, killed and started again."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from understudy.lake import Lake
from understudy.snapshot import Snapshot

ROOT = Path(__file__).resolve().parent.parent.parent
TOKEN = "a-token-for-tests-only"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


class Server:
    """`understudy collect` in a folder; can be killed and started again on the same state."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder, self.more = folder, more
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "understudy.cli", "collect", "--config", "examples/collector.yaml"]
        command += ["--lake", str(self.folder / "lake"), "--state", str(self.folder / "state.db"), "--port", "0"]
        environment = {**os.environ, "UNDERSTUDY_COLLECT_TOKEN": TOKEN}
        self.process = subprocess.Popen(
            [*command, *self.more], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        self.url = found[0]
        self.client = httpx.Client(base_url=self.url, headers=HEADERS, timeout=30)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                assert self.client.get("/healthz").status_code == 200
                return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError("the collector did not start")

    def send(self, name: str, events: list[dict[str, Any]]) -> httpx.Response:
        now = time.time_ns() // 1_000
        events = [{"at": now, **event} for event in events]
        return self.client.post("/v1/events", json={"batch_id": name, "sent_at": now, "events": events})

    def stop(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(60)
        self.client.close()

    def rows(self, table: str) -> Any:
        lake = Lake.open(str(self.folder / "lake"))
        return Snapshot.current(lake).dataset(lake, table).to_table().to_pandas()


def served(request: str, items: int = 3, **more: Any) -> dict[str, Any]:
    listed = [{"item_id": f"i{i}", "position": i, "p": {"click": 0.1 * i}} for i in range(items)]
    whole = {"kind": "served", "request_id": request, "user_id": "u1", "items": listed, "candidate_count": 50}
    return {**whole, "release": "abc", "surface": "home", **more}


def action(request: str, item: str = "i1", name: str = "click") -> dict[str, Any]:
    return {"kind": "action", "request_id": request, "item_id": item, "action": name}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    one = Server(tmp_path)
    yield one
    if one.process.poll() is None:
        one.stop(signal.SIGKILL)


def test_a_positive_reaches_the_lake_with_what_was_served(server: Server) -> None:
    events = [served("r1"), {"kind": "seen", "request_id": "r1", "item_id": "i1"}, action("r1")]
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
    first = server.send("b1", [served("r1"), action("r1")])
    assert server.send("b1", [served("r1"), action("r1")]).content == first.content
    server.stop()
    assert len(server.rows("actions")) == 1


def test_only_clients_with_the_token_and_sensible_batches_are_heard(server: Server) -> None:
    body = {"batch_id": "b", "sent_at": 1, "events": []}
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert httpx.post(f"{server.url}/v1/events", json=body, headers=headers).status_code == 401
    assert server.client.post("/v1/events", content=b"{not json").status_code == 400
    assert server.client.post("/v1/events", content=b" " * (2 << 20)).status_code == 413
    assert server.client.post("/v1/events", json={**body, "events": [{}] * 6_000}).status_code == 413
    assert "understudy_collector_batches_total" in server.client.get("/metrics").text


def test_a_wrong_clock_is_corrected(server: Server) -> None:
    now = time.time_ns() // 1_000
    server.send("b1", [served("r1")])
    wrong = now + 5 * 3_600_000_000
    event = {**action("r1"), "at": wrong - 1_000_000}
    server.client.post("/v1/events", json={"batch_id": "b2", "sent_at": wrong, "events": [event]})
    server.stop()
    ts_us = server.rows("actions")["ts"].astype("int64").iloc[0]
    assert now - 1_000_000 <= ts_us <= time.time_ns() // 1_000


def hammer_and_kill(server: Server, kills: int, batches: int) -> set[str]:
    """Send batches and kill the server in between; returns the requests whose click was acknowledged."""
    known = set()
    for kill in range(kills):
        for place in range(batches):
            request = f"r{kill}-{place}"
            if place == batches // 2:
                os.kill(server.process.pid, signal.SIGKILL)
            try:
                if server.send(request, [served(request), action(request)]).status_code == 200:
                    known.add(request)
            except httpx.TransportError:
                break
        server.process.wait(30)
        server.client.close()
        server.start()
    server.stop()
    return known


def check_nothing_lost(server: Server, known: set[str]) -> None:
    actions, shown = server.rows("actions"), server.rows("impressions")
    assert known <= set(actions["request_id"])
    assert set(actions["row_key"]) <= set(shown["row_key"])
    kept = shown[shown["seen"]].drop_duplicates("row_key")
    assert set(kept.loc[kept["item_id"] == "i1", "request_id"]) >= known


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    server = Server(tmp_path, "--flush-s", "0.2")
    known = hammer_and_kill(server, kills=4, batches=60)
    assert len(known) >= 100
    check_nothing_lost(server, known)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_was_acknowledged_survives_kill_9_a_hundred_times(tmp_path: Path) -> None:
    server = Server(tmp_path, "--flush-s", "0.2")
    known = hammer_and_kill(server, kills=100, batches=60)
    check_nothing_lost(server, known)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs Debian's redis-server")
def test_context_in_redis_is_shared_between_collectors(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as redis:
        try:
            time.sleep(1)
            url = f"redis://127.0.0.1:{port}/0"
            for name in ("one", "two"):
                (tmp_path / name).mkdir()
            one, two = (Server(tmp_path / name, "--redis", url) for name in ("one", "two"))
            one.send("b1", [served("r1")])
            assert two.send("b2", [action("r1")]).json()["accepted"] == 1
            one.stop()
            two.stop()
            assert two.rows("impressions")["user_id"].tolist() == ["u1"]
        finally:
            redis.terminate()
