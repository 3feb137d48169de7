"""A day's requests, the slates that a ranker makes of them, and what people do.

Whoever ranks is a plain function from requests to scores, so that a release, the truth itself, chance,
popularity, or a server over HTTP can stand there.

Shapes: R requests, N candidates, K slots, A actions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from understudy.logs.keep import is_random
from understudy.simulator.config import World
from understudy.simulator.world import ACTIONS, SURFACES, State, truth

__all__ = [
    "LOOKS",
    "UTILITY",
    "Outcomes",
    "Ranker",
    "Requests",
    "Scores",
    "moment",
    "requests_of",
    "respond",
    "slates",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.object_]

UTILITY = {"click": 1.0, "hide": -4.0, "save": 4.0}  # what an action is worth to the feed
LOOKS = 0.92  # chance to look at the next slot
_DELAY_S = {"click": 20.0, "hide": 15.0, "save": 2_400.0}
_SHARES = np.array([0.6, 0.15, 0.25])
_DWELL_S = 14.0
_WRONG_CLOCK, _CLOCK_ERROR_S = 0.03, 3.0


@dataclass(frozen=True)
class Requests:
    """Requests of one span of time, in order.

    Args:
        ids: (R,) texts. users: (R,). surfaces: (R,). time_days: (R,) since the start of day 0.
        candidates: (R, N) items.
    """

    ids: pa.StringArray
    users: Integers
    surfaces: Integers
    time_days: Floats
    candidates: Integers

    def __len__(self) -> int:
        return len(self.users)

    def take(self, at: npt.NDArray[np.int64]) -> "Requests":
        """The requests at the given places."""
        ids = self.ids.take(pa.array(at))
        return Requests(ids, self.users[at], self.surfaces[at], self.time_days[at], self.candidates[at])

    def spans(self, span_s: int) -> "list[Requests]":
        """The requests by span of time, such as hours; spans without requests are left out."""
        span = np.floor(self.time_days * 86_400 / span_s)
        edges = np.flatnonzero(np.concatenate([[True], span[1:] != span[:-1]])) if len(self) else np.zeros(0, int)
        return [self.take(at) for at in np.split(np.arange(len(self)), edges[1:])] if len(self) else []


@dataclass(frozen=True)
class Scores:
    """What a ranker says of requests.

    Args:
        utility: (R, N); the highest is shown first.
        probabilities: (R, N, A) as predicted; None: the ranker predicts none.
        arms, releases: (R,) texts of who ranked each request; None: nobody asks.
    """

    utility: Floats
    probabilities: Floats | None = None
    arms: Texts | None = None
    releases: Texts | None = None


Ranker = Callable[[Requests], Scores]


@dataclass(frozen=True)
class Outcomes:
    """What came of the slates.

    Args:
        items: (R, K) in order of position. random: (R,) the random slice.
        seen: (R, K). done: (R, K, A). dwell_s: (R, K), 0 without a click.
        delay_s: (R, K, A) as logged: some clients have a wrong clock, of which the collector's correction
            leaves a few seconds.
        true: (R, K, A) probabilities at the shown position.
        predicted: (R, K, A); NaN where the ranker predicts none.
        arms, releases: (R,) texts of who ranked; None where nobody asks.
    """

    items: Integers
    random: Booleans
    seen: Booleans
    done: Booleans
    delay_s: Floats
    dwell_s: Floats
    true: Floats
    predicted: Floats
    arms: Texts
    releases: Texts

    def take(self, at: npt.NDArray[np.int64]) -> "Outcomes":
        """The outcomes of the requests at the given places."""
        return Outcomes(**{one.name: getattr(self, one.name)[at] for one in fields(self)})

    @classmethod
    def join(cls, parts: "Sequence[Outcomes]") -> "Outcomes":
        """Outcomes of spans that follow each other."""
        return cls(**{one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)})


def requests_of(state: State, config: World) -> Requests:
    """The requests of the state's day. An item is a candidate from the day after its birth."""
    rng = np.random.default_rng([config.seed, 2, state.day])
    weekend = state.day % 7 >= 5
    count = int(rng.poisson(config.requests_per_day * (1.2 if weekend else 0.92)))
    fresh = np.where(state.day - state.joined < 7, 1.5, 1.0)
    shares = state.activity * fresh
    users = rng.choice(len(shares), count, p=shares / shares.sum())
    hours = 1.15 + np.cos((np.arange(24) - 21) * 2 * np.pi / 24)
    hour = rng.choice(24, count, p=hours / hours.sum())
    time_days = np.sort(state.day + (hour + rng.random(count)) / 24)
    alive = np.flatnonzero((state.born >= state.day - config.item_life) & (state.born < state.day))
    width = min(config.candidates, len(alive))
    # A random stretch of a shuffled list: distinct items, without a shuffle per request.
    shuffled = rng.permutation(alive)
    step = rng.integers(1, max(2, len(alive) // width + 1), count)
    places = rng.integers(0, len(alive), count)[:, None] + step[:, None] * np.arange(width)
    candidates = shuffled[places % len(alive)]
    surfaces = rng.choice(len(SURFACES), count, p=_SHARES)
    ids = pa.array([f"r{state.day}-{place}" for place in range(count)], pa.string())
    return Requests(ids, users, surfaces, time_days, candidates)


def slates(requests: Requests, scores: Scores, config: World, random_share: float) -> tuple[Integers, Booleans]:
    """Places of the shown candidates (R, K), the best first, and which requests are the random slice."""
    random = is_random(requests.ids, random_share)
    utility = scores.utility.copy()
    rng = np.random.default_rng([config.seed, 3, moment(requests)])
    utility[random] = rng.random((int(random.sum()), utility.shape[1]))
    slots = min(config.slots, utility.shape[1])
    best = np.argpartition(-utility, slots - 1, axis=1)[:, :slots]
    order = np.argsort(-np.take_along_axis(utility, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1), random


def respond(state: State, config: World, requests: Requests, scores: Scores, random_share: float) -> Outcomes:
    """Show the slates and let people act."""
    places, random = slates(requests, scores, config, random_share)
    items = np.take_along_axis(requests.candidates, places, axis=1)
    count, slots = items.shape
    rng = np.random.default_rng([config.seed, 4, moment(requests)])
    depth = np.asarray(rng.geometric(1 - LOOKS, count))
    seen = np.arange(slots) < depth[:, None]
    positions = np.broadcast_to(np.arange(slots), items.shape)
    true = truth(state, requests.users, items, requests.surfaces, requests.time_days, positions).stacked()
    lots = rng.random((count, slots))
    click = lots < true[..., 0]
    hide = ~click & (rng.random((count, slots)) < true[..., 1] / (1 - true[..., 0]))
    save = click & (rng.random((count, slots)) < true[..., 2] / true[..., 0])
    done = np.stack([click, hide, save], axis=-1) & seen[..., None]
    mean_s = np.array([_DELAY_S[action] for action in ACTIONS])
    delay_s = rng.exponential(1.0, done.shape) * mean_s
    wrong = rng.random(done.shape) < _WRONG_CLOCK
    delay_s = np.maximum(delay_s + np.where(wrong, rng.normal(0, _CLOCK_ERROR_S, done.shape), 0.0), 0.0)
    dwell_s = np.where(done[..., 0], rng.lognormal(np.log(_DWELL_S), 0.8, (count, slots)), 0.0)
    if scores.probabilities is None:
        predicted = np.full(true.shape, np.nan)
    else:
        predicted = np.take_along_axis(scores.probabilities, places[..., None], axis=1)
    arms, releases = (np.full(count, None) if one is None else one for one in (scores.arms, scores.releases))
    return Outcomes(items, random, seen, done, delay_s, dwell_s, true, predicted, arms, releases)


def moment(requests: Requests) -> int:
    """The minute of the first request: what happens in two spans of time is drawn apart."""
    return int(requests.time_days[0] * 1_440) if len(requests) else 0
