"""What rankers are worth under the truth: the same requests, the same features, every ranker's own slate.

Nothing here is counted; all is expected, from the true probabilities: how many people look as far as a
position, and what they would do there. Shapes: R requests, N candidates, K slots.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from understudy.hashing import decision
from understudy.inputs import Feeds
from understudy.simulator.config import World
from understudy.simulator.rankers import WORTH, Oracle, Popularity
from understudy.simulator.scoring import Model, scores_of
from understudy.simulator.traffic import LOOKS, Outcomes, Requests, Scores
from understudy.simulator.world import ACTIONS, State, truth

__all__ = ["Contest", "expected_worth", "soft_auc"]

Floats = npt.NDArray[np.float64]
_CLICK = ACTIONS.index("click")


@dataclass
class _Tally:
    """What one ranker's slates are worth, day by day, and what it says of a click."""

    worth: list[tuple[int, float, int]] = field(default_factory=list)
    clicks: list[Floats] = field(default_factory=list)
    predicted: float = 0.0
    expected: float = 0.0


class Contest:
    """Rankers side by side over a span of days.

    Args:
        models: name → a ranker's probabilities.
        share: of the requests on which they compete, by hash.
    """

    def __init__(
        self, state: State, world: World, heads: tuple[str, ...], models: Mapping[str, Model], share: float
    ) -> None:
        self.state, self.world, self.heads, self.models, self.share = state, world, heads, models, share
        self.tallies = {name: _Tally() for name in ("random", "popularity", "oracle", *models)}
        self.true_clicks: list[Floats] = []

    def chosen(self, requests: Requests) -> Requests:
        """The requests that count."""
        return requests.take(np.flatnonzero(decision("common", self.world.seed, requests.ids) < self.share))

    def compare(self, requests: Requests, feeds: Feeds, popularity: Popularity) -> None:
        """Let every ranker answer ``requests`` (already chosen) with the same feeds."""
        if not len(requests):
            return
        oracle = Oracle(self.state)(requests)
        given = {"oracle": oracle, "popularity": popularity(requests), "random": None}
        shape = requests.candidates.shape
        given |= {name: scores_of(model, self.heads, feeds, shape) for name, model in self.models.items()}
        day = int(requests.time_days[0])
        for name, scores in given.items():
            tally = self.tallies[name]
            tally.worth.append((day, expected_worth(self.state, self.world, requests, scores), len(requests)))
            if scores is not None and scores.probabilities is not None:
                tally.clicks.append(scores.probabilities[..., _CLICK].ravel())
        assert oracle.probabilities is not None, "the oracle knows them"
        self.true_clicks.append(oracle.probabilities[..., _CLICK].ravel())

    def calibrate(self, outcomes: Outcomes, feeds: Feeds) -> None:
        """Hold what the models say of the random slice, at its logged positions, against the truth.

        Args:
            feeds: of the slice's slots, in order, with their positions.
        """
        looks = np.broadcast_to(LOOKS ** np.arange(outcomes.items.shape[1]), outcomes.items.shape).ravel()
        true = outcomes.true[..., _CLICK].ravel()
        for name, model in self.models.items():
            self.tallies[name].predicted += float(looks @ model(feeds)[:, self.heads.index("click")])
            self.tallies[name].expected += float(looks @ true)

    def lifts(self, day: int) -> dict[str, float]:
        """Per ranker, its share of the oracle's lift over random on a day."""
        return _lifts({name: _mean([one for one in t.worth if one[0] == day]) for name, t in self.tallies.items()})

    def figures(self) -> dict[str, dict[str, Any]]:
        """What each ranker reached over the whole span.

        Returns:
            per ranker ``worth`` per request, ``lift`` (share of the oracle's over random), ``auc`` of a click and
            ``calibration_ratio`` on the random slice; the last two None where not known.
        """
        worth = {name: _mean(tally.worth) for name, tally in self.tallies.items()}
        lifts, true = _lifts(worth), np.concatenate(self.true_clicks)
        return {
            name: {
                "worth": worth[name],
                "lift": lifts[name],
                "auc": soft_auc(np.concatenate(tally.clicks), true) if tally.clicks else None,
                "calibration_ratio": tally.predicted / tally.expected if tally.expected else None,
            }
            for name, tally in self.tallies.items()
        }


def _mean(spans: list[tuple[int, float, int]]) -> float:
    return sum(worth for _, worth, _ in spans) / max(sum(count for _, _, count in spans), 1)


def _lifts(worth: dict[str, float]) -> dict[str, float]:
    whole = (worth["oracle"] - worth["random"]) or 1.0
    return {name: (one - worth["random"]) / whole for name, one in worth.items()}


def expected_worth(state: State, world: World, requests: Requests, scores: Scores | None) -> float:
    """Sum over requests of what their slates are worth; None: the mean over all orders."""
    if scores is None:
        items = requests.candidates[:, : world.slots]
    else:
        slots = min(world.slots, requests.candidates.shape[1])
        best = np.argsort(-scores.utility, axis=1, kind="stable")[:, :slots]
        items = np.take_along_axis(requests.candidates, best, axis=1)
    positions = np.broadcast_to(np.arange(items.shape[1]), items.shape)
    true = truth(state, requests.users, items, requests.surfaces, requests.time_days, positions).stacked()
    return float(((true @ WORTH) * LOOKS ** np.arange(items.shape[1])).sum())


def soft_auc(scores: Floats, probabilities: Floats) -> float:
    """Chance that a positive scores above a negative, where each row is positive with its probability."""
    order = np.argsort(scores, kind="stable")
    s, p = scores[order], probabilities[order]
    starts = np.flatnonzero(np.concatenate([[True], s[1:] != s[:-1]]))
    positive, negative = np.add.reduceat(p, starts), np.add.reduceat(1 - p, starts)
    below = np.cumsum(negative) - negative
    return float((positive * (below + 0.5 * negative)).sum() / (positive.sum() * negative.sum()))
