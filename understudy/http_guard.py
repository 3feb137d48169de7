"""uvicorn's HTTP protocol with the limits that it lacks: size and time of a request's head, and silent connections."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["guarded"]


def guarded(
    head_bytes: int, head_s: float, *, idle_s: float | None = None, connections: int | None = None
) -> type[HttpToolsProtocol]:
    """The protocol's class.

    Args:
        head_bytes, head_s: of a request's line and headers, and seconds until they have come.
        idle_s: until the next request begins, or the rest of a body that nobody reads has come; None: ``head_s``.
        connections: open at once; one more is closed.
    """

    class Guarded(HttpToolsProtocol):
        """Between two requests uvicorn's own keep-alive limit holds, which any byte ends, and ours, which none does."""

        head_size = 0
        in_head = True
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if connections is not None and len(self.connections) > connections:
                transport.close()
            self._begin_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end_head()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self.head_size += len(data)
            super().data_received(data)
            if self.in_head and self.head_size > head_bytes and not self.transport.is_closing():
                self.send_400_response(f"expected at most {head_bytes} bytes of headers")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._begin_head()

        def on_headers_complete(self) -> None:
            self._end_head()
            super().on_headers_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self.pipeline and not self.transport.is_closing():
                self._wait(head_s if idle_s is None else idle_s)

        def _begin_head(self) -> None:
            self._wait(head_s)
            self.in_head, self.head_size = True, 0

        def _wait(self, seconds: float) -> None:
            self._end_head()
            self.timer = self.loop.call_later(seconds, self._too_slow)

        def _end_head(self) -> None:
            self.in_head = False
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def _too_slow(self) -> None:
            if not self.transport.is_closing():
                self.transport.close()

    return Guarded
