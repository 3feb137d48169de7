"""uvicorn's HTTP protocol with the limits that it lacks: what comes around a body, and connections that only stay."""

import asyncio
import re
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["guarded"]

_UPGRADE = re.compile(rb"(?<=\r\n)upgrade(?=[ \t]*:)", re.IGNORECASE)
_FRAMING = 8  # bytes of chunked coding that one byte of a body may cost


def guarded(
    head_bytes: int, head_s: float, *, idle_s: float | None = None, connections: int | None = None
) -> type[HttpToolsProtocol]:
    """The protocol's class.

    Args:
        head_bytes, head_s: of a request's line and headers, and seconds until they have come. Trailers and what
            chunks are framed with have the same limit together.
        idle_s: until the next request begins, the rest of a body that nobody reads has come, or an answer is read;
            None: ``head_s``.
        connections: open at once; for one more, the one that has been silent for longest is closed.
    """
    idle_limit_s = head_s if idle_s is None else idle_s

    class Guarded(HttpToolsProtocol):
        """Between two requests uvicorn's own keep-alive limit holds, which any byte ends, and ours, which none does."""

        size = 0  # bytes since the message began, as far as its first piece began with it
        body_size = 0
        in_head = True
        silent_since = 0.0  # 0: a request is under way
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if connections is not None and len(self.connections) > connections:
                self._make_room()
            self._begin_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.in_head or self.silent_since:
                # Java's client offers HTTP/2 so. The parser would take what follows for another protocol's; a server
                # may ignore an offer (RFC 9110, section 7.8).
                head, end, rest = data.partition(b"\r\n\r\n")
                data = _UPGRADE.sub(b"x-offer", head) + end + rest
            self.size += len(data)
            super().data_received(data)
            if self.transport.is_closing():
                return
            if self.in_head and self.size > head_bytes:
                self.send_400_response(f"expected at most {head_bytes} bytes of headers")
            elif self.size - _FRAMING * self.body_size > 2 * head_bytes:
                self.transport.close()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._begin_head()

        def on_header(self, name: bytes, value: bytes) -> None:
            if self.in_head:  # trailers are for nobody here
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._stop()
            self.in_head, self.silent_since = False, 0.0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self.body_size += len(body)
            super().on_body(body)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self.pipeline and not self.transport.is_closing():
                self.silent_since = time.monotonic()
                self._wait(idle_limit_s)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._wait(idle_limit_s)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop()
            if self.silent_since:
                self._wait(idle_limit_s)

        def _begin_head(self) -> None:
            self._wait(head_s)
            self.in_head, self.size, self.body_size = True, 0, 0
            self.silent_since = self.silent_since or time.monotonic()

        def _make_room(self) -> None:
            others = [one for one in self.connections if isinstance(one, Guarded) and one.silent_since]
            oldest = min(others, key=lambda one: one.silent_since, default=self)
            oldest.transport.close()
            self.connections.discard(oldest)

        def _wait(self, seconds: float) -> None:
            self._stop()
            self.timer = self.loop.call_later(seconds, self._too_slow)

        def _stop(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def _too_slow(self) -> None:
            if self.transport.get_write_buffer_size():
                self.transport.abort()  # who does not read would keep it open
            elif not self.transport.is_closing():
                self.transport.close()

    return Guarded
