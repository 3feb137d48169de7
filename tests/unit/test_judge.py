"""The judge: cases of a rollout, and what holds of every one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.experiments import Outcomes, difference
from understudy.rollout.config import Guardrails, Rollout
from understudy.rollout.judge import abort, harms, judge, pause, promote, resume
from understudy.rollout.state import ENDED, ArmSeen, Seen, State, arms_of
from understudy.section import duration_s

CONFIG = Rollout(guardrails=Guardrails(ticks=3))
HEADS = ("click",)
DAY = 86_400.0
FREE = 96


def outcomes(ratio: float, users: int) -> Outcomes:
    """Users with ten impressions each, and as much chance as coins have."""
    n, y = 10.0 * users, 10.0 * users * ratio
    return Outcomes(users, y, n, y * (1 - ratio) + 100 * users * ratio**2, 100.0 * users, 100.0 * users * ratio)


def arm(ratio: float = 0.1, users: int = 100_000, **changes: Any) -> ArmSeen:
    whole = {"requests": 1000, "errors": 1, "p99_ms": 10.0, "memory_mb": 300.0, "restarts": 0, "users": users}
    whole |= {"scores": {"click": 0.1}, "scored": 5000, "outcomes": {"click": outcomes(ratio, users)}}
    return ArmSeen(**{**whole, **changes})


def begun(**changes: Any) -> State:
    return replace(State.begin("r", "new", "old", 0.0), **changes)


def run(state: State, ticks: int, canary: ArmSeen, baseline: ArmSeen | None = None, every_s: float = DAY) -> list[Any]:
    """Decisions of so many ticks."""
    found = []
    for tick in range(1, ticks + 1):
        seen = Seen(state.started_s + tick * every_s, canary, baseline or arm())
        decision = judge(CONFIG, HEADS, state, seen)
        found.append(decision)
        state = decision.state
        if state.ended:
            break
    return found


def test_a_release_that_is_no_worse_climbs_and_is_promoted() -> None:
    found = run(begun(), 30, arm(0.1))
    said = [sentence for decision in found for sentence in decision.sentences]
    assert [text.split(":")[0] for text in said] == ["step 2", "step 3", "step 4", "promoted"]
    assert "5% of users, after 100000 users in either arm without harm" in said[0]
    assert "no worse than the margin of 3.0%: click +0.00% [" in said[-1]
    assert found[-1].state.reason == ""


def test_a_promotion_pays_for_every_look() -> None:
    """At a level of 5% in all: what one look alone would promote, one of many does not."""

    def lower(users: int, tail: float) -> float:
        found = difference(outcomes(0.1, users), outcomes(0.1, users))
        assert found is not None
        return found.bounds(tail)[0]

    looks = duration_s(CONFIG.max_duration) / duration_s(CONFIG.look)
    sizes = range(CONFIG.min_users, 100_000, 100)
    few = next(users for users in sizes if lower(users, CONFIG.alpha) > -CONFIG.margin)
    enough = next(users for users in sizes if lower(users, CONFIG.alpha / looks) > -CONFIG.margin)
    assert few < enough
    for users, phase in ((few, "running"), (enough - 100, "running"), (enough, "promoted")):
        *_, last = run(begun(step=3), 3, arm(0.1, users), arm(0.1, users))
        assert last.state.phase == phase


def test_a_baseline_of_whom_few_were_scored_accuses_nobody() -> None:
    found = run(begun(), 10, arm(scores={"click": 0.13}), arm(scored=CONFIG.guardrails.min_scored - 1), every_s=60)
    assert not found[-1].state.ended


def test_harm_ends_it_at_any_step_and_marks_the_release() -> None:
    for step in range(4):
        *_, last = run(begun(step=step), 3, arm(0.09))
        assert (last.state.phase, last.state.reason) == ("aborted", "harm")
        assert last.sentences[0].startswith("aborted: harm: click -10.00% [")


def test_more_of_a_harmful_head_is_harm() -> None:
    config = Rollout(harmful=("hide",))
    worse = {"click": outcomes(0.1, 100_000), "hide": outcomes(0.012, 100_000)}
    usual = {"click": outcomes(0.1, 100_000), "hide": outcomes(0.01, 100_000)}
    decision = judge(config, HEADS, begun(), Seen(DAY, arm(outcomes=worse), arm(outcomes=usual)))
    assert (decision.state.phase, decision.state.reason) == ("aborted", "harm")
    assert "hide +20.00%" in decision.sentences[0]


FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("errors", {"errors": 50}, "other"),
    ("latency", {"p99_ms": 80.0}, "other"),
    ("memory", {"memory_mb": 2000.0}, "other"),
    ("restarts", {"restarts": 5}, "other"),
    ("scores click", {"scores": {"click": 0.13}}, "scoring"),
    (
        "calibration click",
        {"calibration": {"click": outcomes(0.13, 100_000)}},
        "scoring",
    ),
]


@pytest.mark.parametrize(("name", "fault", "reason"), FAULTS, ids=[name for name, *_ in FAULTS])
def test_a_fault_ends_it_after_some_ticks_in_a_row(name: str, fault: dict[str, Any], reason: str) -> None:
    usual = arm(calibration={"click": outcomes(0.1, 100_000)})
    found = run(begun(), 10, arm(**fault), usual, every_s=60)
    assert len(found) == 3
    assert (found[-1].state.phase, found[-1].state.reason) == ("aborted", reason)
    assert found[-1].sentences[0].startswith(f"aborted: {name}: ")
    assert found[-1].sentences[0].endswith("3 ticks in a row")


def test_a_moment_s_fault_is_forgiven_but_holds_the_step() -> None:
    state = begun(harmless=True)
    for tick in range(1, 20):
        canary = arm(p99_ms=80.0 if tick % 3 else 10.0)
        state = judge(CONFIG, HEADS, state, Seen(DAY * 2 + tick * 60, canary, arm())).state
        assert not state.ended
    assert state.step == 1  # it moved in a tick without a strike


def test_errors_that_the_baseline_has_too_are_nobody_s_fault() -> None:
    found = run(begun(), 20, arm(errors=60), arm(errors=50), every_s=60)
    assert not found[-1].state.ended


def test_no_data_is_neither_pass_nor_harm_and_ends_after_its_own_limit() -> None:
    found = run(begun(), 50, ArmSeen(), ArmSeen(), every_s=3600)
    assert (found[-1].state.phase, found[-1].state.reason) == ("rejected", "")
    assert found[-1].sentences == ("rejected: no verdict: nobody was served for 1d",)
    assert len(found) == 25


def test_no_step_ends_before_the_guardrails_had_something_to_say() -> None:
    found = run(begun(), 60, arm(scored=100))
    assert (found[-1].state.phase, found[-1].state.step) == ("rejected", 0)


def test_what_can_not_be_told_is_rejected_in_the_end() -> None:
    found = run(begun(), 60, arm(0.1, users=600))
    assert (found[-1].state.phase, found[-1].state.reason) == ("rejected", "")
    assert "no verdict after 21d" in found[-1].sentences[0]


def test_a_pause_holds_the_step_but_not_the_guardrails() -> None:
    paused = pause(begun(), "ada").state
    assert run(paused, 10, arm())[-1].state.step == 0
    assert run(paused, 10, arm(0.09))[-1].state.phase == "aborted"
    assert resume(paused, "ada").state.phase == "running"
    assert pause(begun(), "ada").sentences == ("paused by ada",)


NAN, INF = float("nan"), float("inf")
ONES = np.ones(1000)


def values(*, last: float = 1.0) -> Outcomes:
    """A thousand users with one impression and a value of 1 each, but for the last."""
    return Outcomes.of(np.append(ONES[1:], last), ONES)


@pytest.mark.parametrize("absurd", [NAN, INF, -INF, 1e155, 1e200, 1e308, 1e150, 1e5])
@pytest.mark.parametrize("whose", ["canary", "baseline", "both"])
def test_one_absurd_value_neither_promotes_nor_harms(absurd: float, whose: str) -> None:
    canary = arm(outcomes={"click": values(last=absurd if whose != "baseline" else 1.0)})
    baseline = arm(outcomes={"click": values(last=absurd if whose != "canary" else 1.0)})
    for config, judged in ((CONFIG, HEADS), (Rollout(harmful=HEADS), ("like",)), (Rollout(harmful=HEADS), ())):
        state = begun(step=3)
        for tick in range(1, 5):
            decision = judge(config, judged, state, Seen(tick * DAY, canary, baseline))
            state = decision.state
            assert (decision.sentences, state.phase, state.reason) == ((), "running", "")


def test_what_one_user_did_is_no_harm_though_the_interval_says_so() -> None:
    one = difference(values(), values(last=100_000.0))
    assert one is not None
    assert one.bounds(1e-3)[1] < -0.9
    seen = Seen(DAY, arm(outcomes={"click": values()}), arm(outcomes={"click": values(last=100_000.0)}))
    assert harms(CONFIG, HEADS, seen) == []
    several = Outcomes.of(np.append(ONES[1:], 2.0) * 1.2, ONES)
    assert harms(CONFIG, HEADS, Seen(DAY, arm(outcomes={"click": values()}), arm(outcomes={"click": several})))


@pytest.mark.parametrize("absurd", [NAN, INF, -INF])
@pytest.mark.parametrize("figure", ["requests", "errors", "p99_ms", "memory_mb", "restarts", "users"])
def test_a_figure_that_is_no_number_is_as_if_it_were_not_known(figure: str, absurd: float) -> None:
    shown = [run(begun(step=3), 3, replace(arm(), **{figure: value})) for value in (absurd, None)]
    assert shown[0] == shown[1]
    struck = replace(begun(), strikes={"latency": 2})
    assert judge(CONFIG, HEADS, struck, Seen(60, arm(p99_ms=NAN), arm())).state.strikes == {
        **struck.strikes,
        "errors": 0,
        "memory": 0,
        "restarts": 0,
        "scores click": 0,
    }


@pytest.mark.parametrize("absurd", [NAN, INF, 1e200, -0.5])
def test_a_mean_prediction_that_is_no_probability_holds_the_step(absurd: float) -> None:
    for one in (arm(scores={"click": absurd}), arm(scores={"click": 0.1, "like": absurd})):
        for canary, baseline in ((one, arm()), (arm(), one), (one, one)):
            last = run(begun(), 5, canary, baseline)[-1].state
            assert (last.phase, last.step, last.reason) == ("running", 0, "")


@pytest.mark.parametrize("now_s", [NAN, INF])
def test_a_clock_that_shows_no_time_decides_nothing(now_s: float) -> None:
    assert judge(CONFIG, HEADS, begun(), Seen(now_s, arm(0.05), arm())).state == begun()


numbers = st.one_of(st.floats(0, 1000), st.sampled_from([NAN, INF, -INF]))
seen_arms = st.builds(
    arm,
    st.floats(0.02, 0.3),
    st.integers(0, 200_000),
    requests=st.one_of(st.none(), st.integers(0, 5000)),
    errors=st.one_of(st.none(), st.integers(0, 50)),
    p99_ms=st.one_of(st.none(), numbers),
    memory_mb=st.one_of(st.none(), st.floats(0, 3000)),
    restarts=st.one_of(st.none(), st.integers(0, 5)),
    scores=st.dictionaries(st.just("click"), st.one_of(st.floats(0, 1), st.just(NAN))),
    scored=st.integers(0, 5000),
)
words = st.sampled_from([None, pause, resume, promote, abort])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 2 * DAY), seen_arms, seen_arms, words), max_size=30), st.integers(0, 3))
def test_whatever_happens(ticks: list[tuple[float, ArmSeen, ArmSeen, Any]], step: int) -> None:
    """Buckets only grow until the end, which is all-new or all-stable; an end is final; abort works from everywhere."""
    state, now = begun(step=step), 0.0
    buckets = set(arms_of(state, CONFIG).buckets["canary"])
    for wait_s, canary, baseline, word in ticks:
        now += wait_s
        before = state
        decision = judge(CONFIG, HEADS, state, Seen(now, canary, baseline))
        state = decision.state if word is None else word(decision.state, "ada").state
        assert State.from_json(state.to_json()) == state
        if before.ended:
            assert (state, decision.sentences) == (before, ())
        own = set(arms_of(state, CONFIG).buckets.get("canary", ()))
        if state.ended:
            assert len(own) == (FREE if state.phase == "promoted" else 0)
            assert arms_of(state, CONFIG).size("baseline") == 0
        else:
            assert buckets <= own
            buckets = own
            ended = abort(state, "ada").state
            assert (ended.phase, arms_of(ended, CONFIG).size("canary")) == ("rejected", 0)
        assert (state.phase in ENDED) == state.ended


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": (5, 5)}, "steps: expected rising numbers"),
        ({"steps": ()}, "steps: expected rising numbers"),
        ({"steps": (49,)}, "from 1 to 48"),
        ({"look": "soon"}, "expected a duration"),
        ({"judged": ("click",), "harmful": ("click",)}, "expected heads that are not judged, found click"),
    ],
)
def test_a_configuration_that_can_not_be_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Rollout(**given)
