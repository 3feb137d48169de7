"""The gates: pure functions from figures and bounds to verdicts.

A figure that is not a finite number is no figure: no gate passes by it, nor calls a release worse for it.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

from understudy.runs.record import Verdict

__all__ = ["calibration", "churn", "discrimination", "ece", "export_parity", "non_inferiority", "segments", "size"]

_LEVEL = 0.05

_Z_99_95 = 2.5758 / 1.9600  # half-widths of normal intervals


def non_inferiority(head: str, against: str, diff: dict[str, Any] | None, margin: float, *, primary: bool) -> Verdict:
    """AUC of candidate − reference. A primary head must show that it loses less than the margin.

    Other heads are too rare to show it: they stop on harm shown, an interval wholly below the same margin.
    Against a baseline, which ranks by other means, the interval is wide; one above zero shows enough.
    """
    gate, figure = f"non-inferiority: {head}", f"AUC {head}, candidate − {against}"
    if diff is None or not all(map(_is_known, (diff["auc"], *diff["auc_interval"]))):
        outcome = "insufficient data" if primary else "report"
        return Verdict(gate, outcome, figure, None, f"{figure}: no positives or no negatives to compare", low=-margin)
    low, high = diff["auc_interval"]
    text = f"{figure} is {diff['auc']:+.4f}, 95% interval [{low:+.4f}, {high:+.4f}]"
    if not primary:
        outcome = "fail" if high < -margin else "pass"
        return Verdict(
            gate, outcome, figure, diff["auc"], f"{text}; only a loss beyond {margin:g} shown stops this head"
        )
    better = against.startswith("baseline") and low > 0
    if (high - low) / 2 > margin and not better:
        reason = f"{text}: wider than ±{margin:g}, so it shows nothing; use more days, or a wider margin"
        return Verdict(gate, "insufficient data", figure, diff["auc"], reason, low=-margin)
    outcome = "pass" if low > -margin else "fail"
    reason = f"{text}; its lower end must lie above {-margin:+.4f}"
    return Verdict(gate, outcome, figure, diff["auc"], reason, low=-margin)


def discrimination(head: str, auc: float | None, least: float) -> Verdict:
    """An absolute floor under a primary head's AUC."""
    gate, figure = f"AUC: {head}", f"AUC {head}"
    if not _is_known(auc):
        return Verdict(gate, "insufficient data", figure, None, f"{figure}: undefined on these rows", low=least)
    outcome = "pass" if auc >= least else "fail"
    return Verdict(gate, outcome, figure, auc, f"{figure} is {auc:.4f}; it must be at least {least:g}", low=least)


def calibration(
    head: str, ratio: float | None, interval: Sequence[float | None], error: float, *, primary: bool
) -> Verdict:
    """Σp / Σy. A primary head's must lie within 1 ± error; another's 99% interval must reach that band.

    Args:
        interval: of 95%. Rare heads are several, and judged in every run: at 95% one in ten runs would stop by chance.
    """
    gate, figure, low, high = f"calibration: {head}", f"calibration ratio {head}", 1 - error, 1 + error
    if not _is_known(ratio):
        outcome = "insufficient data" if primary else "report"
        return Verdict(gate, outcome, figure, None, f"{figure}: no positives", low=low, high=high)
    if primary:
        outcome = "pass" if low <= ratio <= high else "fail"
        reason = f"{figure} is {ratio:.4f}; it must lie within [{low:.4g}, {high:.4g}]"
        return Verdict(gate, outcome, figure, ratio, reason, low=low, high=high)
    first, last = _wider(ratio, interval)
    apart = first is not None and last is not None and (first > high or last < low)
    shown = f"[{first:.3f}, {last:.3f}]" if first is not None and last is not None else "unknown"
    reason = f"{figure} is {ratio:.4f}, 99% interval {shown}; the interval must reach [{low:.4g}, {high:.4g}]"
    return Verdict(gate, "fail" if apart else "pass", figure, ratio, reason, low=low, high=high)


def _wider(ratio: float, interval: Sequence[float | None]) -> tuple[float | None, float | None]:
    """A ratio's 99% interval from its 95% one, on the logarithmic scale."""
    low, high = interval
    if not _is_known(low) or not _is_known(high):
        return None, None
    if min(low, high, ratio) <= 0:
        return low, high
    return ratio * (low / ratio) ** _Z_99_95, ratio * (high / ratio) ** _Z_99_95


def ece(head: str, value: float | None, noise: float | None, most: float) -> Verdict:
    """A primary head's equal-mass expected calibration error, beyond what chance gives a perfect model.

    Args:
        noise: of ``metrics.ece_noise``.
    """
    gate, figure = f"ECE: {head}", f"ECE {head}"
    if not _is_known(value) or not _is_known(noise):
        return Verdict(gate, "insufficient data", figure, None, f"{figure}: undefined on these rows", high=most)
    bound = round(math.hypot(most, noise), 9)
    outcome = "pass" if value <= bound else "fail"
    reason = f"{figure} is {value:.4f}; it must be at most {bound:.4f} ({most:g} and the noise of these rows)"
    return Verdict(gate, outcome, figure, value, reason, high=bound)


def churn(head: str, found: dict[str, Any] | None, least: float) -> Verdict:
    """How much of production's order within requests a primary head keeps.

    Args:
        found: as ``churn.churn`` gives it; without a request of several items there is nothing to judge.
    """
    gate, figure = f"churn: {head}", f"rank correlation with production, {head}"
    if found is None or not _is_known(found["rank_correlation"]):
        return Verdict(gate, "report", figure, None, f"{figure}: no request has several items", low=least)
    value = found["rank_correlation"]
    reason = (
        f"{figure} is {value:.3f} over {found['requests']} requests, {found['top_kept']:.0%} of the top kept; "
        f"it must be at least {least:g}"
    )
    return Verdict(gate, "pass" if value >= least else "fail", figure, value, reason, low=least)


def segments(head: str, against: str, found: dict[str, dict[str, Any] | None], margin: float) -> Verdict:
    """No segment may show that it loses more than the margin, after Holm's correction over segments.

    Args:
        found: segment → paired difference, as ``scored.difference`` gives it.
    """
    gate, figure = f"segments: {head}", f"AUC {head} per segment, candidate − {against}"
    known = {name: d for name, d in found.items() if d is not None and _is_known(d["auc"])}
    tested = sorted((_p_of_harm(d, margin), name) for name, d in known.items())
    harmed = []
    for place, (p, name) in enumerate(tested):
        if p > _LEVEL / (len(tested) - place):
            break
        harmed.append(name)
    if not harmed:
        return Verdict(
            gate, "pass", figure, None, f"{figure}: a loss beyond {margin:g} is shown in none of {len(tested)} segments"
        )
    worst = known[harmed[0]]
    reason = (
        f"{figure}: more than {margin:g} lost in {', '.join(harmed)} ({worst['auc']:+.4f} in {harmed[0]}), "
        "shown after Holm's correction"
    )
    return Verdict(gate, "fail", figure, worst["auc"], reason, low=-margin, detail={"segments": harmed})


def export_parity(value: float, most: float) -> Verdict:
    """Largest difference of a probability between the trained network and the exported file."""
    gate, figure = "export parity", "export difference"
    if not _is_known(value):
        reason = "probabilities of the network, or of the exported file, are not finite numbers; see what it was fed"
        return Verdict(gate, "fail", figure, None, reason, high=most)
    good = value <= most
    reason = (
        f"the exported file's probabilities {'agree with' if good else 'differ from'} the network's (bound {most:g})"
    )
    return Verdict(gate, "pass" if good else "fail", figure, value, reason, high=most)


def size(value_mb: float, most_mb: float) -> Verdict:
    """Size of the exported file."""
    outcome = "pass" if value_mb <= most_mb else "fail"
    reason = f"served.onnx has {value_mb:.2f} MB; it may have {most_mb:g}"
    return Verdict("size", outcome, "served.onnx in MB", round(value_mb, 6), reason, high=most_mb)


def _p_of_harm(diff: dict[str, Any], margin: float) -> float:
    """One-sided p-value of "loses no more than the margin", from the bootstrap's deviation."""
    beyond, deviation = diff["auc"] + margin, diff["auc_deviation"]
    if not _is_known(deviation) or deviation == 0:
        return 0.0 if beyond < 0 else 1.0
    return 0.5 * math.erfc(-beyond / deviation / math.sqrt(2))


def _is_known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
