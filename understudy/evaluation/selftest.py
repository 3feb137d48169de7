"""Gates prove that they can fail: the candidate, broken just beyond each bound, must be refused.

The unspoiled candidate stands in as the reference, so the outcome tells about the gates alone.
A gate that lets its spoiled candidate pass is blind, and the run stops.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from understudy.evaluation import gates
from understudy.evaluation.config import Evaluation
from understudy.evaluation.scored import Scored, churned, difference, summary
from understudy.runs.record import Verdict

__all__ = ["Trial", "logit", "self_test", "verdict"]

Floats = npt.NDArray[np.float64]

_CHANCE, _STEP = 0.5, 0.005
_MOST_STRETCHED = 100.0


@dataclass(frozen=True)
class Trial:
    """One spoiled candidate before the gate that is meant for it.

    Args:
        spoiled: how it was spoiled; ``nothing`` for the copy that must pass.
        gate: the gate's name.
        outcome: what the gate said, or ``skipped`` with the reason.
        good: whether that was right.
    """

    spoiled: str
    gate: str
    outcome: str
    good: bool

    def to_json(self) -> dict[str, Any]:
        return {"spoiled": self.spoiled, "gate": self.gate, "outcome": self.outcome, "good": self.good}


def self_test(
    candidate: Scored,
    segments: dict[str, npt.NDArray[np.bool_]],
    config: Evaluation,
    primary: tuple[str, ...],
    parity: Callable[[bool], float],
) -> list[Trial]:
    """Offer the candidate unspoiled and spoiled.

    Args:
        segments: name → rows; those with enough rows.
        primary: the heads that are spoiled, one after the other.
        parity: export difference; its argument says whether one feature is shuffled first.
    """
    trials = [
        _trial("nothing", gates.export_parity(parity(False), config.export_tolerance), passes=True),
        _trial("one feature shuffled", gates.export_parity(parity(True), config.export_tolerance)),
    ]
    for head in primary:
        trials += _of_head(candidate, segments, config, head)
    return trials


def _of_head(
    candidate: Scored, segments: dict[str, npt.NDArray[np.bool_]], config: Evaluation, head: str
) -> list[Trial]:
    if not candidate.usable(head):
        return [Trial("nothing", f"AUC: {head}", "skipped: no positives or no negatives", True)]
    level = _recalibrated(candidate, head, 1.0)
    trials = [_trial("nothing", verdict, passes=True) for verdict in _all(level, level, segments, config, head)]
    ratio = 1 + max(0.10, 2 * config.max_calibration_error)
    shifted = _recalibrated(candidate, head, ratio)
    trials.append(_trial(f"logits shifted to a ratio of {ratio:.2f}", _calibration(shifted, config, head)))
    trials += _lowered_trials(level, config, head)
    trials.append(_overconfident_trial(level, config, head))
    trials.append(_segment_trial(level, segments, config, head))
    trials.append(_swapped_trial(level, config, head))
    trials += _churn_trials(level, config, head)
    return trials


def _lowered_trials(level: Scored, config: Evaluation, head: str) -> list[Trial]:
    """Below production by twice the margin, and just below the floor; chance can't be lowered."""
    auc = float(summary(level, head)["auc"])
    spoiled, by = "AUC lowered by twice the margin", 2 * config.auc_margin
    if auc - by > _CHANCE:
        worse = _lowered(level, head, by, config.seed)
        trials = [_trial(spoiled, _non_inferiority(worse, level, config, head))]
    else:
        trials = [Trial(spoiled, f"non-inferiority: {head}", f"skipped: an AUC of {auc:.3f} is near chance", True)]
    spoiled, by = "AUC lowered below its floor", auc - config.min_auc + _STEP
    gate = f"AUC: {head}"
    if by <= 0 or config.min_auc - _STEP <= _CHANCE:
        why = "the candidate is below it" if by <= 0 else f"a floor of {config.min_auc:g} is chance"
        return [*trials, Trial(spoiled, gate, f"skipped: {why}", True)]
    lowest = summary(_lowered(level, head, by, config.seed), head)["auc"]
    return [*trials, _trial(spoiled, gates.discrimination(head, lowest, config.min_auc))]


def _overconfident_trial(level: Scored, config: Evaluation, head: str) -> Trial:
    """Logits stretched, at a ratio of 1, until the ECE lies just beyond its bound."""
    h, z = level.heads.index(head), logit(level.probabilities[:, level.heads.index(head)])

    def stretched(factor: float) -> Verdict:
        probabilities = level.probabilities.copy()
        probabilities[:, h] = 1 / (1 + np.exp(-(z * factor)))
        figures = summary(_recalibrated(level.with_probabilities(probabilities), head, 1.0), head)
        return gates.ece(head, figures["ece"], figures["ece_noise"], config.max_ece)

    factor = 1.0
    while factor < _MOST_STRETCHED:
        factor *= 1.25
        found = stretched(factor)
        assert found.value is not None, "the head is usable"
        if found.value > 1.1 * math.hypot(config.max_ece, summary(level, head)["ece_noise"]):
            return _trial(f"logits stretched by {factor:.1f}", found)
    return Trial("logits stretched", f"ECE: {head}", f"skipped: no stretch reaches {config.max_ece:g}", True)


def verdict(trials: list[Trial]) -> Verdict:
    """Whether every gate can see."""
    blind = [trial for trial in trials if not trial.good]
    if not blind:
        refused = sum(trial.spoiled != "nothing" and not trial.outcome.startswith("skipped") for trial in trials)
        return Verdict("self-test", "pass", "gates that can fail", None, f"{refused} spoiled candidates were refused")
    one = blind[0]
    reason = f"the gates are blind: {one.spoiled}, and gate {one.gate} said {one.outcome}"
    return Verdict("self-test", "fail", "gates that can fail", None, reason)


def logit(p: Floats) -> Floats:
    """log p / (1 − p), of probabilities kept away from 0 and 1."""
    p = np.clip(p, 1e-9, 1 - 1e-9)
    result: Floats = np.log(p) - np.log1p(-p)
    return result


def _trial(spoiled: str, found: Verdict, *, passes: bool = False) -> Trial:
    refused = found.outcome in ("fail", "insufficient data")
    return Trial(spoiled, found.gate, found.outcome, not refused if passes else found.outcome == "fail")


def _all(
    ours: Scored, theirs: Scored, segments: dict[str, npt.NDArray[np.bool_]], config: Evaluation, head: str
) -> list[Verdict]:
    return [
        _non_inferiority(ours, theirs, config, head),
        _calibration(ours, config, head),
        _segments(ours, theirs, segments, config, head),
    ]


def _non_inferiority(ours: Scored, theirs: Scored, config: Evaluation, head: str) -> Verdict:
    diff = difference(ours, theirs, head, resamples=config.bootstrap, seed=config.seed)
    return _judged(gates.non_inferiority(head, "itself", diff, config.auc_margin, primary=True), diff, config)


def _judged(found: Verdict, diff: dict[str, Any] | None, config: Evaluation) -> Verdict:
    """Too few rows to bound twice the margin is a fail here as well: the spoiled one does not pass."""
    if found.outcome == "insufficient data" and diff is not None and (diff["auc"] or 0) <= -config.auc_margin:
        return Verdict(found.gate, "fail", found.figure, found.value, found.reason, low=found.low)
    return found


def _calibration(ours: Scored, config: Evaluation, head: str) -> Verdict:
    ratio = summary(ours, head)["calibration_ratio"]
    return gates.calibration(head, ratio, [None, None], config.max_calibration_error, primary=True)


def _segments(
    ours: Scored, theirs: Scored, segments: dict[str, npt.NDArray[np.bool_]], config: Evaluation, head: str
) -> Verdict:
    found = {
        name: difference(ours.rows(rows), theirs.rows(rows), head, resamples=config.bootstrap, seed=config.seed)
        for name, rows in segments.items()
    }
    return gates.segments(head, "itself", found, config.auc_margin)


def _segment_trial(level: Scored, segments: dict[str, npt.NDArray[np.bool_]], config: Evaluation, head: str) -> Trial:
    if not segments:
        return Trial("one segment permuted", f"segments: {head}", "skipped: no segment has enough rows", True)
    name = max(segments, key=lambda one: (int(segments[one].sum()), one))
    at = np.flatnonzero(segments[name])
    permuted = level.probabilities.copy()
    h = level.heads.index(head)
    permuted[at, h] = permuted[np.random.default_rng(config.seed).permutation(at), h]
    found = _segments(level.with_probabilities(permuted), level, segments, config, head)
    return _trial(f"segment {name} permuted", found)


def _swapped_trial(level: Scored, config: Evaluation, head: str) -> Trial:
    others = [one for one in level.heads if one != head and level.usable(one)]
    if not others:
        return Trial("heads swapped", f"calibration: {head}", "skipped: there is one head", True)
    rates = np.nansum(level.labels * level.weights[:, None], axis=0)
    h = level.heads.index(head)
    other = max((level.heads.index(one) for one in others), key=lambda o: abs(np.log(rates[o] / rates[h])))
    swapped = level.probabilities.copy()
    swapped[:, [h, other]] = swapped[:, [other, h]]
    return _trial("heads swapped", _calibration(level.with_probabilities(swapped), config, head))


def _churn_trials(level: Scored, config: Evaluation, head: str) -> list[Trial]:
    same = gates.churn(head, churned(level, level, head, config.top), config.min_rank_correlation)
    if same.outcome == "report":
        return [Trial("order reversed", same.gate, "skipped: no request has several items", True)]
    turned = level.with_probabilities(1 - level.probabilities)
    found = gates.churn(head, churned(turned, level, head, config.top), config.min_rank_correlation)
    if config.min_rank_correlation <= -1:
        return [Trial("order reversed", found.gate, "skipped: a bound of -1 asks for nothing", True)]
    return [_trial("nothing", same, passes=True), _trial("order reversed", found)]


def _recalibrated(scored: Scored, head: str, ratio: float) -> Scored:
    """The candidate with one head's logits shifted so that its calibration ratio is as given."""
    h, rows = scored.heads.index(head), scored.known(head)
    z = logit(scored.probabilities[:, h])
    aim = ratio * float((scored.labels[rows, h] * scored.weights[rows]).sum())
    low, high = -20.0, 20.0
    for _ in range(60):
        shift = (low + high) / 2
        if float((scored.weights[rows] / (1 + np.exp(-(z[rows] + shift)))).sum()) < aim:
            low = shift
        else:
            high = shift
    probabilities = scored.probabilities.copy()
    probabilities[:, h] = 1 / (1 + np.exp(-(z + (low + high) / 2)))
    return scored.with_probabilities(probabilities)


def _lowered(scored: Scored, head: str, by: float, seed: int) -> Scored:
    """The candidate with a share of one head's scores permuted, so that its AUC falls by ``by``."""
    h = scored.heads.index(head)
    random = np.random.default_rng(seed)
    lot, order = random.random(len(scored.users)), random.permutation(len(scored.users))
    aim = float(summary(scored, head)["auc"]) - by
    low, high = 0.0, 1.0
    for _ in range(30):
        share = (low + high) / 2
        if float(summary(_permuted(scored, h, lot < share, order), head)["auc"]) > aim:
            low = share
        else:
            high = share
    return _permuted(scored, h, lot < high, order)


def _permuted(scored: Scored, h: int, which: npt.NDArray[np.bool_], order: npt.NDArray[np.int64]) -> Scored:
    probabilities = scored.probabilities.copy()
    at = np.flatnonzero(which)
    probabilities[at, h] = scored.probabilities[order[which[order]], h]
    return scored.with_probabilities(probabilities)
