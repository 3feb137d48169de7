"""What the rank servers of an arm say of themselves at ``/metrics``, since the last look."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from prometheus_client.parser import text_string_to_metric_families

from understudy.http_calls import call
from understudy.rollout.state import ArmSeen, State

__all__ = ["Counted", "Tally", "read"]

_PREFIX = "understudy_serving_"
_TIMEOUT_S = 2.0
_MOST_BYTES = 4 << 20


@dataclass(frozen=True)
class Counted:
    """Counters of one or several servers, from their start.

    Args:
        requests, errors: that were answered, and those that failed (5xx). scored: slates; what was shed is none.
        buckets: upper bound in seconds → requests that took no longer.
        predicted: head → sum of predictions; ``candidates``: of how many.
        resident_bytes: memory of the process that holds the most now; 0: unknown.
    """

    requests: float = 0
    errors: float = 0
    scored: float = 0
    buckets: dict[float, float] = field(default_factory=dict)
    predicted: dict[str, float] = field(default_factory=dict)
    candidates: float = 0
    resident_bytes: float = 0

    def plus(self, other: "Counted", sign: int = 1) -> "Counted":
        """Sums, or differences; a server that started anew counts from zero."""

        def both(ours: dict, theirs: dict) -> dict:  # type: ignore[type-arg]
            return {key: max(0.0, ours.get(key, 0) + sign * theirs.get(key, 0)) for key in {**ours, **theirs}}

        return Counted(
            max(0.0, self.requests + sign * other.requests),
            max(0.0, self.errors + sign * other.errors),
            max(0.0, self.scored + sign * other.scored),
            both(self.buckets, other.buckets),
            both(self.predicted, other.predicted),
            max(0.0, self.candidates + sign * other.candidates),
            max(self.resident_bytes, other.resident_bytes) if sign > 0 else self.resident_bytes,
        )

    def p99_ms(self) -> float | None:
        """The 99th percentile, as Prometheus interpolates it within a bucket."""
        bounds = sorted(self.buckets)
        total = self.buckets[bounds[-1]] if bounds else 0
        if not total:
            return None
        below, low = 0.0, 0.0
        for bound in bounds:
            if self.buckets[bound] >= 0.99 * total:
                if math.isinf(bound):
                    return low * 1000
                share = (0.99 * total - below) / max(self.buckets[bound] - below, 1e-9)
                return (low + (bound - low) * share) * 1000
            below, low = self.buckets[bound], bound
        return low * 1000


def read(url: str) -> Counted | None:
    """Counters of the server at ``url``; None where it gives no such page."""
    try:
        found = parsed(call(f"{url}/metrics", limit_s=_TIMEOUT_S, most_bytes=_MOST_BYTES).decode())
    except Exception:  # half an answer, or another page, is none
        return None
    values = [found.requests, found.errors, found.scored, found.candidates, *found.buckets.values()]
    return found if all(map(math.isfinite, [*values, *found.predicted.values()])) else None


def parsed(text: str) -> Counted:
    """Counters of a page of metrics."""
    found = Counted()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name, labels, value = sample.name.removeprefix(_PREFIX), sample.labels, sample.value
            if name == "requests_total":
                failed = labels["status"].startswith("5")
                found = replace(found, requests=found.requests + value, errors=found.errors + value * failed)
            elif name == "users_total":
                found = replace(found, scored=found.scored + value)
            elif name == "request_seconds_bucket":
                found.buckets[float(labels["le"])] = found.buckets.get(float(labels["le"]), 0) + value
            elif name == "predicted_sum_total":
                found.predicted[labels["head"]] = value
            elif name == "candidates_total":
                found = replace(found, candidates=found.candidates + value)
            elif name == "resident_bytes" and math.isfinite(value):
                found = replace(found, resident_bytes=max(found.resident_bytes, value))
    return found


@dataclass
class Tally:
    """What processes counted, summed by arm from look to look; they may come, go and start anew meanwhile.

    What they had counted before the first look is left out.
    """

    last: dict[str, Counted] = field(default_factory=dict)
    step: dict[str, Counted] = field(default_factory=dict)
    at_step: tuple[int, float] | None = None

    def arms(self, state: State, counted: Mapping[str, Mapping[str, Counted | None]]) -> dict[str, ArmSeen]:
        """What was seen since the last look, and in the step.

        Args:
            counted: arm → process → its counters; None: it gave no answer.
        """
        is_first, at_step = self.at_step is None, (state.step, state.step_s)
        found = {}
        for arm, processes in counted.items():
            tick, answered = Counted(), False
            for name, now in processes.items():
                if now is not None:
                    tick, answered = tick.plus(self._grown(name, now, is_first)), True
                    self.last[name] = now
            self.step[arm] = self.step.get(arm, Counted()).plus(tick) if self.at_step == at_step else Counted()
            found[arm] = _seen(tick, self.step[arm]) if answered else ArmSeen()
        self.at_step = at_step
        return found

    def _grown(self, name: str, now: Counted, is_first: bool) -> Counted:
        before = self.last.get(name, now if is_first else Counted())
        return now if now.requests < before.requests else now.plus(before, -1)


def _seen(tick: Counted, step: Counted) -> ArmSeen:
    scores = {head: value / step.candidates for head, value in step.predicted.items()} if step.candidates else {}
    return ArmSeen(
        requests=int(tick.requests),
        errors=int(tick.errors),
        p99_ms=tick.p99_ms(),
        memory_mb=tick.resident_bytes / 2**20 or None,
        scores=scores,
        scored=int(step.scored),
    )
