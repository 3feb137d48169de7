"""Structured logs: a JSON object a line, on stderr. A reader that stalls stops nobody; what it misses is counted."""

import atexit
import contextlib
import datetime
import queue
import sys
import threading
from typing import Any

import msgspec

__all__ = ["say"]

_MOST = 10_000  # lines that wait


class _Log:
    """A bounded queue of lines and the thread that writes them."""

    def __init__(self) -> None:
        self.lines: queue.Queue[bytes | None] = queue.Queue(_MOST)
        self.lost = 0
        self.thread = threading.Thread(target=self._write, name="log", daemon=True)
        self.thread.start()
        atexit.register(self._end)

    def put(self, line: bytes) -> None:
        try:
            self.lines.put_nowait(line)
        except queue.Full:
            self.lost += 1

    def _write(self) -> None:
        while (line := self.lines.get()) is not None:
            lost, self.lost = self.lost, 0
            more = _line("log_lost", lines=lost) if lost else b""
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.buffer.write(more + line)
                sys.stderr.buffer.flush()

    def _end(self) -> None:
        with contextlib.suppress(queue.Full):
            self.lines.put_nowait(None)
        self.thread.join(2)


_LOG: list[_Log] = []


def say(event: str, **fields: Any) -> None:
    """Write a line; never waits."""
    if not _LOG:
        _LOG.append(_Log())
    _LOG[0].put(_line(event, **fields))


def _line(event: str, **fields: Any) -> bytes:
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return msgspec.json.encode({"time": time, "event": event, **fields}) + b"\n"
