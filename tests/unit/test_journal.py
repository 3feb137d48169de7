"""The journal in this process: what is joined, decided and kept, on a real file and a real lake."""

import datetime
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from understudy import schema
from understudy.config import Config
from understudy.hashing import request_row_key
from understudy.lake import Lake
from understudy.logs.config import Logging
from understudy.logs.context import Contexts, SqliteContext
from understudy.logs.events import decode
from understudy.logs.flush import flush
from understudy.logs.journal import Conflict, Journal, hold
from understudy.logs.keep import lot
from understudy.logs.segments import write_segments
from understudy.snapshot import Snapshot

LOGGING = Logging(heads=("click",), negative_keep_rate=0.1, random_share=0.0)
NOW = time.time_ns() // 1_000


class Book:
    """A journal and its lake."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lake = folder, Lake.open_or_create(str(folder / "lake"))
        self.batches = 0
        self.open(LOGGING)

    def open(self, logging: Logging) -> "Book":
        self.config = Config(logging=logging)
        self.journal = Journal(self.folder / "state.db", logging, keep_s=3_600)
        return self

    def send(self, *events: dict[str, Any], name: str = "") -> dict[str, Any]:
        self.batches += 1
        body = {"batch_id": name or f"b{self.batches}", "sent_at": NOW, "events": [{"at": NOW, **e} for e in events]}
        (answer,) = self.journal.take([(decode(json.dumps(body).encode()), NOW)])
        if isinstance(answer, Conflict):
            raise answer
        return json.loads(answer)

    def rows(self, table: str) -> list[dict[str, Any]]:
        flush(self.journal, self.lake, self.config)
        return Snapshot.current(self.lake).dataset(self.lake, table).to_table().to_pylist()


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


def served(request: str, items: list[str] | None = None, **more: Any) -> dict[str, Any]:
    listed = [{"item_id": item, "position": place} for place, item in enumerate(items or ["kept", "dropped"])]
    whole = {"kind": "served", "request_id": request, "user_id": "u", "candidate_count": 20, "items": listed}
    return {**whole, **more}


def seen(request: str, item: str) -> dict[str, Any]:
    return {"kind": "seen", "request_id": request, "item_id": item}


def action(request: str, item: str, name: str = "click") -> dict[str, Any]:
    return {"kind": "action", "request_id": request, "item_id": item, "action": name}


def by_hash(kept: bool) -> str:
    """A request whose item ``i`` the hash keeps, or drops, without a positive."""
    requests = [f"r{place}" for place in range(200)]
    keys = request_row_key(pa.array(requests), pa.array(["i"] * 200))
    return requests[int(np.flatnonzero((lot(keys) < LOGGING.negative_keep_rate) == kept)[0])]


@pytest.mark.parametrize(("kept", "rows"), [(True, 1), (False, 0)])
def test_a_seen_item_without_a_positive_is_kept_by_hash(book: Book, kept: bool, rows: int) -> None:
    request = by_hash(kept)
    book.send(served(request, ["i"]), seen(request, "i"))
    assert len(book.rows("impressions")) == rows


def test_a_positive_that_comes_after_the_drop_brings_the_impression(book: Book) -> None:
    request = by_hash(kept=False)
    book.send(served(request, ["i"]), seen(request, "i"))
    assert book.rows("impressions") == []
    book.send(action(request, "i"))
    book.send(seen(request, "i"))
    (row,) = book.rows("impressions")
    assert (row["request_id"], row["seen"], row["negative_keep_rate"]) == (request, True, 0.1)


def test_an_action_that_is_no_head_is_logged_and_decides_like_a_seen_item(book: Book) -> None:
    for kept in (True, False):
        book.send(served(by_hash(kept), ["i"]), action(by_hash(kept), "i", "expand"))
    assert [row["request_id"] for row in book.rows("impressions")] == [by_hash(True)]
    assert len(book.rows("actions")) == 2


def test_an_action_may_stand_before_its_served_event_in_a_batch(book: Book) -> None:
    assert book.send(action("r", "kept"), served("r"))["refused"] == []
    assert len(book.rows("impressions")) == 1


def test_the_first_report_of_a_request_counts(book: Book) -> None:
    book.send(served("r", ["a"], user_id="first"), served("r", ["b"], user_id="second"))
    book.send(served("r", ["b"], user_id="third"))
    answer = book.send(action("r", "a"), action("r", "b"))
    assert [one["index"] for one in answer["refused"]] == [1]
    assert [row["user_id"] for row in book.rows("impressions")] == ["first"]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (served("r", ["a", "a"]), "expected each item once, found one twice"),
        (served("r", at=NOW - 7_200_000_000), "expected at most 3600 s before sent_at, found 7200 s"),
        ({**served("r"), "items": []}, "Expected `array` of length >= 1"),
        (served("r", bucket=100), "Expected `int` <= 99"),
        (served("r", likes=1), "unknown field `likes`"),
        (served("r" * 201), "Expected `str` of length <= 200"),
        ({**action("ok", "kept"), "value": 1e301}, "Expected `float` <= 1e+300"),
        ({**action("ok", "kept"), "at": -1}, "Expected `int` >= 0"),
        (seen("never", "a"), "expected a request that was served, found none"),
        (seen("ok", "other"), "expected an item that this request was served, found none"),
    ],
)
def test_a_bad_event_is_refused_with_its_reason(book: Book, event: dict[str, Any], reason: str) -> None:
    answer = book.send(served("ok"), event, action("ok", "kept"))
    assert (answer["accepted"], [one["index"] for one in answer["refused"]]) == (2, [1])
    assert reason in answer["refused"][0]["reason"]
    assert sum(book.journal.refused.values()) == 1


def test_a_batch_id_with_other_events_is_a_conflict(book: Book) -> None:
    first = book.send(served("r"), name="b")
    assert book.send(served("r"), name="b") == first
    with pytest.raises(Conflict):
        book.send(action("r", "kept"), name="b")


def test_the_same_batch_twice_in_one_write_counts_once(book: Book) -> None:
    body = json.dumps({"batch_id": "b", "sent_at": NOW, "events": [{**served("r"), "at": NOW}]}).encode()
    answers = book.journal.take([(decode(body), NOW), (decode(body), NOW + 5)])
    assert answers[0] == answers[1]


def test_the_random_slice_is_logged_in_full_also_where_its_report_was_cut_off(book: Book) -> None:
    logging = Logging(heads=("click",), random_share=1.0)
    book.open(logging)
    # Another collector kept the context and died before its own write.
    other = Journal(book.folder / "other.db", logging, keep_s=3_600)
    other.contexts = Contexts(SqliteContext(book.journal.db))
    other.take([(decode(json.dumps({"batch_id": "x", "sent_at": NOW, "events": []}).encode()), NOW)])
    book.send(served("r"), name="first")
    book.journal.db.execute("DELETE FROM waiting")
    book.send(served("r"), seen("r", "kept"), name="second")
    rows = {row["item_id"]: row for row in book.rows("impressions")}
    assert {item: row["seen"] for item, row in rows.items()} == {"kept": True, "dropped": False}
    assert {(row["slice"], row["propensity"], row["negative_keep_rate"]) for row in rows.values()} == {
        ("random", 1 / 20, 1.0)
    }


def test_what_a_failed_write_remembered_is_forgotten(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as failing:
        failing.setattr("understudy.logs.journal.tables_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            book.send(served("r"), action("r", "kept"), name="b")
    assert book.send(action("r", "kept"))["accepted"] == 0
    assert book.send(served("r"), action("r", "kept"), name="b")["accepted"] == 2


def test_rows_that_wait_fit_the_heads_of_a_later_configuration(book: Book) -> None:
    book.send(served("r"), action("r", "kept"))
    book.journal.close()
    book.open(Logging(heads=("click", "save")))
    (row,) = book.rows("impressions")
    assert (row["p_click"], row["p_save"]) == (None, None)


def test_the_rule_that_was_in_force_when_it_was_served_decides(book: Book) -> None:
    book.send(served("r"))
    book.journal.close()
    book.open(Logging(heads=("click",), negative_keep_rate=0.9, random_share=0.0))
    book.send(action("r", "kept"))
    assert [row["negative_keep_rate"] for row in book.rows("impressions")] == [0.1]


def test_what_has_passed_its_time_is_forgotten_and_its_room_used_again(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, start = [], time.time()
    for hour in range(1, 7):
        monkeypatch.setattr("understudy.logs.journal.time.time", lambda hour=hour: start + hour * 90_000)
        for batch in range(20):
            book.send(*(served(f"{hour}-{batch}-{place}", [f"i{i}" for i in range(20)]) for place in range(50)))
        flush(book.journal, book.lake, book.config)
        book.journal.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sizes.append((book.folder / "state.db").stat().st_size)
    assert book.journal.db.execute("SELECT count(*) FROM served").fetchone()[0] == 1_000
    assert sizes[-1] <= sizes[1] * 1.1


def test_the_cache_of_contexts_is_bounded_in_bytes(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.logs.context._CACHED_BYTES", 10_000)
    for place in range(200):
        book.send(served(f"r{place}", [f"item-{i}" for i in range(20)]))
    contexts = book.journal.contexts
    assert contexts.bytes == sum(map(len, contexts.recent.values())) <= 10_000
    assert book.send(action("r0", "item-1"))["accepted"] == 1


def test_one_journal_has_one_collector(tmp_path: Path) -> None:
    lock = hold(tmp_path / "state.db")
    assert lock
    with pytest.raises(Exception, match="expected no other collector on this file"):
        hold(tmp_path / "state.db")


def test_segments_are_of_local_hours_also_where_these_begin_at_half_past(tmp_path: Path) -> None:
    lake = Lake.open_or_create(str(tmp_path))
    times = [datetime.datetime(2022, 5, 1, 18, minute, tzinfo=datetime.UTC) for minute in (29, 31)]
    same = {"request_id": "r", "item_id": "i", "action": "click", "value": 1.0}  # 23:59 and 00:01 in Kolkata
    rows = [{**same, "row_key": key, "ts": at} for key, at in enumerate(times)]
    actions = pa.Table.from_pylist(rows, schema.arrow_schema("actions", ("click",)))
    empty = schema.arrow_schema("impressions", ("click",)).empty_table()
    assert write_segments(lake, ("click",), "Asia/Kolkata", empty, actions) == 2
    assert Snapshot.current(lake).days("actions") == ["2022-05-01", "2022-05-02"]
