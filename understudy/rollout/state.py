"""Where a rollout stands, what was seen, what was decided: plain values that travel as JSON."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from understudy import renames
from understudy.experiments import Arms, Outcomes, ramp
from understudy.formats import Format
from understudy.rollout.config import Rollout

__all__ = ["ENDED", "ArmSeen", "Decision", "Seen", "State", "arms_of", "held_of", "releases_of", "steps_of"]

# Names that change are in ``renames``; a step is for whatever else does.
_FORMAT: Format[dict[str, Any]] = Format("state", 1, "end the rollout with the version that began it")
ENDED = ("promoted", "aborted", "rejected")
PHASES = ("running", "paused", *ENDED)
_TEXTS = ("id", "candidate", "stable", "phase", "reason", "previous", "month")
_NUMBERS = ("started_s", "step_s", "looked_s", "data_s", "month_s")
_COUNTS = ("step", "looks", "held")
_FIGURES = ("requests", "errors", "p99_ms", "memory_mb", "restarts", "users")


@dataclass(frozen=True)
class State:
    """A rollout between two ticks.

    Args:
        id: its order of buckets follows from it.
        candidate, stable: digests. previous, month: of the holdouts while the rollout is on; empty: as ``stable``.
        month_s: when the holdout ``month`` was drawn, seconds since 1970.
        steps, held: as the configuration had them when the rollout began; empty: as it has them now.
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
    steps: tuple[int, ...] = ()
    held: int = 0
    told: bool = False

    @classmethod
    def begin(cls, rollout_id: str, candidate: str, stable: str, now_s: float, **more: Any) -> "State":
        """A rollout at its first step."""
        return cls(rollout_id, candidate, stable, now_s, now_s, now_s, now_s, **more)

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | _FORMAT.mark()

    @classmethod
    def from_json(cls, value: Any) -> "State":
        """Read back what ``to_json`` gave, also in an earlier version.

        Raises:
            ValueError: it is something else.
            BadInput: this version does not read its format.
        """
        fields = {one.name: one for one in dataclasses.fields(cls)}
        if not isinstance(value, dict):
            raise ValueError("expected a rollout's state")
        value = _FORMAT.unmarked(value, f"rollout {value.get('id')}")
        value = {name: one for name, one in renames.state_fields(value).items() if name != "version"}  # of the mark
        if unknown := sorted(map(str, value.keys() - fields.keys())):
            raise ValueError(f"expected a rollout's state, found unknown fields: {', '.join(unknown)}")
        known = {**value, "steps": tuple(value.get("steps") or ())}
        missing = [name for name, one in fields.items() if _is_needed(one) and name not in known]
        wrong = [name for name, one in known.items() if not _fits(name, one)]
        if missing or wrong:
            raise ValueError(
                f"expected a rollout's state, found {', '.join(missing or wrong)} missing or of another kind"
            )
        state = cls(**known)
        if state.phase not in PHASES or not 0 <= state.step < max(len(state.steps), 1 if state.steps else 100):
            raise ValueError(f"expected a rollout's state, found phase {state.phase!r}, step {state.step}")
        return state


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

    def known(self) -> "ArmSeen":
        """The same without what says nothing: a figure that is not finite, a mean prediction that is no probability.

        An arm with such a prediction has scored nothing that could be judged.
        """
        scores = {head: value for head, value in self.scores.items() if 0 <= value <= 1}
        whole = len(scores) == len(self.scores) and math.isfinite(self.scored)
        figures: dict[str, Any] = {name: getattr(self, name) for name in _FIGURES}
        silent: dict[str, Any] = {name: None for name, value in figures.items() if not math.isfinite(value or 0)}
        return dataclasses.replace(self, scores=scores, scored=self.scored if whole else 0, **silent)


@dataclass(frozen=True)
class Seen:
    """One tick: the canary and the baseline at the same time, with the same cut."""

    now_s: float
    canary: ArmSeen = field(default_factory=ArmSeen)
    baseline: ArmSeen = field(default_factory=ArmSeen)

    def known(self) -> "Seen":
        """The same without what says nothing."""
        return Seen(self.now_s, self.canary.known(), self.baseline.known())


@dataclass(frozen=True)
class Decision:
    """The next state, and in sentences why; no sentence where nothing has changed."""

    state: State
    sentences: tuple[str, ...] = ()


def steps_of(state: State, config: Rollout) -> tuple[int, ...]:
    """Buckets of the canary by step; a rollout keeps those that it began with."""
    return state.steps or config.steps


def arms_of(state: State, config: Rollout) -> Arms:
    """Which buckets see which arm. Once a rollout has ended it is all-new or all-stable, but for the holdouts."""
    canary = 100 if state.phase == "promoted" else 0 if state.ended else steps_of(state, config)[state.step]
    return ramp(state.id, canary, held_of(state, config), str(int(state.month_s)))


def held_of(state: State, config: Rollout) -> int:
    """Buckets of each holdout; a rollout keeps those that it began with."""
    return state.held if state.steps else config.held


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


def _is_needed(one: "dataclasses.Field[Any]") -> bool:
    return one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING


def _fits(name: str, value: Any) -> bool:
    """Whether a field's value is of its kind."""
    if name in _TEXTS:
        return isinstance(value, str)
    if name in _NUMBERS:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if name in _COUNTS:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if name == "steps":
        return all(isinstance(one, int) and 0 < one <= 100 for one in value)
    if name == "strikes":
        return isinstance(value, dict) and all(isinstance(one, int) for one in value.values())
    return isinstance(value, bool)
