"""What comes over the network is limited: how much, how many, how slow. Real servers on loopback."""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from collecting import HEADERS, ROOT, TOKEN, Server
from waiting import eventually

from understudy.config import load
from understudy.http_guard import guarded
from understudy.logs.collector import collector
from understudy.logs.flush import Flushed
from understudy.logs.intake import Limits
from understudy.logs.journal import Journal

FLOOD, TRIES = 120, 3


def large_batch(name: str) -> bytes:
    """Nearly the largest body, in the shape that costs most memory: many small candidates."""
    now = time.time_ns() // 1_000
    items = [{"item_id": f"{place:x}", "position": 0} for place in range(9_000)]
    same = {"kind": "served", "user_id": "u", "at": now, "candidate_count": 9_000, "items": items}
    events = [{**same, "request_id": f"{name}-{place}"} for place in range(3)]
    return json.dumps({"batch_id": name, "sent_at": now, "events": events}, separators=(",", ":")).encode()


def peak_mb(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


async def flood(url: str) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=FLOOD)
    async with httpx.AsyncClient(base_url=url, headers=HEADERS, limits=limits, timeout=120) as client:
        bodies = [large_batch(f"b{place}") for place in range(FLOOD)]
        found: list[httpx.Response] = []
        for _ in range(TRIES):
            found += await asyncio.gather(*(client.post("/v1/events", content=body) for body in bodies))
        return found


def test_beyond_capacity_it_answers_429_and_memory_stays_bounded(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        before = peak_mb(server)
        answers = asyncio.run(flood(server.url))
        after = peak_mb(server)
        turned_away = [one for one in answers if one.status_code == 429]
        print(f"{len(turned_away)} of {len(answers)} were turned away; memory {before:.0f} to {after:.0f} MiB")
        assert {one.status_code for one in answers} == {200, 429}
        assert all(one.headers["retry-after"] == "1" for one in turned_away)
        assert after - before < 450
        assert server.client.post("/v1/events", content=large_batch("after")).json()["accepted"] == 3
    finally:
        server.stop()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A server with small limits, in a thread of this process."""
    logging = load(ROOT / "examples" / "collector.yaml").logging
    assert logging is not None
    limits = Limits(body_s=3, head_s=2, head_bytes=4_000, connections=8, batches=2)

    def journal() -> Journal:
        return Journal(tmp_path / "state.db", logging, keep_s=3_600)

    app = collector(journal, lambda _: Flushed(0, 0), TOKEN, flush_s=60, limits=limits)
    settings = uvicorn.Config(
        app,
        http=guarded(limits.head_bytes, limits.head_s),
        ws="none",
        log_level="error",
        limit_concurrency=limits.connections,
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, args=[[listening]], daemon=True)
    thread.start()
    yield listening.getsockname()
    server.should_exit = True
    thread.join(20)
    listening.close()


def talk(address: tuple[str, int], *parts: bytes, timeout: float = 20) -> bytes:
    """Everything that the server says until it closes the connection."""
    with socket.create_connection(address, timeout=timeout) as connection:
        said = b""
        try:
            for part in parts:
                connection.sendall(part)
            while more := connection.recv(65_536):
                said += more
        except (ConnectionResetError, BrokenPipeError):
            pass
        return said


HEAD = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n".encode()


@pytest.mark.parametrize("parts", [[], [b"POST /v1"], [HEAD], [HEAD, b"X-Endless: "]])
def test_a_head_that_does_not_come_is_not_waited_for(address: tuple[str, int], parts: list[bytes]) -> None:
    start = time.monotonic()
    assert talk(address, *parts) == b""
    assert time.monotonic() - start < 6


def test_a_connection_is_not_kept_open_by_bytes_that_are_no_request(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=30) as held:
        held.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert held.recv(65_536).startswith(b"HTTP/1.1 200")
        held.settimeout(0.25)
        end, closed = time.monotonic() + 30, False
        while not closed:
            assert time.monotonic() < end
            try:
                held.sendall(b"\r\n")
                closed = held.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True


def test_a_body_that_does_not_come_is_not_waited_for(address: tuple[str, int]) -> None:
    said = talk(address, HEAD, b"Content-Length: 100\r\n\r\n", b'{"batch_id"')
    assert said.startswith(b"HTTP/1.1 408")
    assert b"expected the whole body within 3 s" in said


@pytest.mark.parametrize("header", [b"X-Long: " + b"a" * 500_000, b"X: a\r\n" * 100_000])
def test_a_head_without_end_is_refused(address: tuple[str, int], header: bytes) -> None:
    said = talk(address, HEAD, header)
    assert said == b"" or said.startswith(b"HTTP/1.1 400")


def test_a_body_in_chunks_is_limited_too(address: tuple[str, int]) -> None:
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    said = talk(address, HEAD, b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n", chunk * 20, b"0\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413")


def test_more_connections_than_allowed_are_turned_away(address: tuple[str, int]) -> None:
    held = [socket.create_connection(address) for _ in range(8)]
    said = talk(address, HEAD, b"Connection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 503")
    for one in held:
        one.close()
    eventually(lambda: httpx.get(f"http://127.0.0.1:{address[1]}/healthz").status_code == 200)


def test_slow_bodies_take_room_only_for_a_while(address: tuple[str, int]) -> None:
    body: dict[str, Any] = {"batch_id": "b", "sent_at": 1, "events": []}
    with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}", headers=HEADERS) as client:
        assert client.post("/v1/events", json=body).status_code == 200
        slow = [socket.create_connection(address) for _ in range(2)]
        for one in slow:
            one.sendall(HEAD + b"Content-Length: 100\r\n\r\n")
        eventually(lambda: "waiting_bytes 200.0" in client.get("/metrics").text)
        answers: list[int] = []

        def is_taken() -> bool:
            answers.append(client.post("/v1/events", json=body).status_code)
            return answers[-1] == 200

        eventually(is_taken)
        for one in slow:
            one.close()
    assert (answers[0], set(answers)) == (429, {429, 200})
