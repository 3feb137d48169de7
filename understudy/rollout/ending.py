"""What the end of a rollout does to releases. Done again, it changes nothing."""

from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.releases import aliases, move, quarantined
from understudy.releases.lifecycle import put_in_quarantine
from understudy.rollout.state import State

__all__ = ["end"]


def end(lake: Lake, state: State, sentence: str) -> None:
    """Promoted: the candidate becomes production. Anything else: it is marked, and spreads where it is at fault.

    Args:
        sentence: the judge's last.

    Raises:
        BadInput: another release became production meanwhile, or the candidate went into quarantine.
    """
    assert state.ended, "a rollout that is on has no end"
    if state.phase != "promoted":
        put_in_quarantine(lake, state.candidate, state.reason or "other", f"rollout {state.id}: {sentence}")
        return
    if aliases(lake).get("production") == state.candidate:
        return
    if state.candidate in quarantined(lake):
        raise BadInput(f"release {state.candidate[:12]}: expected a healthy release, found one in quarantine")
    changes: dict[str, str | None] = {"production": state.candidate, "previous": state.stable}
    move(lake, changes, f"promoted by rollout {state.id}", expected={"production": state.stable})
