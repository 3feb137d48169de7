"""Where a rollout's judge gets its figures: the collector's log, and the servers' own metrics."""

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collecting import ROOT, Server, action, seen, served
from ranking import RankServer, items_of

from understudy.config import load
from understudy.lake import Lake
from understudy.rollout.engagement import logged
from understudy.rollout.metrics import Counted, Tally, parsed, read
from understudy.rollout.state import ArmSeen, State

CONFIG = load(ROOT / "examples" / "collector.yaml")


def arms_of(*names: str) -> dict[str, ArmSeen]:
    return {name: ArmSeen() for name in names}


def test_what_people_did_is_counted_by_arm_and_user(tmp_path: Path) -> None:
    server = Server(tmp_path)
    look = logged(Lake.open_or_create(str(tmp_path / "empty")), CONFIG, ("click",))
    state = State.begin("r", "new", "old", time.time() - 60)
    nothing = {"canary": ArmSeen(requests=3), "baseline": ArmSeen()}
    assert look(state, time.time(), nothing) == nothing
    for place in range(120):
        arm = ("canary", "baseline", "stable")[place % 3]
        request = f"{arm}-{place}"
        events = [served(request, items=4, arm=arm, user_id=f"u{place % 15}", bucket=place % 100)]
        events += [seen(request, f"i{item}") for item in range(3)]
        events += [action(request, "i1", value=place)] if place % 2 else []
        assert server.send(f"b{place}", events).json()["accepted"] == len(events)
    server.stop()
    lake, now = Lake.open(str(tmp_path / "lake")), time.time()
    rows = server.rows("impressions")
    early = logged(lake, CONFIG, ("click",))(state, now, nothing)
    assert [one.users for one in early.values()] == [0, 0]  # nobody had time to answer yet
    found = logged(lake, CONFIG, ("click", "click.value"))(state, now + 2 * 3600, nothing)
    for arm in nothing:
        mine = rows[(rows.arm == arm) & rows.seen]
        clicked = {f"{arm}-{place}" for place in range(120) if place % 2}
        done = mine.request_id.isin(clicked) & (mine.item_id == "i1")
        weight = 1 / mine.negative_keep_rate.where(~done & (mine.slice != "random"), 1.0)
        outcomes = found[arm].outcomes["click"]
        assert outcomes.y == done.sum() == 20
        assert outcomes.n == pytest.approx(weight.sum())
        assert outcomes.users == mine.user_id.nunique() == 5
        assert outcomes.nn == pytest.approx((weight.groupby(mine.user_id).sum() ** 2).sum())
        dwell = found[arm].outcomes["click.value"]
        assert dwell.y == pytest.approx(mine[done].request_id.str.split("-").str[1].astype(float).sum())
        assert dwell.n == pytest.approx(outcomes.n)
        assert set(found[arm].calibration) == {"click"}
        assert found[arm].calibration["click"].n == pytest.approx((weight * mine.p_click).sum(), rel=1e-5)
    others = logged(lake, CONFIG, ("click",), ("stable", "previous"))(
        state, now + 2 * 3600, arms_of("stable", "previous")
    )
    assert [one.users for one in others.values()] == [5, 0]
    late = State.begin("r", "new", "old", now + 60)
    assert logged(lake, CONFIG, ("click",))(late, now + 2 * 3600, nothing)["canary"].users == 0


def test_values_and_predictions_that_are_no_numbers_count_for_nothing(tmp_path: Path) -> None:
    """As a log holds them that another program wrote: the collector takes none."""
    server = Server(tmp_path)
    for place in range(8):
        request = f"r{place}"
        events = [served(request, items=2, arm=("canary", "baseline")[place % 2], user_id=f"u{place}")]
        events += [seen(request, "i0"), seen(request, "i1"), action(request, "i0", value=place + 1.0)]
        assert server.send(f"b{place}", events).json()["accepted"] == 4
    server.stop()
    lake, now = Lake.open(str(tmp_path / "lake")), time.time()
    absurd = {
        "actions": ("value", {2.0: float("nan"), 3.0: float("inf"), 4.0: -float("inf")}),
        "impressions": ("p_click", {"r4": float("nan"), "r5": float("inf"), "r6": 7.0}),
    }
    for table, (column, changed) in absurd.items():
        for path in Path(lake.path("tables", table)).rglob("*.parquet"):
            rows = pq.read_table(path)
            key = rows[column if table == "actions" else "request_id"].to_pylist()
            values = [changed.get(of, value) for of, value in zip(key, rows[column].to_pylist(), strict=True)]
            place = rows.schema.get_field_index(column)
            pq.write_table(
                rows.set_column(place, rows.schema.field(place), pa.array(values, rows.schema.field(place).type)), path
            )
    state = State.begin("r", "new", "old", now - 60)
    found = logged(lake, CONFIG, ("click", "click.value"))(state, now + 2 * 3600, arms_of("canary", "baseline"))
    assert [found[arm].outcomes["click.value"].y for arm in found] == [1 + 5 + 7, 6 + 8]
    assert [found[arm].outcomes["click"].y for arm in found] == [4, 4]
    assert [found[arm].calibration["click"].y for arm in found] == [2, 3]
    assert all(found[arm].calibration["click"].users == known for arm, known in (("canary", 2), ("baseline", 3)))


def test_servers_metrics_since_the_last_look(released: Path) -> None:
    server = RankServer(released)
    before = read(server.url)
    assert before is not None
    items = items_of(released)[:10]
    predicted = 0.0
    for place in range(20):
        found = server.rank(f"u{place}", items).json()
        predicted += sum(found["probabilities"]["click"])
    server.client.post("/v1/rank", json={})
    after = read(server.url)
    assert after is not None
    tally, state = Tally(), State.begin("r", "new", "old", 0.0)
    tally.arms(state, {"canary": {server.url: before}})
    arm = tally.arms(state, {"canary": {server.url: after}})["canary"]
    assert (arm.requests, arm.errors, arm.scored) == (21, 0, 20)
    assert arm.scores["click"] == pytest.approx(predicted / 200, rel=1e-4)
    assert arm.p99_ms is not None
    assert 0.5 < arm.p99_ms < 10_000
    assert server.stop() == 0
    assert read(server.url) is None
    assert tally.arms(state, {"canary": {server.url: parsed("")}})["canary"].requests == 0  # it started anew


def test_a_percentile_is_interpolated_within_its_bucket() -> None:
    assert Counted(buckets={0.01: 50, 0.02: 100, float("inf"): 100}).p99_ms() == pytest.approx(19.8)
    assert Counted(buckets={0.01: 50, 0.02: 98, float("inf"): 100}).p99_ms() == pytest.approx(20.0)
    assert Counted().p99_ms() is None
