"""The truth: who wants what, and how that changes from day to day.

A user's taste and an item's content are vectors near those of topics; their product is how well the
item suits the user. Items also have a quality that shows to everybody, a trend that rises and fades
with age, and a content type that each user likes more or less. Effects are in log odds of a click.

Shapes: U users, I items (both grow), D latent dimensions, T topics, C creators; R requests, N items
per request.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from understudy.simulator.config import World

__all__ = [
    "ACTIONS",
    "COHORTS",
    "CONTENT_TYPES",
    "SURFACES",
    "State",
    "Truth",
    "born_us",
    "cohorts_of",
    "new_state",
    "next_day",
    "truth",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

ACTIONS = ("click", "hide", "save")
CONTENT_TYPES = ("video", "photo", "article", "live")
SURFACES = ("home", "following", "explore")
COHORTS = ("founding", "new")
DIMENSIONS = 8

_TASTE_KEPT = 0.95  # from one day to the next
_NEW_FAVOURITE = 0.02  # share of users who turn to another topic, slowly, each day
_TASTE_NOISE = 0.25
_AFFINITY, _QUALITY, _TREND, _TYPE, _USER = 1.1, 0.45, 0.8, 0.4, 0.35
_TOPIC_APPEAL, _CREATOR_EFFECT, _SURFACE_TYPE = 0.4, 0.5, 0.6
_NOVELTY = 0.08  # log odds that a day of age costs, before the shift; after it, what has lasted gains as much
_FASHION_KEPT = 0.97  # of what appeals to all, from one day to the next
_TREND_PEAK_DAYS, _MIDDLE_AGE_DAYS = 1.5, 5.0
_CLICK_BASE, _SAVE_BASE, _HIDE_BASE = -4.0, -2.3, -5.0
_POSITION = 0.30
_HEAVY_SHARE = 0.08
_TYPE_SHARES = np.array([0.45, 0.3, 0.17, 0.08])


@dataclass
class State:
    """The world on one day.

    Args:
        day: from 0.
        taste: (U, D). user_bias: (U,). type_taste: (U, types). activity: (U,). joined: (U,) day.
        topic_of_user: (U, 3) favourite topics.
        topics: (T, D). appeal: (T,). surface_type: (surfaces, types). creators: (C,) topic of each.
        creator_effect: (C,).
        content: (I, D). quality, trend: (I,). topic, creator, kind: (I,). born: (I,) day, with its fraction.
        length_s: (I,), which nobody cares about.
        novelty: log odds that a day of age costs.
    """

    day: int
    taste: Floats
    user_bias: Floats
    type_taste: Floats
    activity: Floats
    joined: Floats
    topic_of_user: Integers
    topics: Floats
    appeal: Floats
    surface_type: Floats
    creators: Integers
    creator_effect: Floats
    content: Floats
    quality: Floats
    trend: Floats
    topic: Integers
    creator: Integers
    kind: Integers
    born: Floats
    length_s: Floats
    novelty: float


@dataclass(frozen=True)
class Truth:
    """True probabilities of each action, whenever it comes; shape (R, N) each, in the order of ``ACTIONS``."""

    click: Floats
    hide: Floats
    save: Floats

    def stacked(self) -> Floats:
        """(R, N, actions)."""
        return np.stack([self.click, self.hide, self.save], axis=-1)


def new_state(config: World) -> State:
    """The world on day 0, with the items of the days before it."""
    rng = np.random.default_rng([config.seed, 0])
    topics = rng.normal(0, 1, (config.topics, DIMENSIONS))
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    state = State(
        day=0,
        taste=np.empty((0, DIMENSIONS)),
        user_bias=np.empty(0),
        type_taste=np.empty((0, len(CONTENT_TYPES))),
        activity=np.empty(0),
        joined=np.empty(0),
        topic_of_user=np.empty((0, 3), np.int64),
        topics=topics,
        appeal=_fashion(rng.normal(0, _TOPIC_APPEAL, config.topics)),
        surface_type=_fashion(rng.normal(0, _SURFACE_TYPE, (len(SURFACES), len(CONTENT_TYPES))), _TYPE_SHARES),
        creators=rng.integers(0, config.topics, config.creators),
        creator_effect=rng.normal(0, _CREATOR_EFFECT, config.creators),
        content=np.empty((0, DIMENSIONS)),
        quality=np.empty(0),
        trend=np.empty(0),
        topic=np.empty(0, np.int64),
        creator=np.empty(0, np.int64),
        kind=np.empty(0, np.int64),
        born=np.empty(0),
        length_s=np.empty(0),
        novelty=_NOVELTY,
    )
    _join(state, config.users, rng, joined=-rng.exponential(60, config.users) - 7)
    for day in range(-config.item_life, 1):
        _be_born(state, config.new_items_per_day, rng, day)
    return state


def next_day(state: State, config: World) -> None:
    """Move the world on by a day: people join, items are born, tastes drift, and shift on the day set for it."""
    state.day += 1
    rng = np.random.default_rng([config.seed, 1, state.day])
    _drift(state, rng)
    if state.day == config.shift_day:
        _shift(state, config, rng)
    _join(state, config.new_users_per_day, rng, joined=np.full(config.new_users_per_day, float(state.day)))
    _be_born(state, config.new_items_per_day, rng, state.day)


def cohorts_of(state: State) -> Integers:
    """(U,): the place in ``COHORTS`` of each user, who joined before the first day or since."""
    cohorts: Integers = (state.joined >= 0).astype(np.int64)
    return cohorts


def born_us(state: State, start_us: int) -> Integers:
    """(I,): when each item was born, in microseconds; day 0 begins at ``start_us``."""
    born: Integers = np.rint(state.born * 86_400e6).astype(np.int64) + start_us
    return born


def truth(
    state: State,
    users: Integers,
    items: Integers,
    surfaces: Integers,
    time_days: Floats,
    positions: Integers | None = None,
) -> Truth:
    """True probabilities of the given pairs.

    Args:
        users: (R,). items: (R, N). surfaces: (R,).
        time_days: (R,) since the start of day 0.
        positions: (R, N) from 0; None: all at the first position.
    """
    affinity = np.einsum("rd,rnd->rn", state.taste[users], state.content[items])
    kind = state.kind[items]
    age = np.maximum(time_days[:, None] - state.born[items], 0)
    trend = state.trend[items] * age / _TREND_PEAK_DAYS * np.exp(1 - age / _TREND_PEAK_DAYS)
    own = state.quality[items] + state.appeal[state.topic[items]] + state.creator_effect[state.creator[items]] + trend
    own = own - state.novelty * (age - _MIDDLE_AGE_DAYS)
    tuned = np.take_along_axis(state.type_taste[users], kind, axis=1) + state.surface_type[surfaces[:, None], kind]
    hour = 0.15 * np.cos((time_days % 1 * 24 - 21) * 2 * np.pi / 24)
    z = _CLICK_BASE + _AFFINITY * affinity + own + tuned + (state.user_bias[users] + hour)[:, None]
    if positions is not None:
        z = z - _POSITION * np.log1p(positions)
    click = _sigmoid(z)
    save = click * _sigmoid(_SAVE_BASE + 0.8 * affinity + 0.5 * state.quality[items])
    hide = (1 - click) * _sigmoid(_HIDE_BASE - 0.9 * affinity - 0.5 * state.quality[items])
    return Truth(click, hide, save)


def _join(state: State, count: int, rng: np.random.Generator, joined: Floats) -> None:
    """People with tastes near three topics, and heavy-tailed activity."""
    popular = np.exp(rng.permutation(np.linspace(0, 1.5, len(state.topics)))) if not state.day else None
    shares = None if popular is None else popular / popular.sum()
    favourites = rng.choice(len(state.topics), (count, 3), p=shares)
    heavy = rng.random(count) < _HEAVY_SHARE
    activity = np.minimum(rng.pareto(1.6, count) + 0.2, 30) * np.where(heavy, 5.0, 1.0)
    state.topic_of_user = np.concatenate([state.topic_of_user, favourites])
    state.taste = np.concatenate([state.taste, _tastes(state.topics, favourites, rng)])
    state.user_bias = np.concatenate([state.user_bias, rng.normal(0, _USER, count)])
    state.type_taste = np.concatenate([state.type_taste, rng.normal(0, _TYPE, (count, len(CONTENT_TYPES)))])
    state.activity = np.concatenate([state.activity, activity])
    state.joined = np.concatenate([state.joined, joined])


def _drift(state: State, rng: np.random.Generator) -> None:
    """Tastes wander around what people care for, which changes slowly (an Ornstein-Uhlenbeck process)."""
    turning = np.flatnonzero(rng.random(len(state.taste)) < _NEW_FAVOURITE)
    state.topic_of_user[turning, 0] = rng.integers(0, len(state.topics), len(turning))
    mean = _mean_tastes(state.topics, state.topic_of_user)
    noise = rng.normal(0, _TASTE_NOISE * np.sqrt(1 - _TASTE_KEPT**2), state.taste.shape)
    state.taste = mean + _TASTE_KEPT * (state.taste - mean) + noise
    for values, deviation, shares in (
        (state.appeal, _TOPIC_APPEAL, None),
        (state.surface_type, _SURFACE_TYPE, _TYPE_SHARES),
    ):
        change = rng.normal(0, deviation * np.sqrt(1 - _FASHION_KEPT**2), values.shape)
        values[:] = _fashion(_FASHION_KEPT * values + change, shares)


def _fashion(values: Floats, shares: Floats | None = None) -> Floats:
    """Attention is finite: what some topics or types gain, the others lose."""
    relative: Floats = values - np.average(values, axis=-1, weights=shares, keepdims=True)
    return relative


def _mean_tastes(topics: Floats, favourites: Integers) -> Floats:
    weights = np.array([0.98, 0.63, 0.42])
    vectors: Floats = np.einsum("k,ukd->ud", weights, topics[favourites])
    return vectors


def _tastes(topics: Floats, favourites: Integers, rng: np.random.Generator) -> Floats:
    vectors = _mean_tastes(topics, favourites)
    return vectors + rng.normal(0, _TASTE_NOISE, vectors.shape)


def _be_born(state: State, count: int, rng: np.random.Generator, day: int) -> None:
    """Items of one day: near their creator's topic, some of them trending."""
    creator = rng.integers(0, len(state.creators), count)
    own_topic = rng.random(count) < 0.8
    topic = np.where(own_topic, state.creators[creator], rng.integers(0, len(state.topics), count))
    state.creator = np.concatenate([state.creator, creator])
    state.topic = np.concatenate([state.topic, topic])
    content = state.topics[topic] * 1.2 + rng.normal(0, 0.22, (count, DIMENSIONS))
    state.content = np.concatenate([state.content, content])
    state.quality = np.concatenate([state.quality, rng.normal(0, _QUALITY, count)])
    state.trend = np.concatenate([state.trend, _TREND * (rng.random(count) < 0.25) * rng.exponential(0.8, count)])
    state.kind = np.concatenate([state.kind, rng.choice(len(CONTENT_TYPES), count, p=_TYPE_SHARES)])
    state.born = np.concatenate([state.born, day + rng.random(count)])
    state.length_s = np.concatenate([state.length_s, np.round(rng.lognormal(3.4, 0.8, count))])


def _shift(state: State, config: World, rng: np.random.Generator) -> None:
    """A share of the users turn to other topics and types; all turn to other fashions, and from new to lasting."""
    moved = np.flatnonzero(rng.random(len(state.taste)) < config.shift_share)
    state.topic_of_user[moved] = rng.integers(0, len(state.topics), (len(moved), 3))
    state.taste[moved] = _tastes(state.topics, state.topic_of_user[moved], rng)
    state.type_taste[moved] = rng.normal(0, _TYPE, (len(moved), len(CONTENT_TYPES)))
    state.appeal = _fashion(rng.normal(0, _TOPIC_APPEAL, len(state.topics)))
    state.surface_type = _fashion(rng.normal(0, _SURFACE_TYPE, state.surface_type.shape), _TYPE_SHARES)
    state.novelty = -_NOVELTY


def _sigmoid(z: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-z))
    return result
