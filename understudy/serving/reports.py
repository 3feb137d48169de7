"""Tell the log collector what was served, off the request's path. Losing it is counted and never fails a request."""

import http.client
import queue
import sys
import threading
import time
import urllib.parse
import uuid
from typing import Any

import msgspec

from understudy.logs.events import Item, Served

__all__ = ["Reporter", "served_event"]

_BATCH = 64  # slates
_BATCH_BYTES = 900_000  # below the collector's limit of a body
_WAIT_S = 0.2
_TRIES = 3
_TIMEOUT_S = 5.0


class _Envelope(msgspec.Struct):
    batch_id: str
    sent_at: int
    events: list[msgspec.Raw]


class Reporter:
    """A bounded queue and the thread that empties it.

    Args:
        url: of the collector; ``token``: its clients'.
        told, lost: are called with a number of slates.
        waiting: slates that wait at most.
    """

    def __init__(self, url: str, token: str, told: Any, lost: Any, waiting: int = 2_000) -> None:
        self.url, self.headers = urllib.parse.urlsplit(url), {"Authorization": f"Bearer {token}"}
        self.told, self.lost = told, lost
        self.queue: queue.Queue[bytes | None] = queue.Queue(waiting)
        self.thread = threading.Thread(target=self._run, name="report", daemon=True)
        self.thread.start()

    def put(self, served: Served) -> None:
        """Note a slate; never waits."""
        try:
            self.queue.put_nowait(msgspec.json.encode(served))
        except queue.Full:
            self.lost(1)

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what waits."""
        self.queue.put(None)
        self.thread.join(timeout_s)

    def _run(self) -> None:
        connection = None
        more = True
        while more:
            batch, more = self._batch()
            if not batch:
                continue
            connection = self._send(connection, batch)

    def _batch(self) -> tuple[list[bytes], bool]:
        """Slates to send together, and whether more may come."""
        first = self.queue.get()
        if first is None:
            return [], False
        batch, size, end = [first], len(first), time.monotonic() + _WAIT_S
        while len(batch) < _BATCH and size < _BATCH_BYTES // 2:
            try:
                one = self.queue.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return batch, True
            if one is None:
                return batch, False
            batch.append(one)
            size += len(one)
        return batch, True

    def _send(self, connection: http.client.HTTPConnection | None, batch: list[bytes]) -> http.client.HTTPConnection | None:
        # The same bytes again are the same batch to the collector, so a try whose answer was lost does no harm.
        envelope = _Envelope(uuid.uuid4().hex, time.time_ns() // 1000, [msgspec.Raw(one) for one in batch])
        body = msgspec.json.encode(envelope)
        status = ""
        for attempt in range(_TRIES):
            try:
                connection = connection or self._connect()
                connection.request("POST", "/v1/events", body, self.headers)
                answer = connection.getresponse()
                answer.read()
                status = str(answer.status)
                if answer.status == 200:
                    self.told(len(batch))
                    return connection
                if 400 <= answer.status < 500 and answer.status != 429:
                    break
            except (OSError, http.client.HTTPException) as error:
                status = type(error).__name__
                if connection is not None:
                    connection.close()
                connection = None
            time.sleep(0.1 * 2**attempt)
        self.lost(len(batch))
        print(f"serve: {len(batch)} served slates were not told to the collector: {status}", file=sys.stderr, flush=True)
        return connection

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        assert self.url.hostname is not None, "the command line has checked it"
        return kind(self.url.hostname, self.url.port, timeout=_TIMEOUT_S)


def served_event(
    request_id: str,
    user_id: str,
    now_us: int,
    surface: str | None,
    release: str,
    candidates: int,
    items: list[str],
    probability: list[list[float]],
    heads: tuple[str, ...],
) -> Served:
    """What a request was answered with, as the collector takes it."""
    listed = [
        Item(item_id=item, position=place, p=dict(zip(heads, row, strict=True)))
        for place, (item, row) in enumerate(zip(items, probability, strict=True))
    ]
    return Served(
        request_id=request_id,
        user_id=user_id,
        at=now_us,
        items=listed,
        candidate_count=candidates,
        surface=surface,
        release=release,
    )
