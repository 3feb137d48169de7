"""Rankers that need no release: chance, popularity, and the truth itself."""

import numpy as np
import numpy.typing as npt

from understudy.simulator.traffic import UTILITY, Outcomes, Requests, Scores, moment
from understudy.simulator.world import ACTIONS, State, truth

__all__ = ["NAMES", "WORTH", "Chance", "Oracle", "Popularity"]

Floats = npt.NDArray[np.float64]

NAMES = ("random", "popularity", "oracle")
WORTH = np.array([UTILITY[action] for action in ACTIONS])


class Chance:
    """Any order is as good as another."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, requests: Requests) -> Scores:
        return Scores(np.random.default_rng([self.seed, 5, moment(requests)]).random(requests.candidates.shape))


class Oracle:
    """The truth: no ranker that looks at one item at a time can do better."""

    def __init__(self, state: State) -> None:
        self.state = state

    def __call__(self, requests: Requests) -> Scores:
        true = truth(self.state, requests.users, requests.candidates, requests.surfaces, requests.time_days)
        return Scores(true.stacked() @ WORTH, true.stacked())


class Popularity:
    """Items by their worth per view, of everything that was seen so far, smoothed and forgetting.

    Args:
        half_life_days: of the counts.
        strength: views that the mean over all items is worth.
    """

    def __init__(self, half_life_days: float = 3.0, strength: float = 30.0) -> None:
        self.keep = 0.5 ** (1 / half_life_days)
        self.strength = strength
        self.views: Floats = np.zeros(0)
        self.worth: Floats = np.zeros(0)

    def observe(self, outcomes: Outcomes) -> None:
        """Count a day."""
        size = max(len(self.views), int(outcomes.items.max(initial=0)) + 1)
        self.views, self.worth = (np.pad(old * self.keep, (0, size - len(old))) for old in (self.views, self.worth))
        items = outcomes.items[outcomes.seen]
        self.views += np.bincount(items, minlength=size)
        self.worth += np.bincount(items, (outcomes.done @ WORTH)[outcomes.seen], size)

    def __call__(self, requests: Requests) -> Scores:
        size = int(requests.candidates.max(initial=0)) + 1
        views, worth = (np.pad(one, (0, max(0, size - len(one)))) for one in (self.views, self.worth))
        mean = worth.sum() / max(views.sum(), 1.0)
        rate = (worth + self.strength * mean) / (views + self.strength)
        return Scores(rate[requests.candidates])
