"""An open-loop load generator: requests leave when their time has come, whether or not others were answered.

So waiting counts: a latency runs from the moment at which a request should have left to the last byte of its answer
(G. Tene's "coordinated omission" is what a closed loop would hide).
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Answered", "closed_loop", "open_loop"]

_LIMIT_S = 30.0


@dataclass(frozen=True)
class Answered:
    """What came back.

    Args:
        status: (n,); 0: no answer. seconds: (n,).
        took_s: of the whole.
    """

    status: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    took_s: float

    def percentile(self, q: float, status: int = 200) -> float:
        """Milliseconds."""
        return float(np.percentile(self.seconds[self.status == status], q) * 1000)

    def share(self, status: int = 200) -> float:
        return float((self.status == status).mean())


class _Connections:
    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: bytes) -> int:
        """Send and read to the end; the status."""
        connection = self.free.pop() if self.free else await asyncio.open_connection(self.host, self.port)
        reader, writer = connection
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
        await reader.readexactly(length)
        self.free.append(connection)
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        for _, writer in self.free:
            writer.close()


async def _timed(connections: _Connections, request: bytes, due: float) -> tuple[int, float]:
    try:
        async with asyncio.timeout(_LIMIT_S):
            status = await connections.ask(request)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        status = 0
    return status, time.perf_counter() - due


def open_loop(host: str, port: int, requests: Sequence[bytes], due_s: npt.NDArray[np.float64]) -> Answered:
    """Send a request at each of the given seconds (n,) from now."""

    async def run() -> Answered:
        connections, tasks = _Connections(host, port), []
        start = time.perf_counter() + 0.05
        for place, due in enumerate(start + due_s):
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(_timed(connections, requests[place % len(requests)], due)))
        found = await asyncio.gather(*tasks)
        took_s = time.perf_counter() - start
        connections.close()
        status, seconds = zip(*found, strict=True)
        return Answered(np.array(status), np.array(seconds), took_s)

    return asyncio.run(run())


def closed_loop(host: str, port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Answered:
    """So many clients, each asking again as soon as it is answered: the most that the server can do."""

    async def run() -> Answered:
        connections, found = _Connections(host, port), []
        start = time.perf_counter()

        async def client(first: int) -> None:
            place = first
            while time.perf_counter() - start < seconds:
                found.append(await _timed(connections, requests[place % len(requests)], time.perf_counter()))
                place += clients

        await asyncio.gather(*(client(first) for first in range(clients)))
        took_s = time.perf_counter() - start
        connections.close()
        status, latencies = zip(*found, strict=True)
        return Answered(np.array(status), np.array(latencies), took_s)

    return asyncio.run(run())
