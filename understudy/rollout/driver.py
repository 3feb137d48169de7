"""The driver: see, judge, record, act; again at the next tick, until the rollout has ended.

It holds nothing that it could not find again: killed at any moment and started anew, it goes on from the record, and a
second driver loses the race for each entry without harm.
"""

import time
from collections.abc import Callable
from typing import Protocol

from understudy.experiments import Arms
from understudy.experiments.arms import HOLDOUTS
from understudy.lake import Lake
from understudy.rollout.config import Rollout
from understudy.rollout.ending import end
from understudy.rollout.judge import judge
from understudy.rollout.record import Moved, Rollouts
from understudy.rollout.state import Seen, State, arms_of
from understudy.section import duration_s

__all__ = ["Source", "Target", "drive"]


class Target(Protocol):
    """Where a rollout takes place: servers, and the route to them."""

    def apply(self, arms: Arms, releases: dict[str, str]) -> None:
        """Bring servers and route to this; what is right already stays.

        Args:
            releases: arm → digest. An arm without buckets gets no server; the route leaves it before its servers end.
        """


class Source(Protocol):
    """Where what happened is known from."""

    def see(self, state: State, now_s: float) -> Seen:
        """What was seen since the last look; what can't be reached is left out."""


def drive(
    lake: Lake,
    rollout_id: str,
    config: Rollout,
    judged: tuple[str, ...],
    target: Target,
    source: Source,
    say: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.time,
    wait: Callable[[float], None] = time.sleep,
) -> State:
    """Drive a rollout to its end; the state in which it ended.

    Args:
        judged: metrics that must not be worse.
        say: is told the judge's sentences.
    """
    rollouts = Rollouts(lake)
    number, state = rollouts.load(rollout_id)
    while True:
        target.apply(arms_of(state, config), releases_of(state))
        if state.ended:
            end(lake, state, _last(rollouts, rollout_id))
            return state
        decision = judge(config, judged, state, source.see(state, clock()))
        try:
            number = rollouts.advance(number, state, decision)
            state = decision.state
            for sentence in decision.sentences:
                say(sentence)
        except Moved:
            number, state = rollouts.load(rollout_id)
            say(f"another was first: {state.phase}, step {state.step + 1}")
            continue
        if not state.ended:
            wait(duration_s(config.tick))
            newest, recorded = rollouts.load(rollout_id)
            if newest != number:  # a person's word
                number, state = newest, recorded


def releases_of(state: State) -> dict[str, str]:
    """Arm → digest. Once promoted the candidate is everybody's but the holdouts'; the baseline is stable's release."""
    stable = state.candidate if state.phase == "promoted" else state.stable
    held = dict.fromkeys(HOLDOUTS, state.stable)
    return {"stable": stable, "canary": state.candidate, "baseline": state.stable, **held}


def _last(rollouts: Rollouts, rollout_id: str) -> str:
    history = rollouts.history(rollout_id)
    return str(history[-1]["said"]) if history else ""
