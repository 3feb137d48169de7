"""The collector's durable store: one SQLite file, written by group commit.

An answer is given after the transaction with its batch has been written through to the disk (a
write-ahead log with ``synchronous=FULL``): it survives the death of the process and a loss of power,
as long as the disk keeps what it says it has written. It does not survive the loss of the disk; the
lake is where logs are kept, and the journal holds only what was not flushed to it yet.
"""

import sqlite3
import time
from collections import OrderedDict
from pathlib import Path

import msgspec
import pyarrow as pa

from understudy.hashing import bucket
from understudy.logs.config import Logging
from understudy.logs.context import Context, RedisContext, SqliteContext
from understudy.logs.events import Action, Answer, Batch, Refused, Seen, Served, corrected_us, events_of
from understudy.logs.keep import is_random

__all__ = ["Entry", "Journal"]

_CACHED_REQUESTS = 20_000
_BATCH_KEPT_S = 86_400


class Entry(msgspec.Struct, array_like=True):
    """What waits for the lake: an item that was seen, an action (with its name), or (random slice) a served item."""

    kind: str
    request_id: str
    item_id: str
    ts: int
    action: str = ""
    value: float = 0.0


_ENTRIES = msgspec.msgpack.Decoder(list[Entry])
_SERVED = msgspec.msgpack.Decoder(Served)


class Journal:
    """A connection to the store. Each thread opens its own.

    Args:
        path: the SQLite file; made where it is missing.
        logging: the random slice's share, and the salt of the users' buckets.
        keep_s: how long served context is kept.
        redis_url: keeps the context in Redis instead.
    """

    def __init__(self, path: Path, logging: Logging, *, keep_s: int, redis_url: str | None = None) -> None:
        self.keep_s, self.logging = keep_s, logging
        self.db = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("CREATE TABLE IF NOT EXISTS waiting (id INTEGER PRIMARY KEY, entries BLOB)")
        self.db.execute("CREATE TABLE IF NOT EXISTS batches (batch_id TEXT PRIMARY KEY, at INTEGER, answer BLOB)")
        self.context: Context = RedisContext(redis_url) if redis_url else SqliteContext(self.db)
        self.recent: OrderedDict[str, Served] = OrderedDict()

    def take(self, batches: list[tuple[Batch, int]]) -> list[bytes]:
        """Make batches durable in one transaction; returns their answers as JSON.

        Args:
            batches: with the time of their receipt in µs.
        """
        self.db.execute("BEGIN IMMEDIATE")
        try:
            answers = [self._take(batch, received_us) for batch, received_us in batches]
            self.db.execute("COMMIT")
        except BaseException:
            self.db.execute("ROLLBACK")
            self.recent.clear()
            raise
        return answers

    def _take(self, batch: Batch, received_us: int) -> bytes:
        known = self.db.execute("SELECT answer FROM batches WHERE batch_id = ?", [batch.batch_id]).fetchone()
        if known:
            return bytes(known[0])
        events, refused = events_of(batch)
        served = [event for _, event in events if isinstance(event, Served)]
        entries = self._keep(served, batch.sent_at, received_us)
        contexts = self.contexts({event.request_id for _, event in events})
        for index, event in events:
            if isinstance(event, Served):
                continue
            reason = _unknown(event, contexts.get(event.request_id))
            if reason:
                refused.append(Refused(index, reason))
                continue
            ts = corrected_us(event.at, batch.sent_at, received_us, contexts[event.request_id].at)
            if isinstance(event, Seen):
                entries.append(Entry("seen", event.request_id, event.item_id, ts))
            else:
                entries.append(Entry("action", event.request_id, event.item_id, ts, event.action, event.value))
        refused.sort(key=lambda one: one.index)
        answer = msgspec.json.encode(Answer(len(batch.events) - len(refused), refused))
        if entries:
            self.db.execute("INSERT INTO waiting (entries) VALUES (?)", [msgspec.msgpack.encode(entries)])
        self.db.execute("INSERT INTO batches VALUES (?, ?, ?)", [batch.batch_id, int(time.time()), answer])
        return answer

    def _keep(self, served: list[Served], sent_at: int, received_us: int) -> list[Entry]:
        """Keep the context of what was served, at the collector's time; the first report of a request counts.

        Returns:
            the items of the random slice, which is logged in full.
        """
        known = self.contexts({one.request_id for one in served})
        new = list({one.request_id: one for one in reversed(served) if one.request_id not in known}.values())
        if not new:
            return []
        random = is_random(pa.array([one.request_id for one in new], pa.string()), self.logging.random_share)
        buckets = bucket(self.logging.salt, [one.user_id for one in new])
        contexts = {}
        for one, number in zip(new, buckets, strict=True):
            one.at = corrected_us(one.at, sent_at, received_us)
            one.bucket = int(number) if one.bucket is None else one.bucket
            contexts[one.request_id] = msgspec.msgpack.encode(one)
            self._remember(one)
        self.context.put(contexts, received_us // 1_000_000 + self.keep_s)
        in_full = [one for one, is_one in zip(new, random, strict=True) if is_one]
        return [Entry("served", one.request_id, item.item_id, one.at) for one in in_full for item in one.items]

    def contexts(self, request_ids: set[str]) -> dict[str, Served]:
        """What these requests were served, as far as it is known."""
        found = {request: self.recent[request] for request in request_ids if request in self.recent}
        missing = sorted(request_ids - set(found))
        for request, context in self.context.get(missing).items() if missing else ():
            found[request] = _SERVED.decode(context)
            self._remember(found[request])
        return found

    def _remember(self, served: Served) -> None:
        self.recent[served.request_id] = served
        if len(self.recent) > _CACHED_REQUESTS:
            self.recent.popitem(last=False)

    def waiting(self, at_most: int) -> tuple[int, list[Entry]]:
        """The oldest entries that the lake does not hold yet, at least one batch, and the last batch's number."""
        last, entries = 0, []
        for number, blob in self.db.execute("SELECT id, entries FROM waiting ORDER BY id"):
            entries += _ENTRIES.decode(blob)
            last = number
            if len(entries) >= at_most:
                break
        return last, entries

    def forget(self, last: int) -> None:
        """Drop entries up to a batch, and whatever has passed its time."""
        now_s = int(time.time())
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute("DELETE FROM waiting WHERE id <= ?", [last])
        self.db.execute("DELETE FROM batches WHERE at < ?", [now_s - _BATCH_KEPT_S])
        if not self.db.execute("SELECT 1 FROM waiting LIMIT 1").fetchone():
            self.context.expire(now_s)
        self.db.execute("COMMIT")

    def close(self) -> None:
        self.db.close()


def _unknown(event: Seen | Action, served: Served | None) -> str:
    """Why the event can't be joined; empty: it can."""
    if served is None:
        return f"request_id {event.request_id!r}: expected a request that was served, found none"
    if all(item.item_id != event.item_id for item in served.items):
        return f"item_id {event.item_id!r}: expected an item that this request was served, found none"
    return ""
