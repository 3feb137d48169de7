"""The closed loop: weeks of a simulated feed, each ranked by the release that the weeks before have made.

Before the first release, popularity ranks. The first release, frozen, competes on the same requests with
features as fresh as production's: what it loses is what retraining is worth.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.config import Config
from understudy.lake import Lake
from understudy.simulator import feed
from understudy.simulator.ceiling import Ceiling
from understudy.simulator.contest import Contest
from understudy.simulator.days import Days
from understudy.simulator.scoring import Model, feeds_of, ranked_by, release_model
from understudy.simulator.traffic import Outcomes, Ranker, Requests

__all__ = ["Settings", "Week", "run_weeks"]

DAYS = 7
Say = Callable[[str], None]
Retrain = Callable[[str], str]  # a window's last day → digest of the release in production


@dataclass(frozen=True)
class Settings:
    """How the loop is run.

    Args:
        weeks: with a release on stage; one more comes before them.
        common_share: of requests on which rankers compete.
        ceiling: the weeks that have one: ``last``, ``every`` or ``none``. It takes longer than a release.
        times: rows of the ceiling per row of the product.
    """

    weeks: int = 3
    common_share: float = 0.1
    ceiling: str = "last"
    times: int = 20

    def has_ceiling(self, week: int) -> bool:
        return self.ceiling == "every" or (self.ceiling == "last" and week == self.weeks)


@dataclass(frozen=True)
class Week:
    """A week's figures.

    Args:
        number: 0 is ranked by popularity.
        release: digest of the release that ranked; None: popularity.
        figures: per ranker, as ``Contest.figures`` gives them.
        days: per day, each ranker's share of the oracle's lift.
    """

    number: int
    first_day: str
    release: str | None
    figures: dict[str, Any]
    days: dict[str, dict[str, float]]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class _Loop:
    def __init__(self, config: Config, lake: Lake, settings: Settings) -> None:
        self.config, self.lake, self.settings = config, lake, settings
        self.days = Days(config, lake)
        self.ceiling = Ceiling(config.training, self.days.live.inputs, settings.times, config.window.days)

    def week(self, number: int, ranker: Ranker, release: str | None, models: dict[str, Model], say: Say) -> Week:
        days, world = self.days, self.days.world
        contest = Contest(days.state, world, self.config.heads, models, self.settings.common_share)

        def before(span: Requests) -> None:
            chosen = contest.chosen(span)
            contest.compare(chosen, feeds_of(days.live, world, chosen) if models else {}, days.popularity)

        def after(span: Requests, outcomes: Outcomes, kept: int) -> None:
            if self._teaches_ceiling(days.state.day):
                self.ceiling.gather(days.state, world, days.live, span, kept)
            random = np.flatnonzero(outcomes.random)
            if models and len(random):
                self._calibrate(contest, span.take(random), outcomes.take(random))

        by_day: dict[str, dict[str, float]] = {}
        for _ in range(DAYS):
            day = days.next(ranker, release, before, after)
            by_day[day.name] = contest.lifts(days.state.day)
            own = by_day[day.name]["refreshed" if models else "popularity"]
            say(f"{day.name}: {len(day.requests)} requests, {own:.0%} of the oracle's lift over random")
        feed.log_attributes(self.lake, self.config, days.state)
        return Week(number, min(by_day), release, contest.figures(), by_day)

    def _teaches_ceiling(self, day: int) -> bool:
        """Whether the day lies in the window of a ceiling that is still to come."""
        following = range(day // DAYS + 1, self.settings.weeks + 1)
        return any(self.settings.has_ceiling(n) and day >= n * DAYS - self.config.window.days for n in following)

    def _calibrate(self, contest: Contest, requests: Requests, outcomes: Outcomes) -> None:
        us = feed.times_us(self.days.world, requests)
        feeds = self.days.live.feeds(requests.users, requests.surfaces, us, outcomes.items)
        feeds["position"][:] = np.tile(np.arange(outcomes.items.shape[1]), len(requests))
        contest.calibrate(outcomes, feeds)


def run_weeks(
    config: Config, lake: Lake, settings: Settings, retrain: Retrain, say: Say, done: Callable[[Week], None]
) -> tuple[list[Week], Days]:
    """Run the weeks; each is handed to ``done`` when it ends. The feed can go on after them.

    Begun again on the same lake, it finds the days and the releases that are there.

    Args:
        retrain: runs the pipeline for a window.
    """
    loop = _Loop(config, lake, settings)
    say("week 0: popularity ranks")
    weeks = [loop.week(0, loop.days.popularity, None, {}, say)]
    done(weeks[-1])
    live, world = loop.days.live, loop.days.world
    frozen: Model | None = None
    for number in range(1, settings.weeks + 1):
        release = retrain(feed.day_of(world, loop.days.state.day))
        refreshed = release_model(lake, release, live)
        frozen = frozen or refreshed
        models = {"refreshed": refreshed, "frozen": frozen}
        if settings.has_ceiling(number):
            say(f"training the ceiling on {loop.ceiling.rows()} true probabilities")
            models["ceiling"] = loop.ceiling.fit()
        say(f"week {number}: release {release[:12]} ranks")
        weeks.append(loop.week(number, ranked_by(refreshed, live, world), release, models, say))
        done(weeks[-1])
    return weeks, loop.days
