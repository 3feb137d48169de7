"""Releases as rankers of the simulated feed."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from understudy import releases
from understudy.inputs import Feeds, Inputs, batches
from understudy.lake import Lake
from understudy.ranker.served import Served
from understudy.simulator.config import World
from understudy.simulator.feed import times_us
from understudy.simulator.live import Live
from understudy.simulator.rankers import WORTH
from understudy.simulator.traffic import Ranker, Requests, Scores
from understudy.simulator.world import ACTIONS

__all__ = ["Model", "feeds_of", "ranked_by", "release_model", "scores_of"]

_BATCH = 2048

Model = Callable[[Feeds], npt.NDArray[np.float64]]  # feeds of B rows → probabilities (B, H)


def release_model(lake: Lake, digest: str, live: Live) -> Model:
    """The file that serving loads, as a function."""
    release = releases.load(lake, digest)
    inputs = Inputs.from_json(release.files["inputs.json"].decode())
    assert inputs == live.inputs, "a release of the simulated feed is fed what the feed knows"
    served = Served(release.files["served.onnx"], inputs, threads=1)
    pool = ThreadPoolExecutor(os.cpu_count())  # batches side by side scale better than threads within one

    def probabilities(feeds: Feeds) -> npt.NDArray[np.float64]:
        parts = pool.map(lambda batch: served.score_feeds(batch)[0], batches(feeds, _BATCH))
        return np.concatenate(list(parts)).astype(np.float64)

    return probabilities


def feeds_of(live: Live, world: World, requests: Requests) -> Feeds:
    """Feeds of every candidate of requests, R × N rows."""
    return live.feeds(requests.users, requests.surfaces, times_us(world, requests), requests.candidates)


def scores_of(model: Model, heads: tuple[str, ...], feeds: Feeds, shape: tuple[int, int]) -> Scores:
    """Scores of R × N candidates; an action that is no head counts as never done."""
    probabilities = np.zeros((shape[0] * shape[1], len(ACTIONS)))
    probabilities[:, [ACTIONS.index(head) for head in heads]] = model(feeds)
    whole = probabilities.reshape(*shape, len(ACTIONS))
    return Scores(whole @ WORTH, whole)


def ranked_by(model: Model, live: Live, world: World) -> Ranker:
    """A ranker that reads features as they are now."""

    def rank(requests: Requests) -> Scores:
        feeds = feeds_of(live, world, requests)
        return scores_of(model, live.inputs.heads, feeds, requests.candidates.shape)

    return rank
