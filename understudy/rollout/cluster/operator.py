"""The driver as a process that stays: it begins what a person or a pipeline asks for, drives it, and keeps the route.

Between two rollouts ``stable`` serves what the lake calls production, so that a rollback moves the servers too,
holdouts keep their releases, and what was promoted is watched. What is said goes to stderr and, about a rollout, into
its history.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from understudy.alerts import tell
from understudy.errors import BadInput, first_line
from understudy.experiments import ramp
from understudy.releases import aliases, quarantined
from understudy.releases.lifecycle import rollback
from understudy.rollout.aftermath import Aftermath
from understudy.rollout.beginning import begin
from understudy.rollout.cluster.record import START, WORD, ClusterRollouts
from understudy.rollout.driver import Driver
from understudy.rollout.state import State, held_of, releases_of

__all__ = ["Operator"]

_LOOK_S = 5.0
ROLLBACK = "rollback"


@dataclass
class Operator:
    """The driver's loop.

    Args:
        driver: whose record is a ``ClusterRollouts``.
        aftermath: of promotions; None: nobody watches.
        warned: what was said of old names at the last look.
    """

    driver: Driver
    record: ClusterRollouts
    aftermath: Aftermath | None = None
    warned: tuple[str, ...] = ()

    def run(self, until: Callable[[], bool] = lambda: False, sleep: Callable[[float], None] = time.sleep) -> None:
        """Until the process ends; what fails is said once, and tried again."""
        while not until():
            try:
                self.driver.beat()
                self.look()
                self.driver.warned = ""
            except Exception as error:  # whatever it is, a canary on stage must not be left alone
                self.driver.warn(error)
            sleep(_LOOK_S)

    def look(self) -> None:
        """Once: a tick of the rollout that is on, and the wait for the next; or keep what is between rollouts."""
        self._tell_of_old_names()
        last = self.record.last()
        if last is None or (last.ended and last.told):
            self._between(last)
            return
        ended = settled = False
        try:
            state, settled = self.driver.tick(last.id)
            ended = state.ended
        except Exception as error:
            self.driver.warn(error)
        if not ended:
            self.driver.wait(last.id, settled)

    def _tell_of_old_names(self) -> None:
        """Say once of each wish that its name has changed; one that counts no more is taken off, and answered."""
        asked = self.record.old_names()
        for one in asked:
            if one.refusal:
                self.record.refuse(one)
            if (text := one.refusal or one.warning) not in self.warned:
                self.driver.say(text)
        self.warned = tuple(one.warning for one in asked)

    def _between(self, last: State | None) -> None:
        asked, word = self.record.asked_to_start(), self.record.word()
        if word is not None:
            self._word(word)
        elif asked is not None:
            self._begin(asked)
            return
        self._watch(last, self._keep(last))

    def _watch(self, last: State | None, production: str | None) -> None:
        if self.aftermath is None or last is None or production is None:
            return
        self.driver.beat()
        text = self.aftermath.watch(last, production, self.driver.clock())
        if text is not None:
            tell(text)
            self.record.say(text)
            self.driver.say(text)

    def _begin(self, asked: str) -> None:
        driver = self.driver
        try:
            state = begin(driver.lake, self.record, driver.config, asked, driver.clock(), asked)
            driver.say(f"rollout {state.id} begins")
        except BadInput as error:
            text = f"not begun: {first_line(error)}"
            self.record.take(START, asked, text)
            driver.say(text)

    def _word(self, word: str) -> None:
        """Between rollouts only a rollback makes sense; the word is taken first: done twice, it undoes itself."""
        if word != ROLLBACK:
            text = f"not understood: no rollout is on; expected {ROLLBACK}, found {word[:40]!r}"
            self.record.take(WORD, word, text)
            self.driver.say(text)
            return
        self.record.take(WORD, word)
        try:
            text = f"rolled back to {rollback(self.driver.lake)[:12]} by a person"
            tell(text)
        except BadInput as error:
            text = f"not rolled back: {first_line(error)}"
        self.record.say(text)
        self.driver.say(text)

    def _keep(self, last: State | None) -> str | None:
        """Servers and holdouts as they are between rollouts; production's digest, where there is one."""
        lake = self.driver.lake
        production, sick = aliases(lake).get("production"), quarantined(lake)
        if production is None:
            return None
        releases = {"stable": production}
        if last is None:
            arms = ramp("", 0, 0)
        else:
            arms = ramp(last.id, 0, held_of(last, self.driver.config), str(int(last.month_s)))
            held = {arm: one for arm, one in releases_of(last).items() if arm in arms.buckets}
            releases |= {arm: production if one in sick else one for arm, one in held.items()}
        self.driver.target.apply(arms, releases)
        return production
