"""Batches on their way to the disk.

One thread writes: it takes all batches that wait and makes them durable in one transaction, so the
cost of reaching the disk is shared. What may be under way, from the first byte of a body to its
answer, is bounded in number and in bytes; more is turned away at once, and memory stays bounded.
"""

import asyncio
import queue
import sqlite3
import sys
import threading
import time
from dataclasses import dataclass

from understudy.logs.context import Unavailable
from understudy.logs.events import Batch
from understudy.logs.journal import Journal
from understudy.logs.metrics import Metrics

__all__ = ["Intake", "Limits"]

_GROUP, _GROUP_BYTES = 64, 4 << 20  # batches in one transaction, and their bytes
_STORES = (sqlite3.Error, OSError, Unavailable)  # another batch would fare no better


@dataclass(frozen=True)
class Limits:
    """What the collector takes at most.

    Args:
        body_bytes: of one batch.
        events: of one batch.
        batches, waiting_bytes: under way at once; more get 429.
        body_s: seconds until a body has come.
        head_bytes, head_s: of a request's line and headers, and seconds until they have come.
        connections: open at once; more get 503.
    """

    body_bytes: int = 1 << 20
    events: int = 5_000
    batches: int = 256
    waiting_bytes: int = 32 << 20
    body_s: float = 10
    head_bytes: int = 32 << 10
    head_s: float = 10
    connections: int = 1_000


@dataclass(slots=True)
class _Waiting:
    batch: Batch
    received_us: int
    answer: "asyncio.Future[bytes]"


class Intake:
    """The queue before the journal, and the thread behind it. All but that thread lives in the event loop."""

    def __init__(self, journal: Journal, limits: Limits, metrics: Metrics) -> None:
        self.journal, self.limits, self.metrics = journal, limits, metrics
        self.queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self.loop = asyncio.get_running_loop()
        self.batches = self.bytes = 0
        self.thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self.thread.start()

    def admit(self, size: int) -> bool:
        """Make room for a body, or say that there is none."""
        if self.batches >= self.limits.batches or self.bytes + size > self.limits.waiting_bytes:
            self.metrics.busy.inc()
            return False
        self._count(1, size)
        return True

    def release(self, size: int) -> None:
        """Give back the room of ``admit``."""
        self._count(-1, -size)

    def _count(self, batches: int, size: int) -> None:
        self.batches += batches
        self.bytes += size
        self.metrics.waiting.set(self.bytes)

    async def write(self, batch: Batch) -> bytes:
        """The answer to a batch, once it is durable.

        Raises:
            Conflict: its id came before, with other events.
            Exception: it could not be written.
        """
        waiting = _Waiting(batch, time.time_ns() // 1_000, self.loop.create_future())
        self.queue.put(waiting)
        return await waiting.answer

    async def stop(self) -> None:
        """After the last batch is written."""
        self.queue.put(None)
        await asyncio.to_thread(self.thread.join)

    def _write(self) -> None:
        while True:
            group, more = self._next()
            if group:
                self._settle(group, self._take(group))
            if not more:
                return

    def _next(self) -> tuple[list[_Waiting], bool]:
        """What waits, as much as one transaction takes, and whether more may come."""
        group: list[_Waiting] = []
        size = 0
        while not group or (len(group) < _GROUP and size < _GROUP_BYTES and not self.queue.empty()):
            one = self.queue.get()
            if one is None:
                return group, False
            group.append(one)
            size += one.batch.size
        return group, True

    def _take(self, group: list[_Waiting]) -> list[bytes | Exception]:
        """Answers of a group; a batch that can't be written does not harm its neighbours."""
        try:
            answers: list[bytes | Exception] = [*self.journal.take([(one.batch, one.received_us) for one in group])]
        except Exception as error:
            if len(group) > 1 and not isinstance(error, _STORES):
                return [answer for one in group for answer in self._take([one])]
            self.metrics.failures.labels("journal").inc()
            print(f"collect: a write failed: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
            return [error] * len(group)
        self.metrics.batches.inc(len(group))
        self.metrics.events.inc(sum(len(one.batch.events) for one in group))
        for cause, count in self.journal.refused.items():
            self.metrics.refused.labels(cause).inc(count)
        self.journal.refused.clear()
        return answers

    def _settle(self, group: list[_Waiting], answers: list[bytes | Exception]) -> None:
        try:
            self.loop.call_soon_threadsafe(_answer, group, answers)
        except RuntimeError:  # the loop has ended: nobody waits for an answer any more
            return


def _answer(group: list[_Waiting], answers: list[bytes | Exception]) -> None:
    for one, answer in zip(group, answers, strict=True):
        if one.answer.done():
            continue
        if isinstance(answer, bytes):
            one.answer.set_result(answer)
        else:
            one.answer.set_exception(answer)
