"""Who is served, and who is sent away: a bounded queue before one worker thread, with a deadline for each request.

A request that would wait longer than its budget is refused when it comes, and one that has waited too long is refused
before it costs anything: under overload what is accepted still answers in time.
"""

import asyncio
import concurrent.futures
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Busy", "Desk"]

T = TypeVar("T")

_GAIN = 0.1  # weight of the newest request in the mean of service times
_SAFETY = 4.0  # deviations above that mean which a request is expected to take, as TCP's retransmission timer has it


class Busy(Exception):
    """There is no time for this request; ``cause`` is for counting."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Desk:
    """One thread's time. All but that thread lives in the event loop.

    Args:
        budget_s: from a request's arrival to its answer.
        queue: requests that wait at most.
    """

    def __init__(self, budget_s: float, queue: int) -> None:
        self.budget_s, self.queue = budget_s, queue
        self.waiting = 0
        self.mean_s = self.deviation_s = 0.0
        self.pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="rank")

    @property
    def expected_s(self) -> float:
        """How long a request is expected to take once its turn has come."""
        return self.mean_s + _SAFETY * self.deviation_s

    async def serve(self, arrived: float, work: Callable[[], T]) -> T:
        """Run ``work`` in its turn.

        Args:
            arrived: of the request, by ``time.perf_counter``.

        Raises:
            Busy: it would come too late.
        """
        if self.waiting >= self.queue:
            raise Busy("queue")
        if (
            self.waiting
            and time.perf_counter() - arrived + self.waiting * self.mean_s + self.expected_s > self.budget_s
        ):
            raise Busy("deadline")
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.pool, self._in_turn, arrived, work)
        finally:
            self.waiting -= 1

    def _in_turn(self, arrived: float, work: Callable[[], T]) -> T:
        started = time.perf_counter()
        if started - arrived + self.mean_s > self.budget_s:
            self.mean_s *= 1 - _GAIN  # or one slow moment would refuse everybody for ever
            raise Busy("deadline")
        result = work()
        took = time.perf_counter() - started
        first = self.mean_s == 0.0
        self.deviation_s += _GAIN * (abs(took - self.mean_s) - self.deviation_s) if not first else took / 2
        self.mean_s += _GAIN * (took - self.mean_s) if not first else took
        return result

    def close(self) -> None:
        """Finish what was accepted."""
        self.pool.shutdown(wait=True)
