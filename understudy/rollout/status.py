"""Where a rollout stands, for people and machines."""

import dataclasses
from typing import Any

from understudy.experiments import Arms, Outcomes, difference
from understudy.rollout.record import Record
from understudy.rollout.state import ArmSeen, Seen, releases_of

__all__ = ["status_of", "summary"]

_TAIL = 0.025


def summary(arms: Arms, seen: Seen) -> dict[str, Any]:
    """What a tick has seen, as JSON: buckets by arm, figures of both arms, relative differences with 95% intervals."""
    metrics = seen.canary.outcomes.keys() & seen.baseline.outcomes.keys()
    return {
        "at_s": seen.now_s,
        "buckets": {arm: arms.size(arm) for arm in ("stable", *arms.buckets)},
        "arms": {"canary": _figures(seen.canary), "baseline": _figures(seen.baseline)},
        "differences": {
            metric: found
            for metric in sorted(metrics)
            if (found := _difference(seen.canary.outcomes[metric], seen.baseline.outcomes[metric])) is not None
        },
    }


def status_of(record: Record, rollout_id: str) -> dict[str, Any]:
    """The state, the releases by arm, what was seen last, and what was said last."""
    number, state = record.load(rollout_id)
    said = record.history(state.id)
    return {
        "number": number,
        **state.to_json(),
        "releases": releases_of(state),
        "seen": record.seen(state.id),
        "said": said[-1]["said"] if said else None,
    }


def _figures(arm: ArmSeen) -> dict[str, Any]:
    found = dataclasses.asdict(arm)
    del found["outcomes"], found["calibration"]
    return found


def _difference(ours: Outcomes, theirs: Outcomes) -> dict[str, float] | None:
    found = difference(ours, theirs)
    if found is None:
        return None
    low, high = found.bounds(_TAIL)
    return {"value": found.value, "low": low, "high": high}
