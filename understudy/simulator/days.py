"""A simulated feed that goes on day by day: requests, slates, outcomes, the log, and what serving can read of it."""

from collections.abc import Callable
from dataclasses import dataclass

from understudy.config import Config
from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.section import duration_s
from understudy.simulator import feed
from understudy.simulator.config import World
from understudy.simulator.live import Live, inputs_of
from understudy.simulator.rankers import Popularity
from understudy.simulator.traffic import Outcomes, Ranker, Requests, requests_of, respond
from understudy.simulator.world import ACTIONS, new_state, next_day

__all__ = ["Day", "Days", "world_of"]

_SPAN_S = 3_600

Before = Callable[[Requests], None]
After = Callable[[Requests, Outcomes, int], None]  # with the number of rows that the log keeps


@dataclass(frozen=True)
class Day:
    """What happened on a day.

    Args:
        name: ``YYYY-MM-DD``.
        rows: what was logged, as ``log_day`` counts it; None: the lake held the day already.
    """

    name: str
    requests: Requests
    outcomes: Outcomes
    rows: dict[str, int] | None


class Days:
    """The world of a configuration, from its first day on.

    The same configuration and rankers make the same days, so whoever begins again from the first day finds
    what the lake holds already.
    """

    def __init__(self, config: Config, lake: Lake) -> None:
        self.config, self.lake, self.world = config, lake, world_of(config)
        self.state = new_state(self.world)
        self.popularity = Popularity()
        self.begun = False
        self.present = set(feed.logged_days(lake))
        window_s = duration_s(config.labels.attribution_window)
        inputs = inputs_of(config.heads, config.time_zone, config.features)
        self.live = Live(inputs, config.features.refresh_s(), window_s, self.state, feed.start_us(self.world))
        self.span_s = min(config.features.refresh_s() or _SPAN_S, _SPAN_S)

    def next(
        self,
        ranker: Ranker,
        release: str | None = None,
        before: Before = lambda _: None,
        after: After = lambda *_: None,
    ) -> Day:
        """Let the next day happen and log it.

        Args:
            ranker: ranks the requests of an hour, with the features as of its last refresh.
            release: digest of the release that ranks, for the log.
            before: is shown each span's requests before they are answered.
            after: is shown what came of them, with the features still as they were.
        """
        if self.begun:
            next_day(self.state, self.world)
        self.begun = True
        assert self.config.logging is not None, "checked by world_of"
        requests, outcomes = requests_of(self.state, self.world), []
        for span in requests.spans(self.span_s):
            self.live.advance(int(feed.times_us(self.world, span)[0]) - 1)
            before(span)
            share = self.config.logging.random_share
            outcomes.append(respond(self.state, self.world, span, ranker(span), share))
            shown = feed.shown_of(self.config, self.world, span, outcomes[-1])
            after(span, outcomes[-1], len(shown.us))
            self.live.observe(shown)
        done = Outcomes.join(outcomes)
        self.popularity.observe(done)
        name, rows = feed.day_of(self.world, self.state.day), None
        if name not in self.present:
            rows = feed.log_day(self.lake, self.config, self.world, self.state.day, requests, done, release=release)
        return Day(name, requests, done, rows)


def world_of(config: Config) -> World:
    """The world that a configuration describes.

    Raises:
        BadInput: it has none, or names other actions than the world knows.
    """
    if config.world is None or config.logging is None:
        raise BadInput(
            "configuration: expected the keys world and logging, found one missing; see examples/simulated.yaml"
        )
    if unknown := sorted(set(config.heads) - set(ACTIONS)):
        raise BadInput(f"logging.heads: expected some of {', '.join(ACTIONS)}, found {unknown[0]!r}; correct its name")
    return config.world
