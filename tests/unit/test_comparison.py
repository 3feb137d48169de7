"""Paired figures of configurations: what all share cancels, what sets them apart is shown."""

import numpy as np
import pytest

from understudy.comparison.figures import METRICS, compared
from understudy.evaluation.scored import Scored


def scored(noise: float, seed: int, rows: int = 4000) -> Scored:
    """The same users and outcomes for every seed; a ranker that knows the chance up to some noise."""
    random = np.random.default_rng(0)
    chance = 1 / (1 + np.exp(-random.normal(-1, 1, rows)))
    labels = (random.random(rows) < chance).astype(float)[:, None]
    said = np.log(chance / (1 - chance)) + np.random.default_rng(seed).normal(0, noise, rows)
    users = np.array([f"u{u}" for u in random.integers(0, 400, rows)])
    return Scored(("click",), users, users, labels, np.ones(rows), 1 / (1 + np.exp(-said[:, None])))


def test_a_ranker_differs_from_itself_by_nothing() -> None:
    ranker = [scored(0.5, seed) for seed in (1, 2)]
    first, same = compared([ranker, ranker], "click", resamples=100, seed=0)
    assert "difference" not in first
    for name in METRICS:
        assert same["difference"][name] == 0
        assert same["difference"][f"{name}_interval"] == [0, 0]


def test_a_better_ranker_is_shown_to_be_better() -> None:
    rankers = [[scored(noise, seed + 10 * place) for seed in (1, 2, 3)] for place, noise in enumerate((1.5, 0.2))]
    first, better = compared(rankers, "click", resamples=200, seed=0)
    assert better["auc"] > first["auc"]
    assert better["difference"]["auc_interval"][0] > 0
    assert better["difference"]["log_loss_interval"][1] < 0
    assert better["difference"]["auc"] == pytest.approx(better["auc"] - first["auc"], abs=1e-8)


def test_seeds_that_disagree_widen_the_interval() -> None:
    first = [scored(0.5, 1)] * 3
    steady, unsteady = [scored(0.8, 2)] * 3, [scored(noise, 2) for noise in (0.1, 0.8, 2.0)]
    _, a, b = compared([first, steady, unsteady], "click", resamples=300, seed=0)
    widths = [np.ptp(one["difference"]["auc_interval"]) for one in (a, b)]
    assert widths[1] > 2 * widths[0]


def test_the_interval_leaves_out_as_much_on_either_side() -> None:
    first, other = [scored(0.5, seed) for seed in (1, 2)], [scored(0.8, seed) for seed in (3, 4)]
    difference = compared([first, other], "click", resamples=400, seed=0)[1]["difference"]
    for name in METRICS:
        low, high = difference[f"{name}_interval"]
        assert difference[name] - low == pytest.approx(high - difference[name], rel=0.5)
