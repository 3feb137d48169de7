"""Structured logs: a JSON object a line, on stderr."""

import datetime
import sys
from typing import Any

import msgspec

__all__ = ["say"]


def say(event: str, **fields: Any) -> None:
    """Write a line. A process that nobody listens to goes on without."""
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    line = msgspec.json.encode({"time": time, "event": event, **fields}) + b"\n"
    try:
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
    except (OSError, ValueError):
        return
