"""Tell the log collector what was served, off the request's path. Losing it is counted and never fails a request."""

import http.client
import queue
import threading
import time
import urllib.parse
import uuid
from typing import Any, NamedTuple

import msgspec

from understudy.errors import first_line
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
        arm, bucket: of the rollout, where there is one.
    """

    asked: RankRequest
    request_id: str
    now_us: int
    model: Model
    scored: Scored
    items: list[str]
    arm: str | None = None
    bucket: int | None = None


class _Envelope(msgspec.Struct):
    batch_id: str
    sent_at: int
    events: list[msgspec.Raw]


class _Answer(msgspec.Struct):
    refused: list[msgspec.Raw] = []


class Reporter:
    """Slates that wait, bounded by their candidates, and the thread that sends them.

    Args:
        url: of the collector; ``token``: its clients'.
        told, lost: are called with a number of slates.
        waiting: candidates of slates that wait at most.
    """

    def __init__(self, url: str, token: str, told: Any, lost: Any, waiting: int = 500_000) -> None:
        self.url, self.headers = urllib.parse.urlsplit(url), {"Authorization": f"Bearer {token}"}
        self.told, self.lost, self.most = told, lost, waiting
        self.queue: queue.SimpleQueue[Slate | None] = queue.SimpleQueue()
        self.lock, self.waiting, self.open = threading.Lock(), 0, 0
        self.thread = threading.Thread(target=self._run, name="report", daemon=True)
        self.thread.start()

    def put(self, slate: Slate) -> None:
        """Note a slate; never waits."""
        weight = len(slate.asked.candidates)
        with self.lock:
            fits = self.waiting + weight <= self.most
            if fits:
                self.waiting += weight
                self.open += 1
        if fits:
            self.queue.put(slate)
        else:
            self.lost(1)

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what waits; what can't be sent in time is lost."""
        self.queue.put(None)
        self.thread.join(timeout_s)
        self._settle(0, self.open)

    def _settle(self, told: int, lost: int) -> None:
        with self.lock:
            self.open -= told + lost
        if told:
            self.told(told)
        if lost:
            self.lost(lost)

    def _run(self) -> None:
        connection, ahead, more = None, b"", True
        while more or ahead:
            batch, ahead, more = self._batch(ahead)
            try:
                connection = self._send(connection, batch) if batch else connection
            except Exception as error:  # the next batch may fare better; its text may hold a header, so the token
                self._failed(len(batch), type(error).__name__)

    def _batch(self, ahead: bytes) -> tuple[list[bytes], bytes, bool]:
        """Events to send together; one that no longer fits; and whether more may come."""
        batch, end = ([ahead] if ahead else []), time.monotonic() + _WAIT_S
        while len(batch) < _BATCH:
            try:
                slate = self.queue.get(timeout=max(0.0, end - time.monotonic()) if batch else None)
            except queue.Empty:
                return batch, b"", True
            if slate is None:
                return batch, b"", False
            with self.lock:
                self.waiting -= len(slate.asked.candidates)
            try:
                event = msgspec.json.encode(served_event(slate))
            except Exception as error:  # one slate's fault is not another's
                self._failed(1, first_line(error))
                continue
            if batch and sum(map(len, batch)) + len(event) > _BATCH_BYTES:
                return batch, event, True
            batch.append(event)
        return batch, b"", True

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
                said = answer.read()
                status = str(answer.status)
                if answer.status == 200:
                    refused = len(msgspec.json.decode(said, type=_Answer).refused)
                    self._settle(len(batch) - refused, 0)
                    if refused:
                        self._failed(refused, "refused")
                    return connection
                if 400 <= answer.status < 500 and answer.status != 429:
                    break
            except (OSError, http.client.HTTPException) as error:
                status = type(error).__name__
                if connection is not None:
                    connection.close()
                connection = None
            time.sleep(0.1 * 2**attempt)
        self._failed(len(batch), status)
        return connection

    def _failed(self, slates: int, reason: str) -> None:
        self._settle(0, slates)
        say("context_lost", slates=slates, reason=reason)

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
        arm=slate.arm,
        bucket=slate.bucket,
    )
