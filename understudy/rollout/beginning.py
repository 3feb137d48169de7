"""How a rollout begins, and what its holdouts see while it is on."""

import datetime

from understudy import releases
from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.rollout.config import Rollout
from understudy.rollout.record import Record
from understudy.rollout.state import State

__all__ = ["begin"]

_MONTH_S = 28 * 86_400


def begin(lake: Lake, record: Record, config: Rollout, ref: str, now_s: float, asked: str = "") -> State:
    """Record a rollout of a release against production.

    The holdout ``previous`` keeps the release before production; ``month`` keeps its release for 28 days, then its
    buckets are drawn anew and get what is production now.

    Args:
        ref: of the candidate.
        asked: what a person has asked for beside the record, which this answers.

    Raises:
        BadInput: no such release, it is production or in quarantine, or another rollout has not ended.
    """
    candidate, stable = releases.load(lake, ref).digest, releases.resolve(lake, "production")
    sick = releases.quarantined(lake)
    if candidate == stable:
        raise BadInput(f"release {candidate[:12]}: expected another release than production, found production itself")
    if candidate in sick:
        raise BadInput(f"release {candidate[:12]}: expected a healthy release, found one in quarantine")
    last = record.last()
    previous = releases.aliases(lake).get("previous") or ""
    month, month_s = (last.month, last.month_s) if last is not None else ("", 0.0)
    if not month or month in sick or now_s - month_s >= _MONTH_S:
        month, month_s = stable, now_s
    state = State.begin(
        f"{datetime.datetime.fromtimestamp(now_s, datetime.UTC):%Y%m%d-%H%M%S}-{candidate[:6]}",
        candidate,
        stable,
        now_s,
        previous="" if previous in sick else previous,
        month=month,
        month_s=month_s,
        steps=config.steps,
        held=config.held,
    )
    record.begin(state, f"begun: {candidate[:12]} against {stable[:12]}", asked)
    return state
