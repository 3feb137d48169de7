"""What serving reads, as fresh as the last refresh: users in the online store, items in a snapshot.

``features/current.json`` names the run whose feature tables are current, and the item snapshot; the Feast repository,
``feature_repo/``, reads it, and rank servers look at it every few seconds. It moves after both are written, so a
refresh that was killed is done again; one refresh waits for another. Where nothing older has changed since the last
refresh, only rows that became readable since its last day began are written.

The online store is SQLite beside the lake's tables, or Redis where ``UNDERSTUDY_REDIS_URL`` names one; for a lake in an
object store it is Redis, and without one nothing is refreshed.
"""

import contextlib
import datetime
import errno
import io
import json
import os
import shutil
import sqlite3
import sys
import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from understudy.config import Config
from understudy.features import items
from understudy.features.pointer import POINTER, REDIS_URL, current_features, redis_parts
from understudy.features.views import PROFILES
from understudy.features.workplace import forget_old, new_name, nowhere_online, only_one, worked_on
from understudy.lake import Lake, unwritable
from understudy.runs import Plan, Run
from understudy.section import canonical_json, duration_s
from understudy.snapshot import Snapshot

__all__ = ["current_tables", "materialise", "micros", "refresh", "refresh_now"]

_EVER = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def refresh_now(config: Config, lake_uri: str) -> dict[str, Any]:
    """Build the features of all logs in the lake, and make them the online store's.

    Returns:
        the pointer: ``run_id`` and ``window_end``, the last day that is counted.

    Raises:
        BadInput: the lake is in an object store, and no Redis is named.
    """
    from understudy.features import building
    from understudy.logs import compaction
    from understudy.runs.planning import plan_window

    if (nowhere := nowhere_online(Lake.open(lake_uri))) is not None:
        raise nowhere
    plan = plan_window(lake_uri, config, purpose="refresh")
    compaction.run(lake_uri, plan.run_id, config.section("labels"))
    building.run(lake_uri, plan.run_id, config.section("features", "labels"))
    return current_features(Lake.open(lake_uri))


def refresh(lake_uri: str, run_id: str) -> bool:
    """Make a run's feature tables current, unless newer ones are; False where nothing was done."""
    lake = Lake.open(lake_uri)
    run = Run(lake, run_id)
    plan = run.plan()
    if plan.purpose in ("evaluate", "compare"):
        return False
    if (nowhere := nowhere_online(lake)) is not None:
        print(f"{run.id}: no features are refreshed online: {nowhere}", file=sys.stderr, flush=True)
        return False
    with only_one(lake):
        return _refresh(lake, run, plan)


def _refresh(lake: Lake, run: Run, plan: Plan) -> bool:
    known = lake.read_bytes(POINTER) if lake.exists(POINTER) else None
    before = None if known is None else lake.read_json(POINTER)
    if before is not None and before["window_end"] > plan.window_end:
        return False
    now = datetime.datetime.now(datetime.UTC)
    stand: dict[str, Any] = {
        "run_id": run.id,
        "window_end": plan.window_end,
        "section": canonical_json(plan.config["features"]),
        "unchanging": _unchanging(lake, plan, plan.window_end),
        "as_of_us": micros(now),
        "online": _online(),
    }
    same = before is not None and before["run_id"] == run.id and before.get("online") == stand["online"]
    if before is not None and same and _settled(plan) <= before["as_of_us"]:
        stand["items"] = before["items"]
    else:
        stand["items"] = materialise(lake, run, _start(lake, plan, before, stand), now)
    if not lake.swap(POINTER, known, _pointer(stand)):
        _doubt(lake)
        print(f"{run.id}: held up until another refresh was done; the next one writes all", file=sys.stderr, flush=True)
        return False
    forget_old(lake, stand["items"])
    return True


def _pointer(stand: dict[str, Any]) -> bytes:
    return (json.dumps(stand, sort_keys=True) + "\n").encode()


def _doubt(lake: Lake) -> None:
    """Older rows may lie over newer ones in the online store: the next refresh is not to rely on what is there."""
    while True:
        known = lake.read_bytes(POINTER)
        if lake.swap(POINTER, known, _pointer({**json.loads(known), "online": "unknown"})):
            return


def _online() -> str:
    """Where users' features are; in another place nothing is known of what was written before."""
    url = os.environ.get(REDIS_URL)
    if not url:
        return "sqlite"
    parts = redis_parts(url)
    return f"redis {parts.hostname}:{parts.port or 6379}/{parts.path.strip('/') or 0}"


def _start(lake: Lake, plan: Plan, before: dict[str, Any] | None, stand: dict[str, Any]) -> datetime.datetime:
    """What became readable since then is written; everything where something older has changed."""
    if before is None or any(before.get(part) != stand[part] for part in ("section", "online")):
        return _EVER
    if _unchanging(lake, plan, before["window_end"]) != before["unchanging"]:
        return _EVER
    return _midnight(before["window_end"], plan.time_zone)


def _unchanging(lake: Lake, plan: Plan, window_end: str) -> str:
    """A fingerprint of the logs before the window's last day."""
    return Snapshot.load(lake, plan.snapshot).fingerprint(_day_after(window_end, -1))


def _settled(plan: Plan) -> int:
    """When the last row of a run's features can be read, in microseconds."""
    end = micros(_midnight(_day_after(plan.window_end, 1), plan.time_zone))
    refresh = plan.config["features"]["refresh"]
    wait = duration_s(plan.config["labels"]["attribution_window"]) + (0 if refresh == "event" else duration_s(refresh))
    return end + wait * 1_000_000


def current_tables(lake: Lake) -> dict[str, tuple[str, Any]]:
    """View → folder and schema of the current feature tables.

    Raises:
        BadInput: no features were built yet.
    """
    return _tables(lake, Run(lake, current_features(lake)["run_id"]))


def _tables(lake: Lake, run: Run) -> dict[str, tuple[str, Any]]:
    manifest = run.manifest("build_features")
    assert manifest is not None, "whoever names a run as current has its features"
    paths = {name: run.table_path("build_features", name) for name in manifest["tables"]}
    return {name: (lake.uri(path), lake.dataset(path).schema) for name, path in paths.items()}


def materialise(lake: Lake, run: Run, start: datetime.datetime, end: datetime.datetime) -> str:
    """Bring a run's features to where serving reads them; returns the item snapshot's name.

    Args:
        start, end: what became readable between them is written online; the snapshot holds all until ``end``.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("FEAST_USAGE", "False")
    name = new_name(lake, run.id, micros(end))
    paths = {view: f"{path}/**/*.parquet" for view, (path, _) in _tables(lake, run).items()}
    with worked_on(lake) as folder:
        try:
            _write(lake, run, folder, start, end)
            items.write(folder / "items" / name, paths, micros(end))
        except OSError as error:
            raise unwritable(error, str(folder)) from error
        except sqlite3.OperationalError as error:
            if "full" not in str(error):
                raise
            raise unwritable(OSError(errno.ENOSPC, str(error)), str(folder)) from error
    return name


def micros(moment: datetime.datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EVER) // datetime.timedelta(microseconds=1)


def _write(lake: Lake, run: Run, folder: Path, start: datetime.datetime, end: datetime.datetime) -> None:
    from understudy.features import repository

    online, redis = folder / "online.db", os.environ.get(REDIS_URL)
    with _replaced(folder / "registry.db") as registry:
        store = repository.open_store(folder, str(registry), str(online), redis)
        views = repository.apply(store, repository.definitions(_tables(lake, run)))
        if redis is None:
            _let_readers_in(online)
        _materialise_views(store, views, run, start, end)


def _let_readers_in(path: Path) -> None:
    """With a write-ahead log, readers never wait for a refresh."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A copy to write into, which takes the file's place when it is whole: Feast writes its registry in place."""
    copy = path.with_name(f".{path.name}.new")
    copy.unlink(missing_ok=True)
    if path.exists():
        shutil.copyfile(path, copy)
    yield copy
    copy.replace(path)


def _materialise_views(
    store: Any, names: list[str], run: Run, start: datetime.datetime, end: datetime.datetime
) -> None:
    views = [name for name in names if start == _EVER or name not in PROFILES]
    print(f"{run.id}: writing {len(views)} feature views online", file=sys.stderr, flush=True)
    with contextlib.redirect_stdout(io.StringIO()):
        store.materialize(start_date=start, end_date=end, feature_views=views)


def _day_after(day: str, days: int) -> str:
    return str(datetime.date.fromisoformat(day) + datetime.timedelta(days=days))


def _midnight(day: str, time_zone: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(day).replace(tzinfo=zoneinfo.ZoneInfo(time_zone))
