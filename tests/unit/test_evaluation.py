"""Metrics agree with scikit-learn; gates refuse what they are meant for."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

from understudy.drift.config import Drift
from understudy.drift.gates import Rate, column_finding, label_finding, self_test, verdicts
from understudy.drift.sketches import shares, sketch
from understudy.errors import BadInput
from understudy.evaluation import gates, selftest
from understudy.evaluation.churn import churn
from understudy.evaluation.config import Evaluation
from understudy.evaluation.figures import segment_rows
from understudy.evaluation.metrics import Prepared, ece_noise, ndcg, roc
from understudy.evaluation.scored import Scored, difference, summary


def scored(rows: int = 4000, seed: int = 0, noise: float = 0.0) -> Scored:
    """Two heads whose probabilities are the truth, but for noise on the logits."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(rows, 2)) + np.array([0.0, -1.5])
    labels = (random.random((rows, 2)) < 1 / (1 + np.exp(-z))).astype(float)
    seen = z + noise * np.random.default_rng(seed + 1).normal(size=z.shape)
    users = np.array([f"u{i % 400}" for i in range(rows)])
    requests = np.array([f"r{i // 5}" for i in range(rows)])
    weights = random.uniform(0.5, 2, rows)
    return Scored(("click", "like"), users, requests, labels, weights, 1 / (1 + np.exp(-seen)))


def test_weighted_metrics_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(1)
    y, p, w = random.integers(0, 2, 500), random.integers(1, 20, 500) / 20.5, random.uniform(0.1, 3, 500)
    found = {name: value[0] for name, value in Prepared.of(y, p, w).metrics().items()}
    assert found["auc"] == pytest.approx(roc_auc_score(y, p, sample_weight=w))
    assert found["log_loss"] == pytest.approx(log_loss(y, p, sample_weight=w))
    assert found["calibration_ratio"] == pytest.approx((p * w).sum() / (y * w).sum())


def test_ndcg_agrees_with_scikit_learn() -> None:
    random = np.random.default_rng(2)
    requests, y, p = np.repeat(np.arange(30), 7), random.integers(0, 2, 210).astype(float), random.random(210)
    expected = [ndcg_score([y[requests == r]], [p[requests == r]]) for r in range(30) if y[requests == r].sum() > 0]
    assert ndcg(requests, y, p) == pytest.approx(np.mean(expected))


def test_ndcg_of_single_items_is_unknown() -> None:
    assert ndcg(np.arange(5), np.ones(5), np.ones(5)) is None


def test_a_resample_of_weights_is_the_metric_of_the_repeated_rows() -> None:
    rows = scored(200)
    times = np.random.default_rng(3).integers(0, 3, 200)
    one = Prepared.of(rows.labels[:, 0], rows.probabilities[:, 0], rows.weights)
    at = np.repeat(np.arange(200), times)
    again = Prepared.of(rows.labels[at, 0], rows.probabilities[at, 0], rows.weights[at])
    for name in ("auc", "log_loss", "calibration_ratio"):
        assert one.metrics(times[None].astype(float))[name][0] == pytest.approx(again.metrics()[name][0])


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(40):
        low, high = summary(scored(1500, seed), "click", resamples=100)["calibration_ratio_interval"]
        held += low <= 1 <= high
    assert 33 <= held <= 40


def test_the_paired_interval_is_narrower_than_either_alone() -> None:
    ours, theirs = scored(noise=0.1), scored(noise=0.2)
    found = difference(ours, theirs, "click", resamples=100, seed=0)
    alone = summary(ours, "click", resamples=100)["auc_interval"]
    assert found is not None
    low, high = found["auc_interval"]
    assert high - low < 0.7 * (alone[1] - alone[0])


def test_a_head_without_positives_is_undefined() -> None:
    rows = scored()
    none = dataclasses.replace(rows, labels=np.zeros_like(rows.labels))
    assert summary(none, "click")["auc"] is None
    assert difference(none, none, "click", resamples=5, seed=0) is None


DIFF = {"auc": -0.002, "auc_interval": [-0.008, 0.004], "auc_deviation": 0.003}


@pytest.mark.parametrize(
    ("diff", "margin", "primary", "outcome"),
    [
        (DIFF, 0.01, True, "pass"),
        (DIFF, 0.007, True, "fail"),
        (DIFF, 0.005, True, "insufficient data"),
        (None, 0.01, True, "insufficient data"),
        (DIFF, 0.001, False, "pass"),
        ({**DIFF, "auc_interval": [-0.02, -0.01]}, 0.001, False, "fail"),
    ],
)
def test_non_inferiority(diff: dict[str, float] | None, margin: float, primary: bool, outcome: str) -> None:
    assert gates.non_inferiority("click", "production", diff, margin, primary=primary).outcome == outcome


@pytest.mark.parametrize(
    ("ratio", "interval", "primary", "outcome"),
    [
        (1.04, [None, None], True, "pass"),
        (1.06, [None, None], True, "fail"),
        (0.94, [None, None], True, "fail"),
        (1.30, [0.9, 1.7], False, "pass"),
        (1.30, [1.1, 1.7], False, "pass"),  # at 99% from 1.04
        (1.30, [1.15, 1.5], False, "fail"),
        (0.70, [0.62, 0.8], False, "fail"),
        (None, [None, None], True, "insufficient data"),
    ],
)
def test_calibration(ratio: float | None, interval: list[float | None], primary: bool, outcome: str) -> None:
    assert gates.calibration("click", ratio, interval, 0.05, primary=primary).outcome == outcome


NO_NUMBERS = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("primary", [True, False])
@pytest.mark.parametrize("absurd", NO_NUMBERS)
def test_what_is_not_a_number_is_no_figure(absurd: float, primary: bool) -> None:
    silent = "insufficient data" if primary else "report"
    for place in ("auc", "low", "high"):
        figures = {"auc": 0.01, "low": 0.0, "high": 0.02, place: absurd}
        diff = {"auc": figures["auc"], "auc_interval": [figures["low"], figures["high"]], "auc_deviation": 0.01}
        found = gates.non_inferiority("click", "baseline clicks", diff, 0.01, primary=primary)
        assert (found.outcome, found.value) == (silent, None)
    assert gates.calibration("click", absurd, [0.9, 1.1], 0.05, primary=primary).outcome == silent
    assert gates.calibration("click", 9.0, [absurd, 9.1], 0.05, primary=False).outcome == "pass"
    assert gates.discrimination("click", absurd, 0.5).outcome == "insufficient data"
    assert gates.ece("click", absurd, 0.01, 0.01).outcome == "insufficient data"
    assert gates.ece("click", 0.01, absurd, 0.01).outcome == "insufficient data"
    assert gates.churn("click", {"requests": 1, "rank_correlation": absurd, "top_kept": 1.0}, 0.1).outcome == "report"
    harmed = {"auc": absurd, "auc_deviation": 0.01}
    assert gates.segments("click", "production", {"a": harmed}, 0.01).outcome == "pass"
    assert gates.segments("click", "production", {"a": {"auc": 0.1, "auc_deviation": absurd}}, 0.01).outcome == "pass"


@pytest.mark.parametrize("absurd", NO_NUMBERS)
def test_a_model_whose_probabilities_are_no_numbers_is_refused(absurd: float) -> None:
    found = gates.export_parity(absurd, 1e-4)
    assert (found.outcome, found.value) == ("fail", None)
    assert "are not finite numbers" in found.reason


def test_harm_in_one_segment_is_shown_only_after_holms_correction() -> None:
    borderline = {"auc": -0.03, "auc_interval": [-0.05, -0.01], "auc_deviation": 0.01}
    fine = {"auc": 0.0, "auc_interval": [-0.01, 0.01], "auc_deviation": 0.005}
    alone = gates.segments("click", "production", {"a": borderline}, 0.01)
    among = gates.segments("click", "production", {"a": borderline, **{f"s{i}": fine for i in range(9)}}, 0.01)
    assert (alone.outcome, among.outcome) == ("fail", "pass")


def test_every_spoiled_candidate_is_refused_and_the_unspoiled_passes() -> None:
    rows = scored(12_000)
    segments = {"all": np.arange(12_000) % 2 == 0}
    config = Evaluation(auc_margin=0.02)
    trials = selftest.self_test(rows, segments, config, ("click",), lambda shuffled: 0.3 if shuffled else 0.0)
    assert [trial for trial in trials if not trial.good] == []
    assert {trial.spoiled.split()[0] for trial in trials} == {
        "nothing",
        "logits",
        "AUC",
        "segment",
        "one",
        "heads",
        "order",
    }
    assert selftest.verdict(trials).outcome == "pass"


def test_order_within_requests_is_compared_and_its_top() -> None:
    requests = np.array(["b", "a", "a", "a", "a", "b", "c"])
    theirs = np.array([0.1, 0.9, 0.8, 0.2, 0.1, 0.2, 0.5])
    assert churn(requests, theirs, theirs, 10) == {"requests": 2, "rank_correlation": 1.0, "top_kept": 1.0}
    swapped = np.array([0.1, 0.9, 0.2, 0.8, 0.1, 0.2, 0.5])  # one of a's two best is another
    found = churn(requests, swapped, theirs, 10)
    assert found is not None
    assert found["rank_correlation"] == pytest.approx((0.8 + 1.0) / 2)
    assert found["top_kept"] == pytest.approx((0.5 + 1.0) / 2)
    assert gates.churn("click", found, 0.9).outcome == "pass"
    assert gates.churn("click", found, 0.91).outcome == "fail"
    assert gates.churn("click", churn(requests, -theirs, theirs, 1), -0.9).outcome == "fail"


def test_without_requests_of_several_items_churn_is_only_reported() -> None:
    assert churn(np.arange(5), np.arange(5.0), np.arange(5.0), 3) is None
    assert churn(np.zeros(0), np.zeros(0), np.zeros(0), 3) is None
    assert churn(np.zeros(4), np.full(4, 0.2), np.arange(4.0), 3) is None
    assert gates.churn("click", None, 0.3).outcome == "report"


def test_blind_gates_stop_the_run() -> None:
    rows = scored(12_000)
    trials = selftest.self_test(rows, {}, Evaluation(auc_margin=0.02), ("click",), lambda _: 0.0)
    assert selftest.verdict(trials).outcome == "fail"
    assert "one feature shuffled" in selftest.verdict(trials).reason


def reference() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    return random.normal(size=5000), np.ones(5000), np.arange(5000) // 1000


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (lambda values: values, "pass"),
        (lambda values: values + 2, "fail"),
        (lambda values: np.where(np.arange(len(values)) % 2 == 0, np.nan, values), "fail"),
    ],
)
def test_a_column_that_moved_or_emptied_is_refused(change: object, outcome: str) -> None:
    values, weights, days = reference()
    one = sketch(values, weights, days)
    found = shares(one, change(values), weights)  # type: ignore[operator]
    assert column_finding("x", "stop", one, found, Drift()).outcome == outcome


@pytest.mark.parametrize("absurd", NO_NUMBERS)
def test_a_number_that_is_not_finite_is_a_missing_one(absurd: float) -> None:
    values, weights, days = np.arange(1000.0), np.ones(1000), np.repeat(["a", "b"], 500)
    spoiled = np.where(np.arange(1000) % 2, values, absurd)
    missing = np.where(np.arange(1000) % 2, values, np.nan)
    assert sketch(spoiled, weights, days) == sketch(missing, weights, days)
    found = column_finding(
        "x", "stop", sketch(values, weights, days), shares(sketch(values, weights, days), spoiled, weights), Drift()
    )
    assert (found.outcome, found.null_share) == ("fail", 0.5)


def test_a_new_category_counts_as_other() -> None:
    weights, days = np.ones(1000), np.arange(1000) // 500
    one = sketch(np.array(["a", "b"] * 500, dtype=object), weights, days)
    moved = shares(one, np.array(["a", "z"] * 500, dtype=object), weights)
    assert column_finding("x", "warn", one, moved, Drift()).outcome == "warn"


@pytest.mark.parametrize(("now", "outcome"), [(0.1, "pass"), (0.16, "fail"), (0.06, "fail")])
def test_a_label_rate_may_move_by_its_factor(now: float, outcome: str) -> None:
    before = Rate(10_000, 100_000)
    assert label_finding("click", "stop", before, Rate(now * 100_000, 100_000), Drift()).outcome == outcome


@pytest.mark.parametrize(("positives", "outcome"), [(0, "pass"), (9, "pass"), (40, "fail")])
def test_a_rare_label_needs_more_than_noise(positives: int, outcome: str) -> None:
    before = Rate(40, 40_000)
    assert label_finding("like", "stop", before, Rate(positives, 4_000), Drift()).outcome == outcome


def test_too_few_rows_are_insufficient_data() -> None:
    assert verdicts([], 10, 100_000, Drift())[0].outcome == "insufficient data"


def test_the_drift_gates_tell_spoiled_from_unspoiled() -> None:
    values, weights, days = reference()
    trials = self_test({"x": sketch(values, weights, days)}, {"click": Rate(50, 5000)}, Drift())
    assert {t["spoiled"] for t in trials} > {"nothing", "column emptied", "column shifted", "label rate raised"}
    assert all(t["good"] for t in trials)


def test_a_tiny_first_day_does_not_blind_the_drift_gate() -> None:
    values, weights, _ = reference()
    days = np.where(np.arange(5000) < 20, 0, 1 + np.arange(5000) // 1000)
    moved = np.where(days == 0, values + 10, values)
    one = sketch(moved, weights, days, least_rows=500)
    assert one.variation < 0.1
    assert column_finding("hour", "stop", one, shares(one, values + 2, weights), Drift()).outcome == "fail"


def test_a_column_that_stops_but_cannot_is_called_blind() -> None:
    values, weights, days = reference()
    one = dataclasses.replace(sketch(values, weights, days), variation=50.0)
    trials = self_test({"hour": one}, {}, Drift(null_share=1.0), {"hour": "stop"})
    assert any(not trial["good"] for trial in trials)


def test_a_constant_score_has_the_roc_of_chance() -> None:
    points = roc(Prepared.of(np.array([0, 0, 1, 1]), np.full(4, 0.3), np.ones(4)))
    assert points == [[0.0, 0.0, 1.0], [1.0, 1.0, 0.3]]


def test_a_misspelt_segment_is_refused() -> None:
    table = pa.table({"surface": ["a", "b"]})
    with pytest.raises(BadInput, match="found 'surfac'"):
        segment_rows(table, ("surfac",), 1)


def test_a_clearly_better_candidate_passes_against_a_baseline() -> None:
    wide = {"auc": 0.08, "auc_interval": [0.05, 0.11], "auc_deviation": 0.015}
    assert gates.non_inferiority("click", "baseline item_rate", wide, 0.01, primary=True).outcome == "pass"
    assert gates.non_inferiority("click", "production", wide, 0.01, primary=True).outcome == "insufficient data"


@pytest.mark.parametrize(("off", "outcome"), [(0.0, "pass"), (0.1, "fail")])
def test_the_ece_gate_forgives_chance_alone(off: float, outcome: str) -> None:
    random = np.random.default_rng(5)
    p = random.uniform(0.05, 0.85, 2_000)
    prepared = Prepared.of((random.random(2_000) < p).astype(float), p + off, np.ones(2_000))
    value, noise = float(prepared.metrics()["ece"][0]), ece_noise(prepared)
    assert value > 0.015
    assert gates.ece("click", value, noise, 0.015).outcome == outcome


def test_gates_are_not_called_blind_for_a_candidate_near_chance() -> None:
    rows = scored(12_000)
    order = np.random.default_rng(6).permutation(12_000)
    guess = rows.with_probabilities(rows.probabilities[order])
    trials = selftest.self_test(guess, {}, Evaluation(auc_margin=0.02), ("click",), float)
    assert selftest.verdict(trials).outcome == "pass"
    assert [trial for trial in trials if "near chance" in trial.outcome]
