"""Guardrails: bounds on what servers do and say, looked at on every tick."""

from collections.abc import Iterator
from dataclasses import dataclass

from understudy.experiments import difference
from understudy.rollout.config import Guardrails
from understudy.rollout.state import ArmSeen, Seen

__all__ = ["Reading", "readings"]

_ERRORS = 3.0  # times the baseline's rate that a canary may fail
_CHANCE = 3e-5  # a shift of calibration counts where its interval excludes none, at one look in 30,000


@dataclass(frozen=True)
class Reading:
    """What a guardrail says: whether its bound was missed, in words, and why a release would be marked."""

    name: str
    missed: bool
    text: str
    reason: str = "other"


def readings(config: Guardrails, judged: tuple[str, ...], seen: Seen) -> Iterator[Reading]:
    """A reading of each guardrail that has something to say; one without data says nothing.

    Args:
        judged: metrics that must not be worse. The mean prediction of another head, such as a rare one, may move by
            itself from release to release: its calibration is held.
    """
    canary, baseline = seen.canary, seen.baseline
    if (canary.requests or 0) >= config.min_requests:
        yield from _serving(config, canary, baseline)
    if min(canary.scored, baseline.scored) >= config.min_scored:
        yield from _scores(config, judged, canary, baseline)
    if canary.memory_mb is not None:
        text = f"a process holds {canary.memory_mb:.0f} MB, the bound is {config.memory_mb:g}"
        yield Reading("memory", canary.memory_mb > config.memory_mb, text)
    if canary.restarts is not None:
        text = f"{canary.restarts} restarts, the bound is {config.restarts}"
        yield Reading("restarts", canary.restarts > config.restarts, text)
    yield from _calibration(config, canary, baseline)


def _serving(config: Guardrails, canary: ArmSeen, baseline: ArmSeen) -> Iterator[Reading]:
    assert canary.requests, "there are requests"
    if canary.errors is not None:
        rate = canary.errors / canary.requests
        usual = (baseline.errors or 0) / baseline.requests if baseline.requests else 0.0
        bound = max(config.error_rate, _ERRORS * usual)
        yield Reading("errors", rate > bound, f"{rate:.2%} of requests fail, the bound is {bound:.2%}")
    if canary.p99_ms is not None:
        text = f"p99 is {canary.p99_ms:.1f} ms, the bound is {config.p99_ms:g}"
        yield Reading("latency", canary.p99_ms > config.p99_ms, text)


def _scores(config: Guardrails, judged: tuple[str, ...], canary: ArmSeen, baseline: ArmSeen) -> Iterator[Reading]:
    for head in sorted(canary.scores.keys() & baseline.scores.keys() & set(judged)):
        if baseline.scores[head] > 0:
            shift = canary.scores[head] / baseline.scores[head] - 1
            text = f"{head} is predicted {shift:+.1%} off the baseline's mean, the bound is ±{config.score_shift:.0%}"
            yield Reading(f"scores {head}", abs(shift) > config.score_shift, text, "scoring")


def _calibration(config: Guardrails, canary: ArmSeen, baseline: ArmSeen) -> Iterator[Reading]:
    for head in sorted(canary.calibration.keys() & baseline.calibration.keys()):
        found = difference(canary.calibration[head], baseline.calibration[head])
        if found is None:
            continue
        low, high = found.bounds(_CHANCE)
        missed = abs(found.value) > config.calibration_shift and not low <= 0 <= high
        text = f"labels over predictions of {head} are {found.value:+.1%} off the baseline's, "
        yield Reading(f"calibration {head}", missed, f"{text}the bound is ±{config.calibration_shift:.0%}", "scoring")
