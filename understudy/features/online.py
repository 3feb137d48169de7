"""The online store: what serving reads, as fresh as the last refresh.

``features/current.json`` names the run whose feature tables are current; the Feast repository,
``feature_repo/``, reads it. It moves after the online store is written, so a refresh that was
killed is done again; one refresh waits for another. Where nothing older has changed since the last
refresh, only rows that became readable since its last day began are written.
"""

import contextlib
import datetime
import errno
import fcntl
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
from understudy.errors import BadInput
from understudy.features.views import PROFILES
from understudy.lake import Lake, unwritable
from understudy.runs import Plan, Run
from understudy.section import canonical_json
from understudy.snapshot import Snapshot

__all__ = ["current_tables", "refresh", "refresh_now"]

_POINTER = "features/current.json"
_EVER = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def refresh_now(config: Config, lake_uri: str) -> dict[str, Any]:
    """Build the features of all logs in the lake, and make them the online store's.

    Returns:
        the pointer: ``run_id`` and ``window_end``, the last day that is counted.
    """
    from understudy.features import building
    from understudy.logs import compaction
    from understudy.runs.planning import plan_window

    plan = plan_window(lake_uri, config, purpose="refresh")
    compaction.run(lake_uri, plan.run_id, config.section("labels"))
    building.run(lake_uri, plan.run_id, config.section("features", "labels"))
    pointer: dict[str, Any] = Lake.open(lake_uri).read_json(_POINTER)
    return pointer


def refresh(lake_uri: str, run_id: str) -> bool:
    """Make a run's feature tables current, unless newer ones are; False where nothing was done."""
    lake = Lake.open(lake_uri)
    run = Run(lake, run_id)
    plan = run.plan()
    if plan.purpose in ("evaluate", "compare") or not lake.is_local:
        return False
    with _only_one(Path(lake.path("features"))):
        return _refresh(lake, run, plan)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """One process at a time; the lock ends with its process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _refresh(lake: Lake, run: Run, plan: Plan) -> bool:
    before = lake.read_json(_POINTER) if lake.exists(_POINTER) else None
    if before is not None and (before["run_id"] == run.id or before["window_end"] > plan.window_end):
        return False
    snapshot = Snapshot.load(lake, plan.snapshot)
    stand = {
        "run_id": run.id,
        "window_end": plan.window_end,
        "section": canonical_json(plan.config["features"]),
        "unchanging": snapshot.fingerprint(_day_before(plan.window_end)),
    }
    same = before is not None and before["section"] == stand["section"]
    if before is not None and same and snapshot.fingerprint(_day_before(before["window_end"])) == before["unchanging"]:
        start = _midnight(before["window_end"], plan.time_zone)
    else:
        start = _EVER
    _materialise(lake, run, start)
    lake.replace(_POINTER, (json.dumps(stand, sort_keys=True) + "\n").encode())
    return True


def current_tables(lake: Lake) -> dict[str, tuple[str, Any]]:
    """View → folder and schema of the current feature tables.

    Raises:
        BadInput: no features were built yet.
    """
    if not lake.exists(_POINTER):
        raise BadInput(
            f"lake {lake.root}: expected features, found none; run `understudy features refresh --lake {lake.root}`"
        )
    return _tables(lake, Run(lake, lake.read_json(_POINTER)["run_id"]))


def _tables(lake: Lake, run: Run) -> dict[str, tuple[str, Any]]:
    manifest = run.manifest("build_features")
    assert manifest is not None, "whoever names a run as current has its features"
    paths = {name: run.table_path("build_features", name) for name in manifest["tables"]}
    return {name: (lake.uri(path), lake.dataset(path).schema) for name, path in paths.items()}


def _materialise(lake: Lake, run: Run, start: datetime.datetime) -> None:
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("FEAST_USAGE", "False")
    from understudy.features import repository

    folder = Path(lake.path("features"))
    try:
        _write(repository, lake, run, folder, start)
    except OSError as error:
        raise unwritable(error, str(folder)) from error
    except sqlite3.OperationalError as error:
        if "full" not in str(error):
            raise
        raise unwritable(OSError(errno.ENOSPC, str(error)), str(folder)) from error


def _write(repository: Any, lake: Lake, run: Run, folder: Path, start: datetime.datetime) -> None:
    with _replaced(folder / "registry.db") as registry:
        store = repository.open_store(folder, str(registry), str(folder / "online.db"))
        views = repository.apply(store, repository.definitions(_tables(lake, run)))
        _materialise_views(store, views, run, start)


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A copy to write into, which takes the file's place when it is whole: Feast writes its registry in place."""
    copy = path.with_name(f".{path.name}.new")
    copy.unlink(missing_ok=True)
    if path.exists():
        shutil.copyfile(path, copy)
    yield copy
    copy.replace(path)


def _materialise_views(store: Any, names: list[str], run: Run, start: datetime.datetime) -> None:
    views = [name for name in names if start == _EVER or name not in PROFILES]
    print(f"{run.id}: writing {len(views)} feature views online", file=sys.stderr, flush=True)
    with contextlib.redirect_stdout(io.StringIO()):
        store.materialize(start_date=start, end_date=datetime.datetime.now(datetime.UTC), feature_views=views)


def _day_before(day: str) -> str:
    return str(datetime.date.fromisoformat(day) - datetime.timedelta(days=1))


def _midnight(day: str, time_zone: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(day).replace(tzinfo=zoneinfo.ZoneInfo(time_zone))
