"""Where a refresh works, and how it has that place for itself.

In a folder that is ``features/`` itself, behind a lock that ends with its process. For an object store it is a folder
of this machine, uploaded when all is written: item snapshots under names that nobody else gives, each with its
``manifest.json`` last, then Feast's registry. One refresh waits for another by a lease in the Redis that both write to;
should a lease run out under a refresh that was held up, the pointer to what is current still never moves backwards.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from understudy.errors import BadInput, Later
from understudy.features import items
from understudy.features.pointer import REDIS_URL, redis_parts
from understudy.lake import Lake

__all__ = ["forget_old", "new_name", "nowhere_online", "only_one", "worked_on"]

_KEPT = 3
_LEASE_S = 30.0
_RENEWED_EVERY_S = _LEASE_S / 3
_REGISTRY = "registry.db"
_MANIFEST = "manifest.json"
_MADE = re.compile(r"-(\d{16})(-[0-9a-f]{8})?$")


def nowhere_online(lake: Lake) -> BadInput | None:
    """Why users' features can't be kept online for a lake, or None where they can."""
    if lake.is_local or os.environ.get(REDIS_URL):
        return None
    return BadInput(
        f"lake {lake.root}: expected a Redis for what serving reads of users, which a lake in an object store needs, "
        f"found none; set {REDIS_URL}"
    )


@contextlib.contextmanager
def only_one(lake: Lake) -> Iterator[None]:
    """One refresh of a lake at a time."""
    with _locked(Path(lake.path("features"))) if lake.is_local else _leased(lake):
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The lock ends with its process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _leased(lake: Lake) -> Iterator[None]:
    """The lease is renewed while its process lives, and runs out after it."""
    import redis

    url = os.environ[REDIS_URL]
    parts = redis_parts(url)
    name = f"understudy:refresh:{hashlib.sha256(lake.root.encode()).hexdigest()[:16]}"
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        lease = client.lock(name, timeout=_LEASE_S, sleep=0.5, thread_local=False)
        try:
            lease.acquire()
        except redis.RedisError as error:
            raise Later(
                f"{REDIS_URL}: expected a Redis at {parts.hostname}:{parts.port or 6379}, found "
                f"{type(error).__name__}; see whether it runs and takes this password"
            ) from error
        try:
            with _renewed(lease):
                yield
        finally:
            with contextlib.suppress(redis.RedisError):  # it ran out
                lease.release()


@contextlib.contextmanager
def _renewed(lease: Any) -> Iterator[None]:
    from redis import RedisError

    done = threading.Event()

    def renew() -> None:
        while not done.wait(_RENEWED_EVERY_S):
            with contextlib.suppress(RedisError):
                lease.reacquire()

    renewing = threading.Thread(target=renew, daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()


@contextlib.contextmanager
def worked_on(lake: Lake) -> Iterator[Path]:
    """The folder to write into, laid out as ``features/``; afterwards what is in it is the lake's."""
    if lake.is_local:
        yield Path(lake.path("features"))
        return
    with tempfile.TemporaryDirectory(prefix="understudy-features-") as name:
        folder = Path(name)
        if lake.exists("features", _REGISTRY):
            (folder / _REGISTRY).write_bytes(lake.read_bytes("features", _REGISTRY))
        yield folder
        for snapshot in folder.glob("items/*"):
            _upload(lake, snapshot)
        lake.replace(f"features/{_REGISTRY}", (folder / _REGISTRY).read_bytes())


def _upload(lake: Lake, snapshot: Path) -> None:
    names = sorted((path.name for path in snapshot.iterdir()), key=lambda name: name == _MANIFEST)
    for name in names:
        path = f"{items.FOLDER}/{snapshot.name}/{name}"
        if not lake.put(snapshot / name, path):
            raise Later(f"{lake.uri(path)}: expected a name that nobody has given, found it taken; refresh again")


def new_name(lake: Lake, run_id: str, as_of_us: int) -> str:
    """Of an item snapshot; in an object store no two refreshes give the same."""
    return f"{run_id}-{as_of_us}" + ("" if lake.is_local else f"-{uuid.uuid4().hex[:8]}")


def _made_us(name: str) -> int:
    found = _MADE.search(name)
    return int(found[1]) if found else 0


def forget_old(lake: Lake, current: str) -> None:
    """Old snapshots go, but for the last few: a server that starts now may have read their name just before."""
    if lake.is_local:
        folder = Path(lake.path(items.FOLDER))
        made = [path for path in folder.iterdir() if _MADE.search(path.name) and path.name != current]
        old = sorted(made, key=lambda path: path.stat().st_mtime)
        for path in old[: -(_KEPT - 1)]:
            shutil.rmtree(path, ignore_errors=True)
        return
    names = sorted(lake.names(items.FOLDER), key=_made_us)
    older = names[: names.index(current)] if current in names else []
    for name in older[: -(_KEPT - 1)]:
        lake.remove(items.FOLDER, name)
