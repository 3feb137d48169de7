"""What is stored by older versions is brought forward when it is read; what is newer, or too old, is refused."""

import datetime
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from plain_releases import produce, release
from run_records import PASSED, commit, recorded

import understudy
from understudy import releases, schema, snapshot
from understudy.errors import BadInput
from understudy.features import items
from understudy.features.items import ItemSnapshot
from understudy.formats import Format
from understudy.lake import Lake
from understudy.logs import journal
from understudy.logs.config import Logging
from understudy.logs.journal import Journal
from understudy.logs.segments import write_segments
from understudy.releases import unit
from understudy.releases.fetching import fetch
from understudy.rollout import state
from understudy.rollout.record import Rollouts
from understudy.rollout.state import Decision, State
from understudy.runs import Run, record
from understudy.schema import Rows
from understudy.snapshot import Snapshot

HEADS = ("click",)
CAKE: Format[str] = Format("cake", 4, "bake again", {2: lambda cake: f"{cake}, iced", 3: lambda cake: f"{cake}, cut"})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open_or_create(str(tmp_path / "lake"))


@pytest.mark.parametrize(
    ("found", "expected"), [(2, "a cake, iced, cut"), (3, "a cake, cut"), (4, "a cake")], ids=["2", "3", "4"]
)
def test_what_is_older_takes_every_step_to_today(found: int, expected: str) -> None:
    assert CAKE.forward("a cake", found, "kitchen") == expected


@pytest.mark.parametrize(
    ("found", "by", "expected"),
    [
        (5, "0.9.0", "found 5, which understudy 0.9.0 wrote; install the version that wrote it, or a newer one"),
        (5, None, "found 5, which a newer version wrote; install the version that wrote it, or a newer one"),
        (1, "0.1.0", "found 1, which understudy 0.1.0 wrote and understudy 0.4.0 no longer reads; bake again, or "),
        ("5", None, "found '5', which no version writes; restore it from a copy"),
        (True, None, "found True, which no version writes; restore it from a copy"),
        (None, None, "found None, which no version writes; restore it from a copy"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_says_what_to_do(
    found: object, by: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(understudy, "__version__", "0.4.0")
    with pytest.raises(BadInput) as refused:
        CAKE.forward("a cake", found, "kitchen", by)
    assert str(refused.value).startswith(f"kitchen: expected a cake of format 2 to 4, {expected}")
    assert "\n" not in str(refused.value)


def test_what_has_no_mark_is_of_the_first_format() -> None:
    first: Format[dict[str, Any]] = Format("cake", 1, "bake again")
    second: Format[dict[str, Any]] = Format("cake", 2, "bake again", {1: lambda cake: {**cake, "iced": True}})
    assert first.mark() == {}
    assert second.unmarked({"cream": True, **first.mark()}, "kitchen") == {"cream": True, "iced": True}
    with pytest.raises(BadInput, match=f"found 2, which understudy {understudy.__version__} wrote; install"):
        first.unmarked({"cream": True, **second.mark()}, "kitchen")


def test_a_gap_in_the_steps_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="a step for each number"):
        Format("cake", 4, "bake again", {2: str})


def _renamed(content: unit.Content) -> unit.Content:
    """An invented format: what was called model.bin is network.bin, and a release has a colour."""
    files = {name.replace("model.bin", "network.bin"): data for name, data in content.files.items()}
    return unit.Content({**content.manifest, "colour": "none"}, files)


def test_a_release_of_an_older_format_is_read_and_stays_as_it_was_written(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = release(lake, "a")
    produce(lake, digest)
    written = {path: path.read_bytes() for path in Path(lake.path("releases", digest)).iterdir()}
    monkeypatch.setattr(unit, "FORMAT", 3)
    monkeypatch.setattr(unit, "_FORMAT", Format("release", 3, "release again", {2: _renamed}))

    found = releases.load(lake, "production")
    assert (found.digest, found.manifest["colour"], found.files["network.bin"]) == (digest, "none", b"a")
    assert releases.read_manifest(lake, digest)["colour"] == "none"
    assert fetch(lake, digest, str(tmp_path / "copy")) == digest
    assert {path: path.read_bytes() for path in Path(lake.path("releases", digest)).iterdir()} == written
    assert json.loads((tmp_path / "copy" / "releases" / digest / "manifest.json").read_text())["format"] == 2
    assert release(lake, "a") != digest  # what is written now is of today's format
    path = Path(lake.path("releases", digest, "model.bin"))
    path.write_bytes(b"b")
    with pytest.raises(BadInput, match=r"model\.bin: expected SHA-256"):
        releases.load(lake, digest)


@pytest.mark.parametrize(
    ("newest", "expected"), [(1, "found 2, which a newer version wrote"), (3, "no longer reads; release again")]
)
def test_a_release_that_cannot_be_read_is_refused_and_hides_no_other(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, newest: int, expected: str
) -> None:
    digest = release(lake, "a")
    produce(lake, digest)
    monkeypatch.setattr(unit, "FORMAT", newest)
    monkeypatch.setattr(unit, "_FORMAT", Format("release", newest, "release again"))
    other = release(lake, "b", teacher=digest)
    with pytest.raises(BadInput, match=f"release {digest[:12]}: expected a release of format {newest}, .*{expected}"):
        releases.load(lake, digest)
    assert releases.load(lake, other).digest == other
    assert releases.read_manifest(lake, digest)["window"]["end"] == "a"
    assert releases.nearest_healthy(lake, other) == other


def rows(name: str, request: str, ts: datetime.datetime) -> pa.Table:
    fields = schema.arrow_schema(name, HEADS)
    values = {"row_key": hash(request), "request_id": request, "item_id": "i", "ts": ts, "action": "click"}
    values |= {"user_id": "u", "seen": True, "slice": "policy", "negative_keep_rate": 1.0, "value": 1.0}
    return pa.Table.from_pylist([{name: values.get(name) for name in fields.names}], fields)


def without_slice(found: Rows) -> Rows:
    """An invented change: the tables' second version calls every slice ``policy``, and has no other."""
    if found.table != "impressions":
        return found
    place = found.rows.column_names.index("slice")
    same = pa.array(["policy"] * found.rows.num_rows, pa.string())
    return Rows(found.table, found.rows.set_column(place, "slice", same))


def test_tables_of_several_versions_are_read_as_one(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    day = datetime.datetime(2026, 1, 5, 12, tzinfo=datetime.UTC)
    old = rows("impressions", "r1", day)
    old = old.set_column(old.column_names.index("slice"), "slice", pa.array(["random"]))
    write_segments(lake, HEADS, "UTC", old, rows("actions", "r1", day))
    before = Snapshot.admit(lake)
    monkeypatch.setattr(schema, "FORMAT", Format("table", 2, "ingest again", {1: without_slice}))
    later = day + datetime.timedelta(days=1)
    write_segments(lake, HEADS, "UTC", rows("impressions", "r2", later), rows("actions", "r2", later))

    now = Snapshot.admit(lake)
    assert list(now.by_version("impressions")) == [2, 1]
    found = now.dataset(lake, "impressions").to_table().sort_by("request_id")
    assert found.select(["request_id", "slice"]).to_pylist() == [
        {"request_id": "r1", "slice": "policy"},
        {"request_id": "r2", "slice": "policy"},
    ]
    assert before.dataset(lake, "impressions", "2026-01-05", "2026-01-05").count_rows() == 1
    monkeypatch.setattr(schema, "FORMAT", Format("table", 1, "ingest again"))
    with pytest.raises(BadInput, match="table impressions: expected a table of format 1, found 2"):
        now.dataset(lake, "impressions")


def test_a_list_of_tables_of_an_older_format_is_read(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    Snapshot(1, HEADS, {}).commit(lake)
    newer: Format[dict[str, Any]] = Format("list", 2, "again", {1: lambda one: {**one, "heads": ["save"]}})
    monkeypatch.setattr(snapshot, "FORMAT", newer)
    assert Snapshot.latest(lake).heads == ("save",)
    Snapshot(2, HEADS, {}).commit(lake)
    assert Snapshot.latest(lake).heads == HEADS
    monkeypatch.undo()
    with pytest.raises(BadInput, match=r"00000002\.json: expected a list of tables of format 1, found 2, which under"):
        Snapshot.latest(lake)


def test_a_lake_says_which_version_began_it(lake: Lake) -> None:
    path = Path(lake.path("lake.json"))
    assert json.loads(path.read_text()) == {"schema_version": 1, "version": understudy.__version__}
    path.write_text('{"schema_version": 2, "version": "0.7.0"}')
    with pytest.raises(BadInput, match=r"expected a table of format 1, found 2, which understudy 0\.7\.0 wrote"):
        Lake.open(lake.root)


def test_the_record_of_a_run_of_an_older_format_is_read(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    run = recorded(lake, "job")
    commit(run, "evaluate", PASSED)
    plans: Format[dict[str, Any]] = Format("plan", 2, "again", {1: lambda one: {**one, "teacher_note": "unknown"}})
    steps: Format[dict[str, Any]] = Format("step", 2, "again", {1: lambda one: {**one, "seconds": 7.0}})
    monkeypatch.setattr(record, "_PLAN", plans)
    monkeypatch.setattr(record, "MANIFEST", steps)
    assert run.plan().teacher_note == "unknown"
    assert run.committed_steps()["evaluate"]["seconds"] == 7.0
    other = recorded(lake, "other", "2026-11-28-0a1b2c3d")
    assert other.plan().teacher_note == "first release"
    monkeypatch.undo()
    with pytest.raises(BadInput, match=f"run {other.id}: expected a plan of format 1, found 2, which understudy"):
        Run(lake, other.id).plan()


def snapshot_of_items(folder: Path, number: int) -> None:
    folder.mkdir()
    arrays: dict[str, Any] = {name: np.zeros((1, 0), np.float32) for name in ("hashes", "numbers", "times_us")}
    arrays |= dict.fromkeys(("ids", "creator_codes", "topic_codes"), np.zeros(1, np.int64))
    arrays |= dict.fromkeys(("creator_names", "topic_names"), np.array([b"c"]))
    arrays |= {"surface_keys": np.zeros((1, 0)), "surface_counters": np.zeros((1, 0, 0))}
    for view in ("item_history", "creator_history", "topic_history"):
        arrays |= {view: np.zeros((1, 1), np.float32), f"{view}_us": np.zeros(1, np.int64)}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    manifest = {"format": number, "as_of_us": 0, "items": 1, "columns": {}, "arrays": sorted(arrays)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_snapshot_of_items_of_an_older_format_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot_of_items(tmp_path / "one", 1)
    assert ItemSnapshot.open(tmp_path / "one").columns == {}
    named: Format[Any] = Format(
        "snapshot", 2, "again", {1: lambda one: one._replace(manifest={**one.manifest, "columns": {"numbers": ["a"]}})}
    )
    monkeypatch.setattr(items, "_FORMAT", named)
    assert ItemSnapshot.open(tmp_path / "one").columns == {"numbers": ["a"]}
    snapshot_of_items(tmp_path / "two", 3)
    with pytest.raises(BadInput, match="expected a snapshot of format 1 to 2, found 3, which a newer version wrote"):
        ItemSnapshot.open(tmp_path / "two")


def test_a_rollout_of_an_older_format_goes_on(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    began = State.begin("r", "a" * 64, "b" * 64, 0.0)
    Rollouts(lake).begin(began, "begun")
    held: Format[dict[str, Any]] = Format("state", 2, "end it", {1: lambda one: {**one, "steps": [7], "held": 3}})
    monkeypatch.setattr(state, "_FORMAT", held)
    number, found = Rollouts(lake).load("r")
    assert (found.steps, found.held) == ((7,), 3)
    Rollouts(lake).advance(number, found, Decision(replace(found, phase="paused"), ("paused",)))
    assert Rollouts(lake).load("r") == (2, replace(found, phase="paused"))
    monkeypatch.undo()
    with pytest.raises(BadInput, match=r"rollout r: expected a state of format 1, found 2, which understudy .* wrote"):
        Rollouts(lake).load("r")


def test_a_journal_of_an_older_format_is_brought_forward_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, logging = tmp_path / "state.db", Logging(heads=HEADS)
    Journal(path, logging, keep_s=60).close()

    def version() -> int:
        with sqlite3.connect(path) as db:
            return int(db.execute("PRAGMA user_version").fetchone()[0])

    def fails(db: sqlite3.Connection) -> sqlite3.Connection:
        db.execute("ALTER TABLE waiting ADD COLUMN colour TEXT")
        raise OSError("no room")

    def works(db: sqlite3.Connection) -> sqlite3.Connection:
        db.execute("ALTER TABLE waiting ADD COLUMN colour TEXT")
        return db

    monkeypatch.setattr(journal, "_FORMAT", Format("journal", 2, "flush it", {1: fails}))
    with pytest.raises(OSError, match="no room"):
        Journal(path, logging, keep_s=60)
    assert version() == 1
    monkeypatch.setattr(journal, "_FORMAT", Format("journal", 2, "flush it", {1: works}))
    Journal(path, logging, keep_s=60).close()
    assert version() == 2
    monkeypatch.undo()
    with pytest.raises(BadInput, match="expected a journal of format 1, found 2, which a newer version wrote"):
        Journal(path, logging, keep_s=60)
