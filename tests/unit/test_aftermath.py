"""The watch over what was promoted, beside the holdout that keeps the release before it."""

from dataclasses import replace
from typing import Any

import pytest
from test_judge import CONFIG, DAY, arm, begun

from understudy.rollout.aftermath import Aftermath
from understudy.rollout.state import ArmSeen, State

PROMOTED = begun(phase="promoted", candidate="new" * 8, stable="old" * 8, data_s=10 * DAY)


class Log:
    """What people did in the two arms; notes since when it was asked."""

    def __init__(self, stable: ArmSeen, previous: ArmSeen) -> None:
        self.arms, self.since_s = {"stable": stable, "previous": previous}, list[float]()

    def __call__(self, state: State, now_s: float, arms: dict[str, ArmSeen]) -> dict[str, ArmSeen]:
        assert set(arms) == {"stable", "previous"}
        self.since_s.append(state.step_s)
        return self.arms


def watched(log: Log, state: State = PROMOTED, production: str = PROMOTED.candidate, days: int = 30) -> list[Any]:
    """What is said, a look every six hours."""
    aftermath = Aftermath(CONFIG, ("click",), log)
    said = [aftermath.watch(state, production, state.data_s + tick * DAY / 4) for tick in range(4 * days)]
    return [one for one in said if one is not None]


def test_production_that_is_shown_to_be_worse_is_told_once() -> None:
    log = Log(arm(0.09), arm(0.1, 5_000))
    (text,) = watched(log)
    assert text.startswith("production newnewnewnew is shown to be worse: click -10.0")
    assert "against oldoldoldold, which the holdout keeps; `understudy releases rollback`" in text
    assert set(log.since_s) == {PROMOTED.data_s}


def test_nothing_is_said_of_what_is_as_good_and_it_is_looked_at_once_a_day() -> None:
    log = Log(arm(0.1), arm(0.1, 5_000))
    assert watched(log, days=7) == []
    assert len(log.since_s) == 7


def test_the_watch_ends_after_as_long_as_a_rollout_may_take() -> None:
    log = Log(arm(0.1), arm(0.1, 5_000))
    watched(log, days=60)
    assert len(log.since_s) == 21 + 1  # `max_duration`, with both ends


def test_too_few_people_say_nothing() -> None:
    assert watched(Log(arm(0.05), arm(0.1, CONFIG.min_users - 1))) == []


@pytest.mark.parametrize(
    ("state", "production"),
    [
        (replace(PROMOTED, phase="aborted"), PROMOTED.candidate),
        (replace(PROMOTED, phase="running"), PROMOTED.candidate),
        (PROMOTED, PROMOTED.stable),  # somebody has rolled back
    ],
)
def test_nobody_watches_what_is_not_a_promotion_in_force(state: State, production: str) -> None:
    log = Log(arm(0.05), arm(0.1))
    assert watched(log, state, production) == []
    assert log.since_s == []
