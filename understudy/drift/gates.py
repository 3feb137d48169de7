"""The drift gates: pure functions from sketches and bounds to findings."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from understudy.drift.config import Drift
from understudy.drift.sketches import Sketch, psi
from understudy.runs.record import Verdict

__all__ = ["Finding", "Rate", "column_finding", "label_finding", "self_test", "verdicts"]

_DEVIATIONS = 2.0


@dataclass(frozen=True)
class Rate:
    """How often an outcome came: weighted positives of the weighted rows whose label is known."""

    positives: float
    weight: float

    @property
    def value(self) -> float:
        return self.positives / max(self.weight, 1e-12)


@dataclass(frozen=True)
class Finding:
    """What a column showed.

    Args:
        action: ``stop``, ``warn`` or ``report``: what drift of this column means.
        psi, bound: drift and what is allowed; for a label, its rate's factor.
        outcome: ``pass``, ``fail``, ``warn`` or ``report``.
        reason: one sentence with the figures.
    """

    column: str
    action: str
    psi: float
    bound: float
    null_share: float
    outcome: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def column_finding(column: str, action: str, reference: Sketch, found: Any, config: Drift) -> Finding:
    """Compare a column's shares on the new days with its sketch."""
    value = psi(reference.shares, found)
    bound = max(config.psi_floor, config.psi_factor * reference.variation)
    nulls, before = float(found[-1]), reference.null_share
    if nulls - before > config.null_share:
        reason = f"{column}: {nulls:.0%} missing, {before:.0%} in the reference (at most {config.null_share:.0%} more)"
        return Finding(column, action, round(value, 9), bound, round(nulls, 9), _outcome(action), reason)
    drifted = not value <= bound  # what is not a number keeps no bound
    reason = f"{column}: PSI {value:.3f} against the reference, bound {bound:.3f}"
    outcome = _outcome(action) if drifted else "pass"
    return Finding(column, action, round(value, 9), round(bound, 9), round(nulls, 9), outcome, reason)


def label_finding(head: str, action: str, before: Rate, now: Rate, config: Drift) -> Finding:
    """Compare a head's rate on the new days with the reference's, beyond the noise of rare positives.

    The logarithm of the factor of two Poisson counts a, b has the variance 1/a + 1/b; half a positive
    is added to each, so that none at all is a figure too.
    """
    positives = before.positives + 0.5, now.positives + 0.5
    factor = positives[1] / max(now.weight, 1e-12) / (positives[0] / max(before.weight, 1e-12))
    bound = config.label_rate_factor * math.exp(_DEVIATIONS * math.sqrt(1 / positives[0] + 1 / positives[1]))
    reason = (
        f"rate of {head}: {now.value:.4f}, {before.value:.4f} in the reference (factor {factor:.2f}, at most "
        f"{config.label_rate_factor:g} up or down, {bound:.2f} with the noise of {now.positives:.0f} positives)"
    )
    outcome = "pass" if 1 / bound <= factor <= bound else _outcome(action)
    return Finding(f"label_{head}", action, round(factor, 9), round(bound, 9), 0.0, outcome, reason)


def verdicts(findings: list[Finding], rows: int, reference_rows: int, config: Drift) -> list[Verdict]:
    """One verdict per column that drifted, or one that says that none did."""
    if min(rows, reference_rows) < config.min_rows:
        reason = (
            f"expected {config.min_rows} rows on either side, found {rows} new and {reference_rows} in the reference"
        )
        return [Verdict("drift", "insufficient data", "rows", rows, reason, low=config.min_rows)]
    drifted = [f for f in findings if f.outcome in ("fail", "warn")]
    found = [
        Verdict(f"drift: {f.column}", f.outcome, f"drift of {f.column}", f.psi, f.reason, high=f.bound)
        for f in sorted(drifted, key=lambda f: (f.outcome, f.column))
    ]
    passed = len(findings) - len(drifted)
    return [
        *found,
        Verdict("drift", "pass", "columns", None, f"{passed} of {len(findings)} columns and labels keep their bounds"),
    ]


def self_test(
    sketches: dict[str, Sketch], rates: dict[str, Rate], config: Drift, actions: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Offer the reference itself, unspoiled and spoiled: the gates must tell one from the other.

    Args:
        actions: column → action. A column that stops must be able to; one that cannot stop may vary so
            much from day to day that no shift exceeds its bound. None: every column stops.
    """
    trials = []
    for column, one in sketches.items():
        kept = np.array(one.shares)
        nulled = np.append(np.zeros(len(kept) - 1), 1.0)
        moved = np.zeros(len(kept))
        moved[np.argmin(kept[:-1])] = 1.0
        trials.append(_trial("nothing", column_finding(column, "stop", one, kept, config), refused=False))
        if one.null_share + config.null_share < 1:
            trials.append(_trial("column emptied", column_finding(column, "stop", one, nulled, config)))
        stops = actions is None or actions[column] == "stop"
        if stops or psi(one.shares, moved) > max(config.psi_floor, config.psi_factor * one.variation):
            trials.append(_trial("column shifted", column_finding(column, "stop", one, moved, config)))
    for head, rate in rates.items():
        if rate.positives <= 0:
            continue
        trials.append(_trial("nothing", label_finding(head, "stop", rate, rate, config), refused=False))
        spoiled = 1.1 * label_finding(head, "stop", rate, rate, config).bound
        for name, moved_rate in (
            ("label rate raised", Rate(rate.positives * spoiled, rate.weight)),
            ("label rate lowered", Rate(rate.positives, rate.weight * spoiled)),
        ):
            trials.append(_trial(name, label_finding(head, "stop", rate, moved_rate, config)))
    return trials


def _trial(spoiled: str, finding: Finding, *, refused: bool = True) -> dict[str, Any]:
    good = (finding.outcome == "fail") == refused
    return {"spoiled": spoiled, "gate": f"drift: {finding.column}", "outcome": finding.outcome, "good": good}


def _outcome(action: str) -> str:
    return {"stop": "fail", "warn": "warn", "report": "report"}[action]
