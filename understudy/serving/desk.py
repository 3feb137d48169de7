"""Who is served, and who is sent away: a bounded queue before one worker thread, with a deadline for each request.

A request that would wait longer than its budget is refused when it comes, and one that has waited too long is refused
before it costs anything: under overload what is accepted still answers in time. Who finds nobody waiting is refused
only where most requests take longer than the budget, so that one slow moment does not last.
"""

import asyncio
import concurrent.futures
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Busy", "Desk", "Pace"]

T = TypeVar("T")

_GAIN = 0.1  # weight of the newest in the mean
_SAFETY = 4.0  # deviations above the mean which the next one is expected to take


class Busy(Exception):
    """There is no time for this request; ``cause`` is for counting."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Pace:
    """How long something takes, from how long it took lately, as TCP estimates a round trip (RFC 6298, section 2)."""

    def __init__(self) -> None:
        self.mean_s = self.deviation_s = 0.0

    @property
    def expected_s(self) -> float:
        """What the next one hardly exceeds."""
        return self.mean_s + _SAFETY * self.deviation_s

    def add(self, took_s: float) -> None:
        if self.mean_s == 0.0:
            self.mean_s, self.deviation_s = took_s, took_s / 2
            return
        self.deviation_s += _GAIN * (abs(took_s - self.mean_s) - self.deviation_s)
        self.mean_s += _GAIN * (took_s - self.mean_s)


class Desk:
    """One thread's time. All but that thread lives in the event loop.

    Args:
        budget_s: from a request's arrival to its answer.
        queue: requests that wait at most.
    """

    def __init__(self, budget_s: float, queue: int) -> None:
        self.budget_s, self.queue = budget_s, queue
        self.waiting = 0
        self.service, self.loop = Pace(), Pace()
        self.pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="rank")

    async def serve(self, arrived: float, work: Callable[[], T]) -> T:
        """Run ``work`` in its turn.

        Args:
            arrived: of the request, by ``time.perf_counter``.

        Raises:
            Busy: it would come too late.
        """
        if self.waiting >= self.queue:
            raise Busy("queue")
        due = arrived + self.budget_s if self.waiting else None
        ahead_s = self.waiting * self.service.mean_s + self.service.expected_s
        if due is not None and time.perf_counter() + ahead_s + self._elsewhere_s > due:
            raise Busy("deadline")
        if self.service.mean_s > self.budget_s:
            self.service.mean_s *= 1 - _GAIN  # so that one is tried again
            raise Busy("deadline")
        self.waiting += 1
        try:
            result, ended = await asyncio.get_running_loop().run_in_executor(self.pool, self._in_turn, due, work)
        finally:
            self.waiting -= 1
        self.loop.add(min(time.perf_counter() - ended, self.budget_s))
        return result

    @property
    def _elsewhere_s(self) -> float:
        """What a request waits for the event loop: for its answer to be sent, and, unseen, before it was read."""
        return 2 * self.loop.mean_s

    def _in_turn(self, due: float | None, work: Callable[[], T]) -> tuple[T, float]:
        started = time.perf_counter()
        if due is not None and started + self.service.mean_s + self._elsewhere_s > due:
            raise Busy("deadline")
        result = work()
        ended = time.perf_counter()
        self.service.add(min(ended - started, 2 * self.budget_s))  # one stall alone refuses nobody
        return result, ended

    def close(self) -> None:
        """Finish what was accepted."""
        self.pool.shutdown(wait=True)
