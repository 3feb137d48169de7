"""A calibrator believes its rows as far as there are many of them, and the network for the rest."""

import numpy as np
import numpy.typing as npt
import pytest

from understudy.calibration.fit import affine_fit, fit_calibrator

Floats = npt.NDArray[np.float64]


def rows(count: int, shift: float, seed: int, base: float = -1.0) -> tuple[Floats, Floats, Floats]:
    """Logits, labels whose log odds are higher by ``shift``, and weights."""
    random = np.random.default_rng(seed)
    z = random.normal(base, 1.0, count)
    labels = (random.random(count) < 1 / (1 + np.exp(-(z + shift)))).astype(float)
    return z, labels, np.where(labels > 0, 1.0, random.choice([1.0, 5.0], count))


def moved(calibrator_logits: Floats, z: Floats) -> float:
    return float(np.mean(calibrator_logits - z))


@pytest.mark.parametrize("method", ["affine", "isotonic"])
def test_many_positives_decide_and_few_move_little(method: str) -> None:
    many, few = rows(200_000, 0.5, 0), rows(60, 0.5, 1)
    at = np.linspace(-3, 1, 50)
    plain = fit_calibrator(method, *many)
    assert moved(fit_calibrator(method, *many, 1000.0).logits(at), plain.logits(at)) == pytest.approx(0, abs=0.03)
    assert abs(moved(fit_calibrator(method, *few, 1000.0).logits(at), at)) < 0.15


def test_without_a_prior_it_is_the_plain_fit() -> None:
    found, plain = fit_calibrator("affine", *rows(2_000, 0.2, 2)), affine_fit(*rows(2_000, 0.2, 2))
    assert (found.scale, found.shift) == pytest.approx((plain.scale, plain.shift))


def test_the_prior_brings_rates_nearer_where_days_drift_by_a_few_percent() -> None:
    """Squared error of the log rate on another sample of the same day: nearer than all faith in either."""
    errors: dict[str, list[float]] = {"rows alone": [], "network alone": [], "both": []}
    for seed in range(150):
        shift = float(np.random.default_rng([seed, 7]).normal(0, 0.05))
        z, labels, _ = rows(1_500, shift, seed)
        fitted = {
            "rows alone": fit_calibrator("affine", z, labels, np.ones_like(z)),
            "both": fit_calibrator("affine", z, labels, np.ones_like(z), 500.0),
        }
        other = np.random.default_rng([seed, 8]).normal(-1.0, 1.0, 5_000)
        true = np.mean(1 / (1 + np.exp(-(other + shift))))
        said = {name: one.probabilities(other).mean() for name, one in fitted.items()}
        said["network alone"] = np.mean(1 / (1 + np.exp(-other)))
        for name, rate in said.items():
            errors[name].append(float(np.log(rate / true) ** 2))
    means = {name: np.mean(values) for name, values in errors.items()}
    assert means["both"] < means["rows alone"]
    assert means["both"] < means["network alone"]


def test_nothing_to_fit_is_the_identity() -> None:
    z = np.linspace(-2, 2, 20)
    assert fit_calibrator("affine", z, np.zeros(20), np.ones(20), 1000.0).logits(z) == pytest.approx(z)


def test_a_row_of_weight_three_counts_as_three_rows() -> None:
    z, labels, _ = rows(2_000, 0.4, 3)
    times = np.where(labels > 0, 3, 1)
    weighted = affine_fit(z, labels, times.astype(float))
    repeated = affine_fit(np.repeat(z, times), np.repeat(labels, times), np.ones(times.sum()))
    assert (weighted.scale, weighted.shift) == pytest.approx((repeated.scale, repeated.shift))


def test_a_slope_is_found_and_order_is_never_turned() -> None:
    z = np.random.default_rng(4).normal(0, 1, 20_000)
    rising, falling = (1 / (1 + np.exp(-(slope * z - 0.7))) for slope in (0.5, -0.5))
    found, turned = (affine_fit(z, labels, np.ones(20_000)) for labels in (rising, falling))
    assert (found.scale, found.shift) == pytest.approx((0.5, -0.7), abs=0.01)
    assert turned.scale == 1.0
    assert turned.probabilities(z).mean() == pytest.approx(falling.mean(), abs=0.01)
