"""A training of a second, on planted data."""

import numpy as np
import torch

from understudy.inputs import Feeds, Inputs
from understudy.lake import Lake
from understudy.ranker.config import Ranker
from understudy.ranker.fitting import new_model
from understudy.ranker.network import RankerModel
from understudy.training.batches import Rows
from understudy.training.checkpoint import Checkpoints
from understudy.training.config import Training
from understudy.training.loop import State, fit

__all__ = ["CONFIG", "INPUTS", "RANKER", "feeds_of", "labelled", "trained"]

INPUTS = Inputs(
    heads=("click", "like"),
    time_zone="UTC",
    categorical=("user_id", "item_id", "creator_id", "topic_id", "surface", "hour", "user_profile__level"),
    numeric=("item_profile__length",),
    half_lives=("1d",),
    recent_events=4,
    surfaces=2,
)
RANKER = Ranker(hidden=(16,), cross_layers=1, cross_rank=4, min_id_count=1)
CONFIG = Training(epochs=3, batch_size=64, patience=5, ranker=RANKER, threads=1)


def feeds_of(rows: int, seed: int, inputs: Inputs = INPUTS) -> Feeds:
    random = np.random.default_rng(seed)
    feeds: Feeds = {}
    for name, (kind, shape) in inputs.shapes().items():
        if kind is np.int64:
            feeds[name] = random.integers(1, 20, (rows, *shape))
        else:
            feeds[name] = random.uniform(0, 5, (rows, *shape)).astype(np.float32)
    return feeds


def labelled(rows: int, seed: int) -> tuple[Feeds, np.ndarray]:
    feeds = feeds_of(rows, seed)
    likes = (feeds["categorical"][:, 1] % 3 == 0).astype(np.float32)
    return feeds, np.stack([1 - likes, likes], axis=1)


def trained(lake: Lake, *, stop_after: int | None = None) -> RankerModel:
    """Train on planted data; ``stop_after`` evaluations the process "dies"."""
    torch.set_num_threads(1)
    feeds, labels = labelled(640, 0)
    stop_feeds, stop_labels = labelled(200, 1)
    model = new_model(RANKER, INPUTS, feeds, labels, np.ones(640, np.float32), seed=0)
    train = Rows.prepare(model, feeds, torch.from_numpy(labels), torch.ones(640))
    stop = Rows.prepare(model, stop_feeds, torch.from_numpy(stop_labels), torch.ones(200))

    def die(state: State) -> None:
        if state.evaluation == stop_after:
            raise KeyboardInterrupt

    checkpoints = Checkpoints(lake, "checkpoints", "k" * 64)
    fit(model, train, stop, CONFIG, resume=checkpoints.resume, save=checkpoints.save, progress=die)
    return model
