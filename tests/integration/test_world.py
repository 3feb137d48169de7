"""The world is hard enough to be worth a ranker, and easy enough for one: what simple rankers reach in it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from understudy import config as configuration
from understudy.inputs import Feeds, batches
from understudy.lake import Lake
from understudy.ranker.fitting import as_tensors, new_model
from understudy.ranker.network import RankerModel
from understudy.simulator import feed
from understudy.simulator.contest import Contest
from understudy.simulator.days import Days
from understudy.simulator.scoring import feeds_of
from understudy.simulator.traffic import Outcomes, Requests

ROOT = Path(__file__).resolve().parent.parent.parent
TRAINED = 10


def dense(model: RankerModel, feeds: Feeds) -> np.ndarray:
    """The product's features as the network sees them, standardised."""
    parts = []
    with torch.no_grad():
        for batch in batches(feeds, 8_192):
            parts.append(model.preprocess(as_tensors(batch))[0].numpy())
    return np.concatenate(parts)


@pytest.mark.slow
def test_popularity_and_a_logistic_regression_leave_room_for_a_ranker(tmp_path: Path) -> None:
    config = configuration.load(ROOT / "examples" / "simulated.yaml")
    days = Days(config, Lake.open_or_create(str(tmp_path / "lake")))
    logged: list[tuple[Feeds, np.ndarray, np.ndarray]] = []

    def after(span: Requests, outcomes: Outcomes, _: int) -> None:
        shown = feed.shown_of(config, days.world, span, outcomes)
        feeds = days.live.feeds(shown.users, shown.surfaces, shown.us, shown.items[:, None])
        logged.append((feeds, shown.labels, shown.weights))

    for _ in range(TRAINED):
        days.next(days.popularity, after=after)
    feeds = {name: np.concatenate([one[0][name] for one in logged]) for name in logged[0][0]}
    labels, weights = (np.concatenate([one[at] for one in logged]) for at in (1, 2))
    model = new_model(config.training.ranker, days.live.inputs, feeds, labels, weights.astype(np.float32), 0)
    known = dense(model, feeds)
    fitted = [LogisticRegression(max_iter=300).fit(known, labels[:, h], weights) for h in range(labels.shape[1])]

    def logistic(feeds: Feeds) -> np.ndarray:
        seen = dense(model, feeds)
        return np.stack([one.predict_proba(seen)[:, 1] for one in fitted], axis=1)

    contest = Contest(days.state, days.world, config.heads, {"logistic": logistic}, 0.3)

    def before(span: Requests) -> None:
        chosen = contest.chosen(span)
        contest.compare(chosen, feeds_of(days.live, days.world, chosen), days.popularity)

    for _ in range(2):
        days.next(days.popularity, before=before)
    lift = {name: one["lift"] for name, one in contest.figures().items()}
    assert 0.2 <= lift["popularity"] <= 0.5
    assert lift["popularity"] < lift["logistic"] <= 0.8
