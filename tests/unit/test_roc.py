"""The ROC's thresholds are those of its points, from the figures to Kubeflow's own view."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_records import commit, recorded

from understudy.evaluation.figures import _roc_rounded
from understudy.evaluation.metrics import Prepared, roc
from understudy.lake import Lake
from understudy.report import pictures
from understudy.report.kubeflow import roc_points


@given(st.integers(2, 400), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1e-4]), st.booleans())
def test_a_point_has_the_rates_of_the_rows_that_reach_its_threshold(
    rows: int, seed: int, scale: float, is_sure: bool
) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, rows)
    labels[:2] = 0, 1
    p = np.round(random.uniform(0, scale, rows), 7)
    p[-1] = 1.0 if is_sure else p[-1]
    weights = random.uniform(0.5, 2, rows)
    points = _roc_rounded(roc(Prepared.of(labels, p, weights)))
    assert (points[0][:2], points[-1][:2], len(points) <= 100) == ([0, 0], [1, 1], True)
    thresholds = [point[2] for point in points]
    assert all(high > low for high, low in itertools.pairwise(thresholds))
    assert json.loads(json.dumps(thresholds, allow_nan=False)) == thresholds
    for false_rate, true_rate, threshold in points:
        for side, rate in ((labels, true_rate), (1 - labels, false_rate)):
            assert rate == pytest.approx(weights[p >= threshold] @ side[p >= threshold] / (weights @ side), abs=2e-6)


@pytest.mark.parametrize(
    ("points", "shown"),
    [
        ([[0, 0, 1.0], [0.2, 0.7, 0.4], [1, 1, 0.1]], ([0, 0.2, 1], [0, 0.7, 1], [1.0, 0.4, 0.1])),
        ([[0, 0], [0.2, 0.7], [1, 1]], None),  # of a version that kept no thresholds
        ([], None),
    ],
)
def test_kubeflow_is_shown_thresholds_that_were_recorded_and_no_others(
    tmp_path: Path, points: list[list[float]], shown: object
) -> None:
    lake = Lake.open_or_create(str(tmp_path / "lake"))
    run = recorded(lake, "job")
    commit(run, "evaluate", roc={"click": points}, heads={})
    assert roc_points(lake.uri(), run.id) == shown
    assert "<svg" in pictures.roc({"click": points})
