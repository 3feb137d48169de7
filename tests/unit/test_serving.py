"""Pieces of the rank server: the desk, hashes, what is told to the collector."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import eventually

from understudy.hashing import decision, hash64
from understudy.logs.events import decode
from understudy.logs.keep import is_random
from understudy.serving.cores import cpu_limit
from understudy.serving.desk import Busy, Desk, Pace
from understudy.serving.hashes import hash_of, hashes_of, lots
from understudy.serving.online import Asked, Bounded, Kept, Row, Unavailable
from understudy.serving.protocol import Context, RankRequest
from understudy.serving.reports import Reporter, Slate, served_event

texts = st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=20)


@given(texts)
def test_hashes_are_those_of_the_tables(ids: list[str]) -> None:
    np.testing.assert_array_equal(hashes_of(ids), hash64(pa.array(ids)))
    assert hash_of(ids[0]) == hash64([ids[0]])[0]


@given(texts, st.text(min_size=1, max_size=40), st.integers(-(2**63), 2**63 - 1))
def test_decisions_are_those_of_the_log(ids: list[str], request: str, seed: int) -> None:
    np.testing.assert_array_equal(lots("slice", seed, ids), decision("slice", seed, pa.array(ids)))
    expected = decision("order", seed, pa.array([request] * len(ids)), pa.array(ids))
    np.testing.assert_array_equal(lots("order", seed, ids, after=request), expected)
    assert (lots("slice", 0, [request])[0] < 0.3) == is_random([request], 0.3)[0]


def asked(desk: Desk, work: Callable[[], Any], count: int) -> list[Any]:
    """Results of so many requests at once; an exception where one was refused."""

    async def all_at_once() -> list[Any]:
        now = time.perf_counter()
        return await asyncio.gather(*(desk.serve(now, work) for _ in range(count)), return_exceptions=True)

    return asyncio.run(all_at_once())


def test_a_desk_serves_in_turn() -> None:
    desk, turns = Desk(60, 10), iter(range(10))
    assert asked(desk, lambda: next(turns), 10) == list(range(10))
    desk.close()


def test_more_than_may_wait_is_refused_at_once() -> None:
    desk, gate = Desk(60, 3), threading.Event()
    threading.Timer(0.1, gate.set).start()
    found = asked(desk, gate.wait, 8)
    assert found[:3] == [True] * 3
    assert [error.cause for error in found[3:]] == ["queue"] * 5
    assert asked(desk, lambda: 1, 1) == [1]
    desk.close()


def test_what_would_come_too_late_is_refused() -> None:
    desk = Desk(60, 100)
    desk.service.mean_s = 25.0
    found = asked(desk, lambda: 1, 5)
    assert [isinstance(one, Busy) for one in found] == [False, False, True, True, True]
    assert {one.cause for one in found[2:]} == {"deadline"}
    desk.close()


def test_a_turn_that_comes_too_late_costs_nothing() -> None:
    desk, served = Desk(0.2, 100), []

    def work() -> None:
        served.append(1)
        time.sleep(0.3)

    found = asked(desk, work, 3)
    assert [isinstance(one, Busy) for one in found] == [False, True, True]
    assert len(served) == 1
    desk.close()


def test_one_slow_moment_refuses_nobody_who_finds_nobody_waiting() -> None:
    desk = Desk(0.05, 100)
    assert asked(desk, lambda: 1, 1) == [1]
    assert asked(desk, lambda: time.sleep(0.3), 1) == [None]
    desk.loop.mean_s = 1000.0
    assert [asked(desk, lambda: 1, 1)[0] for _ in range(100)] == [1] * 100
    assert desk.loop.mean_s < 1
    desk.close()


def test_who_is_always_slower_than_the_budget_refuses_most_and_tries_again() -> None:
    desk = Desk(0.01, 100)
    found = [asked(desk, lambda: time.sleep(0.02), 1)[0] for _ in range(40)]
    refused = sum(isinstance(one, Busy) for one in found)
    assert 20 <= refused < 40
    assert sum(one == 1 for one in (asked(desk, lambda: 1, 1)[0] for _ in range(60))) > 40
    desk.close()


@given(st.lists(st.floats(0, 1e6), max_size=30))
def test_a_pace_lies_between_the_least_and_the_most(taken: list[float]) -> None:
    pace = Pace()
    for one in taken:
        pace.add(one)
    assert not taken or min(taken) <= pace.mean_s * (1 + 1e-9)
    assert pace.mean_s <= max([0.0, *taken]) * (1 + 1e-9)
    assert pace.expected_s >= pace.mean_s


def test_the_event_loop_s_lag_counts_before_and_after() -> None:
    desk = Desk(10, 100)
    desk.service.mean_s, desk.loop.mean_s = 1.0, 4.0
    found = asked(desk, lambda: 1, 3)
    assert [isinstance(one, Busy) for one in found] == [False, True, True]  # 1 s to serve, 8 s in the loop; 1 s more
    assert 0 < desk.loop.mean_s < 4
    desk.close()


def test_an_error_is_its_own_request_s() -> None:
    desk = Desk(60, 10)
    results = iter([ValueError("one"), None])

    def work() -> int:
        error = next(results)
        if error is not None:
            raise error
        return 1

    first, second = asked(desk, work, 2)
    assert isinstance(first, ValueError)
    assert second == 1
    desk.close()


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "400000 100000"}, 4),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": ""}, None),
        ({}, None),
    ],
)
def test_a_container_s_limit_of_cores_is_found(tmp_path: Path, files: dict[str, str], cores: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_limit(tmp_path) == cores


class Store:
    """A store of every key, that says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.gone = False

    def read(self, asked: Sequence[Asked]) -> list[Row]:
        if self.gone:
            raise Unavailable("test", "gone")
        self.asked.append(list(asked))
        return [{"of": key} for key in asked]

    def close(self) -> None:
        pass


def test_rows_are_kept_until_the_next_refresh() -> None:
    store, counted = Store(), Counter()
    kept = Kept(store, 3, lambda outcome, rows: counted.update({outcome: rows}))
    a, b, c, d = (("user_history", (name,)) for name in "abcd")
    assert kept.read([a, b]) == [{"of": a}, {"of": b}]
    assert kept.read([b, c, a]) == [{"of": b}, {"of": c}, {"of": a}]
    assert store.asked == [[a, b], [c]]
    assert counted == {"hit": 2, "miss": 3}
    store.gone = True
    assert kept.read([a]) == [{"of": a}]
    with pytest.raises(Unavailable):
        kept.read([a, d])
    store.gone = False
    assert kept.read([a, d]) == [{"of": a}, {"of": d}]
    assert list(kept.kept) == [b, c, d]
    kept.forget()
    assert kept.read([b]) == [{"of": b}]
    assert store.asked[-1] == [b]


@given(st.integers(0, 6), st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=8, unique=True), max_size=12))
def test_what_is_kept_is_bounded_and_changes_no_answer(most: int, reads: list[list[int]]) -> None:
    kept = Kept(Store(), most, lambda *_: None)
    for read in reads:
        keys = [("user_history", (str(one),)) for one in read]
        assert kept.read(keys) == [{"of": key} for key in keys]
        assert len(kept.kept) <= max(most, 0)


class Held:
    """A store that answers when it is let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def read(self, asked: Sequence[Asked]) -> list[Row]:
        self.gate.wait(60)
        return [{"of": key} for key in asked]

    def close(self) -> None:
        self.gate.set()


def test_a_store_that_is_held_up_holds_nobody_up() -> None:
    held = Held()
    store = Bounded(held, 0.01)
    key = ("user_history", ("u",))
    before = time.monotonic()
    for _ in range(20):
        with pytest.raises(Unavailable) as error:
            store.read([key])
        assert error.value.cause == "slow"
    assert time.monotonic() - before < 30  # the store itself takes a minute
    held.gate.set()
    eventually(lambda: store.reading and store.reading.done())
    assert Bounded(held, 60).read([key]) == [{"of": key}]
    store.close()


def slate(request: str, items: list[str], random: bool = False) -> Slate:
    order = np.arange(len(items))[::-1]
    probability = np.linspace(0.1, 0.9, 2 * len(items), dtype=np.float32).reshape(-1, 2)
    scored: Any = SimpleNamespace(order=order, probability=probability, random=random)
    model: Any = SimpleNamespace(heads=("click", "like"), digest="d" * 64)
    wanted = RankRequest("u", items, Context("home"))
    return Slate(wanted, request, 1_700_000_000_000_000, model, scored, [items[place] for place in order[:2]])


def test_a_slate_is_told_as_the_collector_takes_it() -> None:
    event = served_event(slate("r", ["a", "b", "c"], random=True))
    body = {"batch_id": "b", "sent_at": 1, "events": [msgspec.to_builtins(event)]}
    (taken,) = decode(msgspec.json.encode(body)).events
    assert taken == event
    assert [(item.item_id, item.position) for item in event.items] == [("c", 0), ("b", 1)]
    assert event.items[0].p == {"click": pytest.approx(0.74), "like": pytest.approx(0.9)}
    assert event.items[0].propensity == pytest.approx(1 / 3)
    assert served_event(slate("r", ["a", "b"])).items[0].propensity is None


def test_nobody_waits_for_a_collector_that_is_not_there() -> None:
    told, lost = [], []
    reporter = Reporter("http://127.0.0.1:1", "token", told.append, lost.append, waiting=4)
    before = time.monotonic()
    for place in range(50):
        reporter.put(slate(f"r{place}", ["a", "b"]))
    assert time.monotonic() - before < 1
    reporter.close()
    assert not told
    assert sum(lost) == 50
