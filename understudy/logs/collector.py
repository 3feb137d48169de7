"""The collector's HTTP service: batches of events in, an answer after they are durable.

One thread writes: it takes all batches that wait and makes them durable in one transaction, so the
cost of reaching the disk is shared. A bounded queue stands before it; when it is full, the answer is
429 at once, and memory stays bounded.
"""

import asyncio
import contextlib
import hmac
import queue
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from understudy.logs.events import Batch, decode
from understudy.logs.journal import Journal

__all__ = ["Limits", "collector"]

_GROUP = 64  # batches in one transaction


@dataclass(frozen=True)
class Limits:
    """What the collector takes at most.

    Args:
        body_bytes: of one batch.
        events: of one batch.
        waiting: batches that wait for the writer; more get 429.
    """

    body_bytes: int = 1 << 20
    events: int = 5_000
    waiting: int = 256


@dataclass
class _Counts:
    batches: int = 0
    events: int = 0
    busy: int = 0
    flushed_rows: int = 0
    failures: int = 0


@dataclass
class _Waiting:
    batch: Batch
    received_us: int
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[bytes]" = field(init=False)

    def __post_init__(self) -> None:
        self.answer = self.loop.create_future()

    def settle(self, answer: bytes | BaseException) -> None:
        """Called by the writer's thread."""
        self.loop.call_soon_threadsafe(self._set, answer)

    def _set(self, answer: bytes | BaseException) -> None:
        if self.answer.done():
            return
        if isinstance(answer, bytes):
            self.answer.set_result(answer)
        else:
            self.answer.set_exception(answer)


def collector(
    journal: Callable[[], Journal], flush: Callable[[Journal], int], token: str, *, flush_s: float, limits: Limits
) -> Starlette:
    """The ASGI application.

    Args:
        journal: opens the store; each thread has its own connection.
        flush: brings what waits to the lake; returns rows.
        token: of the clients; never logged.
        flush_s: seconds between flushes; one more follows at the end.
    """
    service = _Service(journal, flush, token, flush_s, limits)
    routes = [
        Route("/v1/events", service.events, methods=["POST"]),
        Route("/healthz", service.health),
        Route("/metrics", service.metrics),
    ]
    return Starlette(routes=routes, lifespan=service.lifespan)


class _Service:
    def __init__(
        self,
        journal: Callable[[], Journal],
        flush: Callable[[Journal], int],
        token: str,
        flush_s: float,
        limits: Limits,
    ) -> None:
        self.open_journal, self.flush, self.flush_s, self.limits = journal, flush, flush_s, limits
        self.expected = f"Bearer {token}".encode()
        self.queue: queue.Queue[_Waiting | None] = queue.Queue(limits.waiting)
        self.counts = _Counts()
        self.stopping = threading.Event()

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        threads = [threading.Thread(target=one, daemon=True) for one in (self._write, self._flush_often)]
        for thread in threads:
            thread.start()
        yield
        self.stopping.set()
        await asyncio.to_thread(self.queue.put, None)
        for thread in threads:
            await asyncio.to_thread(thread.join)

    async def events(self, request: Request) -> Response:
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, self.expected):
            return _refusal(401, "expected the header Authorization: Bearer <token>, found another token or none")
        body = await self._body(request)
        if body is None:
            return _refusal(413, f"expected at most {self.limits.body_bytes} bytes; send smaller batches")
        try:
            batch = decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _refusal(400, f"expected batch_id, sent_at and events as JSON, found: {str(error)[:200]}")
        if len(batch.events) > self.limits.events:
            return _refusal(413, f"expected at most {self.limits.events} events, found {len(batch.events)}")
        waiting = _Waiting(batch, time.time_ns() // 1_000, asyncio.get_running_loop())
        try:
            self.queue.put_nowait(waiting)
        except queue.Full:
            self.counts.busy += 1
            return _refusal(429, "expected fewer batches at once; send this one again", {"Retry-After": "1"})
        try:
            answer = await waiting.answer
        except Exception:
            return _refusal(503, "expected to write to disk, could not; send this batch again", {"Retry-After": "5"})
        return Response(answer, media_type="application/json")

    async def _body(self, request: Request) -> bytes | None:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.limits.body_bytes:
                return None
            parts.append(part)
        return b"".join(parts)

    async def health(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def metrics(self, _: Request) -> Response:
        """Counters in Prometheus' text format."""
        lines = [f"understudy_collector_{name}_total {value}" for name, value in vars(self.counts).items()]
        lines.append(f"understudy_collector_waiting {self.queue.qsize()}")
        return PlainTextResponse("\n".join(lines) + "\n")

    def _write(self) -> None:
        journal = self.open_journal()
        going = True
        while going:
            group = [self.queue.get()]
            while len(group) < _GROUP and not self.queue.empty():
                group.append(self.queue.get())
            going = None not in group
            batches = [one for one in group if one is not None]
            try:
                answers: list[bytes | BaseException] = [*journal.take([(b.batch, b.received_us) for b in batches])]
            except Exception as error:
                self.counts.failures += 1
                print(f"collect: a write failed: {error}", file=sys.stderr, flush=True)
                answers = [error] * len(batches)
            for one, answer in zip(batches, answers, strict=True):
                one.settle(answer)
                self.counts.batches += 1
                self.counts.events += len(one.batch.events)
        journal.close()

    def _flush_often(self) -> None:
        journal = self.open_journal()
        while not self.stopping.wait(self.flush_s):
            self._flush_once(journal)
        self._wait_for_writer()
        self._flush_once(journal)
        journal.close()

    def _wait_for_writer(self) -> None:
        while not self.queue.empty():
            time.sleep(0.01)

    def _flush_once(self, journal: Journal) -> None:
        try:
            self.counts.flushed_rows += self.flush(journal)
        except Exception as error:
            self.counts.failures += 1
            print(f"collect: a flush failed and is tried again: {error}", file=sys.stderr, flush=True)


def _refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    body = msgspec.json.encode({"error": reason})
    return Response(body, status_code=status, media_type="application/json", headers=headers)
