"""Connections that only stay: who makes room, and who is closed. A real uvicorn on loopback."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from waiting import eventually

from understudy.http_guard import guarded

LARGE = b"x" * (64 << 20)
ASK = b"GET /%s HTTP/1.1\r\nHost: here\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    body = LARGE if scope["path"] == "/large" else b"small"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


@pytest.fixture(scope="module")
def server(listening: socket.socket) -> Iterator[uvicorn.Server]:
    protocol = guarded(4_000, 30, idle_s=3, connections=3)
    running = uvicorn.Server(uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_level="error"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield running
    running.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def address(server: uvicorn.Server, listening: socket.socket) -> tuple[str, int]:
    address: tuple[str, int] = listening.getsockname()
    return address


def answered(connection: socket.socket) -> bool:
    connection.sendall(ASK % b"small")
    got = b""
    while not got.endswith(b"small"):
        piece = connection.recv(65_536)
        if not piece:
            return False
        got += piece
    return True


def test_the_one_that_was_silent_for_longest_makes_room(address: tuple[str, int]) -> None:
    first, second, third = (socket.create_connection(address, 30) for _ in range(3))
    assert answered(second)
    assert answered(third)
    with first, second, third, socket.create_connection(address, 30) as newcomer:
        assert answered(newcomer)
        assert first.recv(1) == b""
        assert answered(second)


def test_who_does_not_read_the_answer_is_closed(address: tuple[str, int], server: uvicorn.Server) -> None:
    with socket.create_connection(address, 30) as connection:
        connection.sendall(ASK % b"large")
        eventually(lambda: server.server_state.connections)
        eventually(lambda: not server.server_state.connections)
        got = 0
        try:
            while piece := connection.recv(1 << 20):
                got += len(piece)
        except ConnectionResetError:
            pass
        assert got < len(LARGE)


def test_who_reads_the_answer_gets_it_whole(address: tuple[str, int]) -> None:
    with socket.create_connection(address, 30) as connection:
        connection.sendall(ASK % b"large")
        got = 0
        while got < len(LARGE):
            piece = connection.recv(1 << 20)
            assert piece
            got += len(piece)
    assert got > len(LARGE)


def test_a_head_that_is_too_long_is_refused(address: tuple[str, int]) -> None:
    """It comes in pieces: how much of the first belongs to a head, nobody knows before it is read."""
    with socket.create_connection(address, 0.02) as connection:
        connection.sendall(b"GET /small HTTP/1.1\r\nHost: here\r\nMuch: ")
        answer, sent = b"", 0
        while not answer and sent < 40_000:
            connection.sendall(b"x" * 500)
            sent += 500
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 400")
