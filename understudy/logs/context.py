"""Served context: what a request was answered with, by request id, until no action can count any more.

What the keep rule said when the request was served is part of it, so that an impression is decided by
one rule for good, whatever the configuration says later.
"""

import sqlite3
from collections import OrderedDict
from typing import Any, Protocol

import msgspec

__all__ = ["Context", "ContextStore", "Contexts", "RedisContext", "SqliteContext", "Unavailable"]

_PREFIX = "understudy:served:"
_AT_ONCE = 500  # SQLite allows more parameters; this keeps statements short
_CACHED_BYTES = 64 << 20
_EXPIRE_AT_ONCE = 2_000


class Unavailable(Exception):
    """The store of contexts can't be reached for now."""


class Context(msgspec.Struct, array_like=True, gc=False):
    """What a request was served.

    Args:
        at: µs since 1970, on the collector's clock.
        random: its order was random.
        rate: keep rate of its items without a positive.
        heads: of the items' probabilities.
        items: item → [position, propensity, a probability per head].
    """

    at: int
    user_id: str
    candidate_count: int
    surface: str | None
    release: str | None
    arm: str | None
    bucket: int
    random: bool
    rate: float
    heads: list[str]
    items: dict[str, list[Any]]


class ContextStore(Protocol):
    """Where context is kept."""

    def put(self, contexts: dict[str, bytes], expires_s: int) -> None:
        """Keep contexts until a time (seconds since 1970); the first of a request counts."""

    def get(self, request_ids: list[str]) -> dict[str, bytes]:
        """The contexts that are known."""

    def expire(self, now_s: int) -> None:
        """Forget what has passed its time."""


class SqliteContext:
    """In the collector's own file: durable with the batch that brought it. The caller commits ``put``."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        db.execute("CREATE TABLE IF NOT EXISTS served (request_id TEXT PRIMARY KEY, expires INTEGER, context BLOB)")
        db.execute("CREATE INDEX IF NOT EXISTS served_expires ON served (expires)")

    def put(self, contexts: dict[str, bytes], expires_s: int) -> None:
        rows = ((request, expires_s, context) for request, context in contexts.items())
        self.db.executemany("INSERT OR IGNORE INTO served VALUES (?, ?, ?)", rows)

    def get(self, request_ids: list[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for start in range(0, len(request_ids), _AT_ONCE):
            part = request_ids[start : start + _AT_ONCE]
            marks = ",".join("?" * len(part))
            found.update(self.db.execute(f"SELECT request_id, context FROM served WHERE request_id IN ({marks})", part))
        return found

    def expire(self, now_s: int) -> None:
        """In small transactions, so that the writer never waits long. SQLite uses the room again."""
        old = "SELECT rowid FROM served WHERE expires < ? LIMIT ?"
        while self.db.execute(f"DELETE FROM served WHERE rowid IN ({old})", [now_s, _EXPIRE_AT_ONCE]).rowcount:
            pass


class RedisContext:
    """In Redis, for several collectors behind one address. As durable as that Redis is (``appendfsync always``).

    Its memory policy must be ``noeviction``: an action whose context was evicted is refused.
    """

    def __init__(self, url: str) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.error = redis.RedisError
        retry = Retry(NoBackoff(), 1)
        self.redis: Any = redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5, retry=retry)
        self.redis.ping()

    def put(self, contexts: dict[str, bytes], expires_s: int) -> None:
        pipe = self.redis.pipeline(transaction=False)
        for request, context in contexts.items():
            pipe.set(_PREFIX + request, context, exat=expires_s, nx=True)
        try:
            pipe.execute()
        except self.error as error:
            raise Unavailable(f"Redis: {error}") from error

    def get(self, request_ids: list[str]) -> dict[str, bytes]:
        try:
            values: Any = self.redis.mget([_PREFIX + request for request in request_ids]) if request_ids else []
        except self.error as error:
            raise Unavailable(f"Redis: {error}") from error
        return {request: value for request, value in zip(request_ids, values, strict=True) if value is not None}

    def expire(self, now_s: int) -> None:
        """Redis does it by itself."""


class Contexts:
    """A store behind a cache of the newest contexts, bounded in bytes."""

    def __init__(self, store: ContextStore) -> None:
        self.store = store
        self.recent: OrderedDict[str, bytes] = OrderedDict()
        self.bytes = 0

    def get(self, request_ids: set[str]) -> dict[str, Context]:
        """What these requests were served, as far as it is known."""
        found = {request: self.recent[request] for request in request_ids if request in self.recent}
        missing = sorted(request_ids - found.keys())
        if missing:
            stored = self.store.get(missing)
            for request, context in stored.items():
                self._remember(request, context)
            found |= stored
        return {request: _CONTEXT.decode(context) for request, context in found.items()}

    def put(self, contexts: dict[str, Context], expires_s: int) -> None:
        if not contexts:
            return
        encoded = {request: _ENCODER.encode(context) for request, context in contexts.items()}
        self.store.put(encoded, expires_s)
        for request, context in encoded.items():
            self._remember(request, context)

    def forget_recent(self) -> None:
        """After a transaction that failed: what it remembered may not be stored."""
        self.recent.clear()
        self.bytes = 0

    def _remember(self, request: str, context: bytes) -> None:
        self.recent[request] = context
        self.bytes += len(context)
        while self.bytes > _CACHED_BYTES:
            self.bytes -= len(self.recent.popitem(last=False)[1])


_CONTEXT = msgspec.msgpack.Decoder(Context)
_ENCODER = msgspec.msgpack.Encoder()
