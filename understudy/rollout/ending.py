"""What the end of a rollout does to releases. Done again, it changes nothing."""

from contextlib import suppress
from dataclasses import replace

from understudy.alerts import tell
from understudy.lake import Lake
from understudy.releases import aliases, move, quarantined
from understudy.releases.lifecycle import put_in_quarantine
from understudy.releases.mirror import keep_mirror
from understudy.rollout.record import Moved, Record
from understudy.rollout.state import Decision, State

__all__ = ["end"]


def end(lake: Lake, record: Record, state: State) -> State:
    """Promoted: the candidate becomes production. Anything else: it is marked, and spreads where it is at fault.

    Where a person moved production meanwhile, it stays. An alert tells of the end, more than once where a driver is
    killed meanwhile; one that can't be sent is on stderr. MLflow, where the environment names it, is told last.

    Returns:
        the state that has told of it.
    """
    assert state.ended, "a rollout that is on has no end"
    if state.told:
        return state
    history = record.history(state.id)
    sentence = str(history[-1]["said"]) if history else ""
    note = _bring(lake, state, sentence)
    tell(f"rollout {state.id}: {sentence}{note}", details={"candidate": state.candidate, "stable": state.stable})
    number, newest = record.load(state.id)
    told = Decision(replace(newest, told=True), (note.strip("; "),) if note else ())
    with suppress(Moved):
        record.advance(number, newest, told)
    keep_mirror(lake.uri())
    return told.state


def _bring(lake: Lake, state: State, sentence: str) -> str:
    """Do it; what a person must know beside the sentence."""
    if state.phase != "promoted":
        put_in_quarantine(lake, state.candidate, state.reason or "other", f"rollout {state.id}: {sentence}")
        return ""
    production = aliases(lake).get("production")
    if production == state.candidate:
        return ""
    if production != state.stable or state.candidate in quarantined(lake):
        now = (production or "none")[:12]
        return f"; but production is {now} by now or the candidate is in quarantine: production stays"
    changes: dict[str, str | None] = {"production": state.candidate, "previous": state.stable}
    move(lake, changes, f"promoted by rollout {state.id}", expected={"production": state.stable})
    return ""
