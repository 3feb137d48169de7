"""The driver: see, judge, record, act; again at the next tick, until the rollout has ended.

It holds nothing that it could not find again: killed at any moment and started anew, it goes on from the record, and a
second driver loses the race for each entry without harm.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from understudy.errors import UnderstudyError, first_line
from understudy.experiments import Arms
from understudy.lake import Lake
from understudy.releases import aliases, quarantined
from understudy.rollout import judge
from understudy.rollout.config import Rollout
from understudy.rollout.ending import end
from understudy.rollout.record import Moved, Record
from understudy.rollout.state import Decision, Seen, State, arms_of, releases_of
from understudy.rollout.status import summary
from understudy.section import duration_s

__all__ = ["WORDS", "Driver", "Source", "Target"]

WORDS = {"pause": judge.pause, "resume": judge.resume, "promote": judge.promote, "abort": judge.abort}
_SETTLE_S = 900.0
_GLANCE_S = 2.0  # between two looks at whether a person has decided


class Target(Protocol):
    """Where a rollout takes place: servers, and the route to them."""

    def apply(self, arms: Arms, releases: dict[str, str]) -> bool:
        """Bring servers and route to this; what is right already stays.

        Args:
            releases: arm → digest. An arm without buckets gets no server; the route leaves it before its servers end.

        Returns:
            whether all is so; otherwise it is on its way, and another call goes on.
        """


class Source(Protocol):
    """Where what happened is known from."""

    def see(self, state: State, now_s: float) -> Seen:
        """What was seen since the last look; what can't be reached is left out."""


@dataclass
class Driver:
    """Drives rollouts of one record.

    Args:
        judged: metrics that must not be worse.
        say: is told the judge's sentences.
        beat: is called as the loop turns, and between the parts of a tick; a loop that hangs calls it no more.
    """

    lake: Lake
    record: Record
    config: Rollout
    judged: tuple[str, ...]
    target: Target
    source: Source
    say: Callable[[str], None]
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    beat: Callable[[], None] = lambda: None
    warned: str = ""

    def drive(self, rollout_id: str) -> State:
        """Drive a rollout to its end; the state in which it ended.

        Servers that do not settle after it are not waited for longer than a quarter of an hour.
        """
        ended_s = math.inf
        while True:
            settled = False
            try:
                state, settled = self.tick(rollout_id)
                ended_s = min(ended_s, self.clock()) if state.ended else math.inf
                if state.ended and (settled or self.clock() - ended_s > _SETTLE_S):
                    return state
            except UnderstudyError as error:
                self.warn(error)
            self.wait(rollout_id, settled)

    def tick(self, rollout_id: str) -> tuple[State, bool]:
        """See, judge, record, act once; the state, and whether servers and route are as it says."""
        self.beat()
        number, state = self.record.load(rollout_id)
        if not state.ended:
            state = self._advanced(number, state)
        self.beat()
        try:
            settled = self.target.apply(arms_of(state, self.config), releases_of(state))
        finally:
            if state.ended:
                state = end(self.lake, self.record, state)
        return state, settled

    def _advanced(self, number: int, state: State) -> State:
        word = self.record.word()
        decision = self._asked(state, word)
        if decision is None:
            seen = self.source.see(state, self.clock())
            self.beat()
            self.record.saw(state.id, summary(arms_of(state, self.config), seen))
            decision = judge.judge(self.config, self.judged, state, seen)
        try:
            self.record.advance(number, state, decision, word)
        except Moved:
            _, state = self.record.load(state.id)
            self.say(f"another was first: {state.phase}, step {state.step + 1}")
            return state
        for sentence in decision.sentences:
            self.say(sentence)
        return decision.state

    def _asked(self, state: State, word: str | None) -> Decision | None:
        """What a person has decided, here or by what they did to the releases."""
        if word in WORDS:
            return WORDS[word](state, "a person")
        if word is not None:
            return Decision(state, (f"not understood: expected {', '.join(WORDS)}, found {word[:40]!r}",))
        production = aliases(self.lake).get("production")
        if production == state.candidate:
            return judge.promote(state, "whoever made it production meanwhile")
        if production is not None and production != state.stable:
            return judge.abort(state, f"whoever made {production[:12]} production meanwhile")
        if state.candidate in quarantined(self.lake):
            return judge.abort(state, "whoever put the candidate in quarantine")
        return None

    def wait(self, rollout_id: str, settled: bool) -> None:
        """Until the next tick, or until somebody else has decided; what is on its way goes on meanwhile."""
        until_s = self.clock() + duration_s(self.config.tick)
        number = -1
        while (left := until_s - self.clock()) > 0:
            self.beat()
            try:
                before, (number, state) = number, self.record.load(rollout_id)
                if not state.ended and (self.record.word() is not None or before not in (-1, number)):
                    return
                if not settled:
                    settled = self.target.apply(arms_of(state, self.config), releases_of(state))
                    if settled and state.ended:
                        return
            except UnderstudyError as error:
                self.warn(error)
            self.sleep(min(left, _GLANCE_S))

    def warn(self, error: BaseException) -> None:
        """Say what stands in the way, once; it is tried again."""
        if str(error) != self.warned:
            self.say(f"later: {first_line(error)}")
        self.warned = str(error)
