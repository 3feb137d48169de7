"""uvicorn's HTTP protocol with the limits that it lacks: size and time of a request's head, and silent connections."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["guarded"]


def guarded(head_bytes: int, head_s: float) -> type[HttpToolsProtocol]:
    """The protocol's class.

    Args:
        head_bytes, head_s: of a request's line and headers, and seconds until they have come.
    """

    class Guarded(HttpToolsProtocol):
        """Between two requests uvicorn's own keep-alive limit holds."""

        head_size = 0
        in_head = True
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
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

        def _begin_head(self) -> None:
            self._end_head()
            self.in_head, self.head_size = True, 0
            self.timer = self.loop.call_later(head_s, self._too_slow)

        def _end_head(self) -> None:
            self.in_head = False
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def _too_slow(self) -> None:
            if not self.transport.is_closing():
                self.transport.close()

    return Guarded
