"""Tell the log collector what was served, off the request's path. Losing it is counted and never fails a request."""

import contextlib
import http.client
import queue
import threading
import time
import urllib.parse
import uuid
from typing import Any, NamedTuple

import msgspec

from understudy.logs.events import Item, Served
from understudy.serving.log import say
from understudy.serving.protocol import RankRequest
from understudy.serving.ranker import Model, Scored

__all__ = ["Reporter", "Slate", "served_event"]

_BATCH = 64  # slates
_BATCH_BYTES = 900_000  # below the collector's limit of a body
_WAIT_S = 0.2
_TRIES = 3
_TIMEOUT_S = 5.0


class Slate(NamedTuple):
    """What one request was answered with.

    Args:
        items: that were given, best first.
    """

    asked: RankRequest
    request_id: str
    now_us: int
    model: Model
    scored: Scored
    items: list[str]


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
        self.queue: queue.Queue[Slate | None] = queue.Queue(waiting)
        self.thread = threading.Thread(target=self._run, name="report", daemon=True)
        self.thread.start()

    def put(self, slate: Slate) -> None:
        """Note a slate; never waits."""
        try:
            self.queue.put_nowait(slate)
        except queue.Full:
            self.lost(1)

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what waits; what can't be sent in time is lost."""
        end = time.monotonic() + timeout_s
        with contextlib.suppress(queue.Full):
            self.queue.put(None, timeout=timeout_s)
        self.thread.join(max(0.0, end - time.monotonic()))
        if self.thread.is_alive():
            self.lost(self.queue.qsize())

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
        batch, end = [msgspec.json.encode(served_event(first))], time.monotonic() + _WAIT_S
        size = len(batch[0])
        while len(batch) < _BATCH and size < _BATCH_BYTES // 2:
            try:
                one = self.queue.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return batch, True
            if one is None:
                return batch, False
            batch.append(msgspec.json.encode(served_event(one)))
            size += len(batch[-1])
        return batch, True

    def _send(
        self, connection: http.client.HTTPConnection | None, batch: list[bytes]
    ) -> http.client.HTTPConnection | None:
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
        say("context_lost", slates=len(batch), reason=status)
        return connection

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        assert self.url.hostname is not None, "the command line has checked it"
        return kind(self.url.hostname, self.url.port, timeout=_TIMEOUT_S)


def served_event(slate: Slate) -> Served:
    """What a request was answered with, as the collector takes it."""
    scored, model = slate.scored, slate.model
    rows = scored.probability[scored.order[: len(slate.items)]].tolist()
    propensity = 1 / len(scored.order) if scored.random else None
    listed = [
        Item(item_id=item, position=place, p=dict(zip(model.heads, row, strict=True)), propensity=propensity)
        for place, (item, row) in enumerate(zip(slate.items, rows, strict=True))
    ]
    return Served(
        request_id=slate.request_id,
        user_id=slate.asked.user_id,
        at=slate.now_us,
        items=listed,
        candidate_count=len(scored.order),
        surface=slate.asked.context.surface,
        release=model.digest,
    )
