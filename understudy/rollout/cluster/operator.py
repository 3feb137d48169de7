"""The driver as a process that stays: it begins what a person or a pipeline asks for, drives it, and keeps the route.

Between two rollouts ``stable`` serves what the lake calls production, so that a rollback moves the servers too, and
holdouts keep their releases. What is said goes to stderr and, about a rollout, into its history.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from understudy.alerts import tell
from understudy.errors import BadInput, UnderstudyError, first_line
from understudy.experiments import ramp
from understudy.releases import aliases, quarantined
from understudy.releases.lifecycle import rollback
from understudy.rollout.beginning import begin
from understudy.rollout.cluster.record import START, WORD, ClusterRollouts
from understudy.rollout.driver import Driver
from understudy.rollout.record import Moved
from understudy.rollout.state import State, releases_of

__all__ = ["Operator"]

_LOOK_S = 5.0
ROLLBACK = "rollback"


@dataclass
class Operator:
    """Args: driver: whose record is a ``ClusterRollouts``."""

    driver: Driver
    record: ClusterRollouts
    failed: str = ""  # why the last look failed

    def run(self, until: Callable[[], bool] = lambda: False, sleep: Callable[[float], None] = time.sleep) -> None:
        """Until the process ends; what fails is said once, and tried again."""
        while not until():
            try:
                self.look()
                self.failed = ""
            except (UnderstudyError, Moved) as error:
                if str(error) != self.failed:
                    self.driver.say(f"later: {first_line(error)}")
                self.failed = str(error)
            sleep(_LOOK_S)

    def look(self) -> None:
        """Once: a tick of the rollout that is on, and the wait for the next; or keep what is between rollouts."""
        last = self.record.last()
        if last is not None and not (last.ended and last.told):
            state, settled = self.driver.tick(last.id)
            if not state.ended:
                self.driver.wait(last.id, settled)
            return
        asked = self.record.asked_to_start()
        if asked is not None:
            self._begin(asked)
            return
        if self.record.word() is not None:
            self._word(str(self.record.word()))
        self._keep(last)

    def _begin(self, asked: str) -> None:
        try:
            state = begin(self.driver.lake, self.record, asked, self.driver.clock())
            self.driver.say(f"rollout {state.id} begins")
        except BadInput as error:
            self.record.forget(START, asked)
            self.driver.say(f"not begun: {first_line(error)}")

    def _word(self, word: str) -> None:
        """Between rollouts only a rollback makes sense."""
        if word == ROLLBACK:
            digest = rollback(self.driver.lake)
            text = f"rolled back to {digest[:12]} by a person"
            tell(text)
        else:
            text = f"not understood: no rollout is on; expected {ROLLBACK}, found {word[:40]!r}"
        self.driver.say(text)
        self.record.forget(WORD, word)

    def _keep(self, last: State | None) -> None:
        lake = self.driver.lake
        production, sick = aliases(lake).get("production"), quarantined(lake)
        if production is None:
            return
        releases = {"stable": production}
        if last is None:
            arms = ramp("", 0, 0)
        else:
            arms = ramp(last.id, 0, self.driver.config.held, str(int(last.month_s)))
            held = {arm: one for arm, one in releases_of(last).items() if arm in arms.buckets}
            releases |= {arm: production if one in sick else one for arm, one in held.items()}
        self.driver.target.apply(arms, releases)
