"""Served context: what a request was answered with, by request id, until no action can count any more."""

import sqlite3
from typing import Any, Protocol

__all__ = ["Context", "RedisContext", "SqliteContext"]

_PREFIX = "understudy:served:"
_AT_ONCE = 500  # SQLite allows more parameters; this keeps statements short


class Context(Protocol):
    """Where context is kept."""

    def put(self, contexts: dict[str, bytes], expires_s: int) -> None:
        """Keep contexts until a time (seconds since 1970)."""

    def get(self, request_ids: list[str]) -> dict[str, bytes]:
        """The contexts that are known."""

    def expire(self, now_s: int) -> None:
        """Forget what has passed its time."""


class SqliteContext:
    """In the collector's own file: durable with the batch that brought it. The caller commits."""

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
        self.db.execute("DELETE FROM served WHERE expires < ?", [now_s])


class RedisContext:
    """In Redis, for several collectors behind one address. As durable as that Redis is (``appendfsync always``)."""

    def __init__(self, url: str) -> None:
        import redis

        self.redis: Any = redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
        self.redis.ping()

    def put(self, contexts: dict[str, bytes], expires_s: int) -> None:
        pipe = self.redis.pipeline(transaction=False)
        for request, context in contexts.items():
            pipe.set(_PREFIX + request, context, exat=expires_s, nx=True)
        pipe.execute()

    def get(self, request_ids: list[str]) -> dict[str, bytes]:
        values: Any = self.redis.mget([_PREFIX + request for request in request_ids]) if request_ids else []
        return {request: value for request, value in zip(request_ids, values, strict=True) if value is not None}

    def expire(self, now_s: int) -> None:
        """Redis does it by itself."""
