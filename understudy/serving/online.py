"""The online store, read without Feast: rows that ``understudy features refresh`` wrote to SQLite or Redis."""

import concurrent.futures
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from understudy.features.views import VIEWS
from understudy.serving.values import DecodeError, decode, entity_key

__all__ = ["Asked", "Bounded", "Kept", "OnlineStore", "RedisStore", "Row", "SqliteStore", "Unavailable"]

Asked = tuple[str, tuple[str, ...]]  # a view, and the values of its keys
Row = dict[str, Any]  # feature → value; empty where nothing is known

_PROJECT = "understudy"
_AT_ONCE = 500  # keys in one SQLite statement
_PAUSE_S = 1.0  # how long Redis may take, and is left alone after it failed
_KEPT_S = 60.0


class Unavailable(Exception):
    """The store can't be read for now; ``cause`` is for counting."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


class OnlineStore(Protocol):
    """Where a user's features are."""

    def read(self, asked: Sequence[Asked]) -> list[Row]:
        """The rows of several keys, in their order.

        Raises:
            Unavailable: at once, or after the store's own timeout.
        """

    def close(self) -> None: ...


class Bounded:
    """A store that answers within its time, whatever holds it up: a name that is not resolved, a disk, a slow peer.

    It is read in a thread of its own; while that is held up, the others are told so at once.
    """

    def __init__(self, store: OnlineStore, timeout_s: float) -> None:
        self.store, self.timeout_s = store, timeout_s
        self.pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="store")
        self.reading: concurrent.futures.Future[list[Row]] | None = None

    def read(self, asked: Sequence[Asked]) -> list[Row]:
        if self.reading is not None and not self.reading.done():
            raise Unavailable("slow", "an earlier read has not ended")
        self.reading = self.pool.submit(self.store.read, asked)
        try:
            return self.reading.result(self.timeout_s)
        except TimeoutError as error:
            raise Unavailable("slow", f"no answer within {self.timeout_s:g} s") from error

    def close(self) -> None:
        self.pool.submit(self.store.close)
        self.pool.shutdown(wait=False)


class Kept:
    """Rows that were read lately, until the next refresh, and no longer than a minute. One thread reads.

    Args:
        rows: that are kept at most, an empty one too.
        count: is told ``hit`` or ``miss``, and how many rows.
    """

    def __init__(self, store: OnlineStore, rows: int, count: Callable[[str, int], None]) -> None:
        self.store, self.most, self.count = store, rows, count
        self.forget()

    def read(self, asked: Sequence[Asked]) -> list[Row]:
        if time.monotonic() - self.since > _KEPT_S:
            self.forget()
        kept = self.kept
        found = {key: kept[key] for key in asked if key in kept}
        missing = [key for key in asked if key not in found]
        self.count("hit", len(found))
        self.count("miss", len(missing))
        if missing:
            read = dict(zip(missing, self.store.read(missing), strict=True))
            kept.update(read)
            while len(kept) > self.most:
                kept.popitem(last=False)
            found |= read
        return [found[key] for key in asked]

    def forget(self) -> None:
        """The features were refreshed."""
        self.kept: OrderedDict[Asked, Row] = OrderedDict()
        self.since = time.monotonic()

    def close(self) -> None:
        self.store.close()


class SqliteStore:
    """Feast's SQLite file, read-only. One thread reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db: sqlite3.Connection | None = None

    def read(self, asked: Sequence[Asked]) -> list[Row]:
        keys = [(view, entity_key(VIEWS[view].keys, values)) for view, values in asked]
        found: dict[tuple[str, bytes], Row] = {}
        try:
            db = self._open()
            for view in dict.fromkeys(view for view, _ in keys):
                wanted = [key for of, key in keys if of == view]
                for start in range(0, len(wanted), _AT_ONCE):
                    self._select(db, view, wanted[start : start + _AT_ONCE], found)
        except sqlite3.Error as error:
            self.close()
            raise Unavailable("sqlite", str(error)) from error
        except DecodeError as error:
            raise Unavailable("damaged", "a value that is none") from error
        return [found.get(key, {}) for key in keys]

    def _select(
        self, db: sqlite3.Connection, view: str, keys: list[bytes], found: dict[tuple[str, bytes], Row]
    ) -> None:
        marks = ",".join("?" * len(keys))
        query = f'SELECT entity_key, feature_name, value FROM "{_PROJECT}_{view}" WHERE entity_key IN ({marks})'
        try:
            rows = db.execute(query, keys)
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return  # a view that no refresh has written
            raise
        for key, feature, value in rows:
            found.setdefault((view, key), {})[feature] = decode(value)

    def _open(self) -> sqlite3.Connection:
        if self.db is None:
            self.db = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=_PAUSE_S, check_same_thread=False
            )
        return self.db

    def close(self) -> None:
        if self.db is not None:
            self.db.close()
        self.db = None


class RedisStore:
    """The hashes that Feast writes to Redis.

    A store that failed is left alone for a second.

    Args:
        url: ``redis://[:password@]host:port/db``; never logged.
        features: view → names of its features; a view that is not there has none.
    """

    def __init__(self, url: str, features: dict[str, list[str]]) -> None:
        import mmh3
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.error = (redis.RedisError, OSError)
        self.redis: Any = redis.Redis.from_url(
            url,
            protocol=2,  # fewer round trips until the first answer
            lib_name=None,
            lib_version=None,
            socket_timeout=_PAUSE_S,
            socket_connect_timeout=_PAUSE_S,
            retry=Retry(NoBackoff(), 0),
        )
        self.features = features
        self.fields = {
            view: [mmh3.hash(f"{view}:{name}", signed=False).to_bytes(4, "little") for name in names]
            for view, names in features.items()
        }
        self.failed_at = -_PAUSE_S

    def read(self, asked: Sequence[Asked]) -> list[Row]:
        if time.monotonic() - self.failed_at < _PAUSE_S:
            raise Unavailable("paused", "Redis did not answer a moment ago")
        pipe = self.redis.pipeline(transaction=False)
        there = [place for place, (view, _) in enumerate(asked) if self.features.get(view)]
        for view, values in (asked[place] for place in there):
            pipe.hmget(entity_key(VIEWS[view].keys, values) + _PROJECT.encode(), self.fields[view])
        try:
            answers = pipe.execute()
        except self.error as error:
            self.failed_at = time.monotonic()
            raise Unavailable("redis", type(error).__name__) from error
        rows: list[Row] = [{} for _ in asked]
        try:
            for place, values in zip(there, answers, strict=True):
                named = zip(self.features[asked[place][0]], values, strict=True)
                rows[place] = {name: decode(value) for name, value in named if value is not None}
            return rows
        except (DecodeError, TypeError) as error:  # TypeError: Redis has something else there
            raise Unavailable("damaged", "a value that is none") from error

    def close(self) -> None:
        self.redis.close()
