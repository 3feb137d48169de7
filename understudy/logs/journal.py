"""The collector's durable store: one SQLite file, written by group commit.

An answer is given after the transaction with its batch has been written through to the disk (a
write-ahead log with ``synchronous=FULL``): it survives the death of the process and a loss of power,
as long as the disk keeps what it says it has written. It does not survive the loss of the disk; the
lake is where logs are kept, and the journal holds only what was not flushed to it yet.

Rows wait as they will stand in the lake, joined and decided: a context that is lost later loses no row.
"""

import fcntl
import os
import sqlite3
import time
from collections import Counter
from pathlib import Path

import msgspec
import pyarrow as pa

from understudy import schema
from understudy.errors import BadInput
from understudy.formats import Format
from understudy.logs.config import Logging
from understudy.logs.context import Context, Contexts, RedisContext, SqliteContext
from understudy.logs.events import Answer, Batch, Refused, Seen, Served, corrected_us
from understudy.logs.joining import Joined, contexts_of, served_fault, tables_of, unknown

__all__ = ["Conflict", "Journal", "hold"]

_BATCH_KEPT_S = 86_400
_WAL_BYTES = 64 << 20
_SCHEMA = """
CREATE TABLE IF NOT EXISTS waiting (id INTEGER PRIMARY KEY AUTOINCREMENT, impressions BLOB, actions BLOB);
CREATE TABLE IF NOT EXISTS batches (batch_id TEXT PRIMARY KEY, at INTEGER, digest BLOB, answer BLOB);
CREATE INDEX IF NOT EXISTS batches_at ON batches (at);
"""
# A step changes what an older version has left in the file.
_FORMAT: Format[sqlite3.Connection] = Format("journal", 1, "have the version that wrote it flush it")


class Conflict(Exception):
    """A batch id came again with other events."""


class Journal:
    """A connection to the store. Each thread opens its own.

    Args:
        path: the SQLite file; made where it is missing.
        logging: heads, keep rate, the random slice's share, and the salt of the users' buckets.
        keep_s: how long served context is kept.
        redis_url: keeps the context in Redis instead.
    """

    def __init__(self, path: Path, logging: Logging, *, keep_s: int, redis_url: str | None = None) -> None:
        self.keep_s, self.logging = keep_s, logging
        self.heads = tuple(sorted(logging.heads))
        self.refused: Counter[str] = Counter()  # events by cause, of batches that were taken
        self.db = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
        found = self.db.execute("PRAGMA user_version").fetchone()[0]
        if found:  # else it is a new one
            self._bring_forward(found, path)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute(f"PRAGMA journal_size_limit={_WAL_BYTES}")
        self.db.executescript(_SCHEMA)
        self.contexts = Contexts(RedisContext(redis_url) if redis_url else SqliteContext(self.db))
        self.db.execute(f"PRAGMA user_version={_FORMAT.newest}")

    def _bring_forward(self, found: int, path: Path) -> None:
        """In one transaction, as the file is the only copy."""
        _FORMAT.check(found, f"--state {path}")
        if found == _FORMAT.newest:
            return
        self.db.execute("BEGIN IMMEDIATE")
        try:
            _FORMAT.forward(self.db, found, f"--state {path}")
            self.db.execute(f"PRAGMA user_version={_FORMAT.newest}")
            self.db.execute("COMMIT")
        except BaseException:
            self.db.execute("ROLLBACK")
            raise

    def take(self, batches: list[tuple[Batch, int]]) -> list[bytes | Conflict]:
        """Make batches durable in one transaction; returns their answers as JSON.

        Args:
            batches: with the time of their receipt in µs.
        """
        self.db.execute("BEGIN IMMEDIATE")
        try:
            answered = self._answered([batch.batch_id for batch, _ in batches])
            fresh: dict[str, tuple[Batch, int]] = {}
            for batch, received_us in batches:
                if batch.batch_id not in answered:
                    fresh.setdefault(batch.batch_id, (batch, received_us))
            answered |= self._write(list(fresh.values()))
            self.db.execute("COMMIT")
        except BaseException:
            self.contexts.forget_recent()
            self.refused.clear()
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        return [_answer(batch, *answered[batch.batch_id]) for batch, _ in batches]

    def _answered(self, batch_ids: list[str]) -> dict[str, tuple[bytes, bytes]]:
        """Digest and answer of batches that were taken before."""
        marks = ",".join("?" * len(batch_ids))
        rows = self.db.execute(f"SELECT batch_id, digest, answer FROM batches WHERE batch_id IN ({marks})", batch_ids)
        return {batch_id: (digest, answer) for batch_id, digest, answer in rows}

    def _write(self, batches: list[tuple[Batch, int]]) -> dict[str, tuple[bytes, bytes]]:
        """Returns digest and answer of each."""
        refused = [list(batch.refused) for batch, _ in batches]
        contexts = self.contexts.get({one.request_id for batch, _ in batches for one in batch.events if one})
        contexts |= self._keep(batches, contexts, refused)
        joined: list[Joined] = []
        for (batch, received_us), faults in zip(batches, refused, strict=True):
            _join(batch, received_us, contexts, joined, faults)
        self._wait(joined)
        now_s, answers = int(time.time()), {}
        for (batch, _), faults in zip(batches, refused, strict=True):
            answers[batch.batch_id] = (batch.digest, _encoded(len(batch.events), faults))
            self.refused.update(one.cause for one in faults)
        rows = ((batch_id, now_s, *answer) for batch_id, answer in answers.items())
        self.db.executemany("INSERT INTO batches VALUES (?, ?, ?, ?)", rows)
        return answers

    def _keep(
        self, batches: list[tuple[Batch, int]], known: dict[str, Context], refused: list[list[Refused]]
    ) -> dict[str, Context]:
        """Keep the context of requests that are new; the first report of a request counts."""
        served: list[Served] = []
        at: list[int] = []
        for (batch, received_us), faults in zip(batches, refused, strict=True):
            for index, event in enumerate(batch.events):
                if not isinstance(event, Served):
                    continue
                fault = served_fault(event, batch.sent_at - event.at, self.keep_s * 1_000_000)
                if fault:
                    faults.append(Refused(index, *fault))
                elif event.request_id not in known:
                    served.append(event)
                    at.append(corrected_us(event.at, batch.sent_at, received_us))
        new = contexts_of(served, at, self.logging)
        self.contexts.put(new, int(time.time()) + self.keep_s)
        return new

    def _wait(self, joined: list[Joined]) -> None:
        if not joined:
            return
        blobs = [_blob(table) for table in tables_of(joined, self.heads)]
        if any(blobs):
            self.db.execute("INSERT INTO waiting (impressions, actions) VALUES (?, ?)", blobs)

    def waiting(self, at_most: int) -> tuple[int, pa.Table, pa.Table]:
        """The oldest rows that the lake does not hold yet, and the number to ``forget`` them by; 0: none wait.

        Args:
            at_most: rows, beyond those of one write.
        """
        last, rows = 0, 0
        tables: tuple[list[pa.Table], list[pa.Table]] = ([], [])
        for number, *blobs in self.db.execute("SELECT id, impressions, actions FROM waiting ORDER BY id"):
            for found, blob in zip(tables, blobs, strict=True):
                if blob:
                    found.append(pa.ipc.open_stream(blob).read_all())
                    rows += found[-1].num_rows
            last = number
            if rows >= at_most:
                break
        return last, self._whole("impressions", tables[0]), self._whole("actions", tables[1])

    def _whole(self, name: str, tables: list[pa.Table]) -> pa.Table:
        """One table with the heads of today: rows that were written before a change of them have none of the new."""
        declared = schema.arrow_schema(name, self.heads)
        return pa.concat_tables([declared.empty_table(), *tables], promote_options="default").select(declared.names)

    def forget(self, last: int) -> None:
        """Drop rows up to a number, and whatever has passed its time."""
        now_s = int(time.time())
        self.db.execute("DELETE FROM waiting WHERE id <= ?", [last])
        self.db.execute("DELETE FROM batches WHERE at < ?", [now_s - _BATCH_KEPT_S])
        self.contexts.store.expire(now_s)

    def close(self) -> None:
        self.db.close()


def hold(path: Path) -> int:
    """Take a journal for this process until it ends; returns what to keep open.

    Raises:
        BadInput: another collector has it.
    """
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise BadInput(
            f"--state {path}: expected no other collector on this file, found one; give each its own"
        ) from error
    return lock


def _join(
    batch: Batch, received_us: int, contexts: dict[str, Context], joined: list[Joined], refused: list[Refused]
) -> None:
    """Add what a batch tells of served requests to ``joined``, and what can't be joined to ``refused``."""
    for index, event in enumerate(batch.events):
        if event is None:
            continue
        context = contexts.get(event.request_id)
        if isinstance(event, Served):
            # Also when it is reported again: the first report may have failed after its context was kept.
            if context and context.random:
                joined += [Joined(context, event.request_id, item, False, context.at) for item in context.items]
            continue
        fault = unknown(event, context)
        if fault:
            refused.append(Refused(index, *fault))
            continue
        assert context is not None, "an event without context is unknown"
        ts = corrected_us(event.at, batch.sent_at, received_us, context.at)
        if isinstance(event, Seen):
            joined.append(Joined(context, event.request_id, event.item_id, True, ts))
        else:
            joined.append(Joined(context, event.request_id, event.item_id, True, ts, event.action, event.value))


def _answer(batch: Batch, digest: bytes, answer: bytes) -> bytes | Conflict:
    return answer if digest == batch.digest else Conflict(batch.batch_id)


def _encoded(events: int, refused: list[Refused]) -> bytes:
    told = [{"index": one.index, "reason": one.reason} for one in sorted(refused, key=lambda one: one.index)]
    return msgspec.json.encode(Answer(events - len(refused), told))


def _blob(table: pa.Table) -> bytes | None:
    if not table.num_rows:
        return None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())
