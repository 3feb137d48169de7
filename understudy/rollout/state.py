"""Where a rollout stands, what was seen, what was decided: plain values that travel as JSON."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from understudy.experiments import Arms, Outcomes, ramp
from understudy.rollout.config import Rollout

__all__ = ["ENDED", "ArmSeen", "Decision", "Seen", "State", "arms_of", "releases_of"]

ENDED = ("promoted", "aborted", "rejected")


@dataclass(frozen=True)
class State:
    """A rollout between two ticks.

    Args:
        id: its order of buckets follows from it.
        candidate, stable: digests. previous, month: of the holdouts while the rollout is on; empty: as ``stable``.
        month_s: when the holdout ``month`` was drawn, seconds since 1970.
        phase: ``running``, ``paused``, or how it ended: ``promoted``; ``aborted``, a fault or harm was shown;
            ``rejected``, no verdict or a person's word.
        step: place in ``Rollout.steps``.
        started_s, step_s, looked_s, data_s: when the rollout began, the step began, people's doings were last looked
            at, and requests were last seen; seconds since 1970.
        looks: at what people did, so far.
        harmless: whether the step's looks have shown no harm, and there was one.
        strikes: guardrail → ticks in a row that missed it.
        reason: why it ended, as quarantine has it: ``harm``, ``scoring``, ``data``, ``other``; empty: nothing to mark.
        told: whether an alert has told of its end.
    """

    id: str
    candidate: str
    stable: str
    started_s: float
    step_s: float
    looked_s: float
    data_s: float
    phase: str = "running"
    step: int = 0
    looks: int = 0
    harmless: bool = False
    strikes: dict[str, int] = field(default_factory=dict)
    reason: str = ""
    previous: str = ""
    month: str = ""
    month_s: float = 0.0
    told: bool = False

    @classmethod
    def begin(cls, rollout_id: str, candidate: str, stable: str, now_s: float, **more: Any) -> "State":
        """A rollout at its first step."""
        return cls(rollout_id, candidate, stable, now_s, now_s, now_s, now_s, **more)

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "State":
        return cls(**value)


@dataclass(frozen=True)
class ArmSeen:
    """What was seen of an arm; None: nothing is known of it.

    Args:
        requests, errors: in the tick.
        p99_ms, memory_mb: in the tick, of its worst process.
        restarts: since the rollout began.
        scores: head → mean prediction in the step, of ``scored`` requests.
        users: in the step.
        outcomes: metric → what its users did in the step, on impressions older than the attribution window.
        calibration: head → what its users did (y) against what was predicted (n), likewise.
    """

    requests: int | None = None
    errors: int | None = None
    p99_ms: float | None = None
    memory_mb: float | None = None
    restarts: int | None = None
    scores: dict[str, float] = field(default_factory=dict)
    scored: int = 0
    users: int | None = None
    outcomes: dict[str, Outcomes] = field(default_factory=dict)
    calibration: dict[str, Outcomes] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """One tick: the canary and the baseline at the same time, with the same cut."""

    now_s: float
    canary: ArmSeen = field(default_factory=ArmSeen)
    baseline: ArmSeen = field(default_factory=ArmSeen)


@dataclass(frozen=True)
class Decision:
    """The next state, and in sentences why; no sentence where nothing has changed."""

    state: State
    sentences: tuple[str, ...] = ()


def arms_of(state: State, config: Rollout) -> Arms:
    """Which buckets see which arm. Once a rollout has ended it is all-new or all-stable, but for the holdouts."""
    canary = 100 if state.phase == "promoted" else 0 if state.ended else config.steps[state.step]
    return ramp(state.id, canary, config.held, str(int(state.month_s)))


def releases_of(state: State) -> dict[str, str]:
    """Arm → digest. Once promoted the candidate is everybody's but the holdouts'; the baseline is stable's release."""
    promoted = state.phase == "promoted"
    return {
        "stable": state.candidate if promoted else state.stable,
        "canary": state.candidate,
        "baseline": state.stable,
        "previous": state.stable if promoted else state.previous or state.stable,
        "month": state.month or state.stable,
    }
