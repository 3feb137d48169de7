"""A run's release on stage: its rollout is begun, or found again, and waited for where the configuration says so."""

import time
from collections.abc import Callable

from understudy.config import Config
from understudy.errors import Later, first_line
from understudy.lake import Lake
from understudy.rollout.beginning import begin
from understudy.rollout.config import Rollout
from understudy.rollout.places import local_driver, need_folder
from understudy.rollout.record import Record, Rollouts
from understudy.rollout.state import State

__all__ = ["stage"]

_LOOK_S = 10.0


def stage(lake: Lake, config: Config, digest: str, say: Callable[[str], None]) -> tuple[State, str]:
    """Put a release on stage; the state in which its rollout ended or was left, and what was said last.

    Called again, it goes on with the rollout that it began.

    Raises:
        BadInput: another rollout is on, or the release can't go on stage.
    """
    rollout = config.rollout
    if not rollout.namespace:
        need_folder(lake)
        record: Record = Rollouts(lake)
        state = _begun(lake, record, rollout, digest)
        say(f"rollout {state.id}: {digest[:12]} is on stage")
        if rollout.wait and not (state.ended and state.told):
            with local_driver(lake, config, rollout.port, say) as (driver, _):
                state = driver.drive(state.id)
        return state, _last(record, state)
    from understudy.kubernetes_api import connect
    from understudy.rollout.cluster.record import ClusterRollouts

    record = ClusterRollouts(connect(rollout.namespace), lake)
    state = _begun(lake, record, rollout, digest)
    say(f"rollout {state.id}: {digest[:12]} is on stage in namespace {rollout.namespace}; the driver there judges it")
    if rollout.wait:
        state = _watched(record, state, say)
    return state, _last(record, state)


def _watched(record: Record, state: State, say: Callable[[str], None]) -> State:
    """Wait for the end that another driver brings about, and say what is decided."""
    said = 0
    while True:
        try:
            history = record.history(state.id)
            for one in history[said:]:
                say(str(one["said"]))
            said = len(history)
            _, state = record.load(state.id)
            if state.ended and state.told:
                return state
        except Later as error:
            say(f"later: {first_line(error)}")
        time.sleep(_LOOK_S)


def _begun(lake: Lake, record: Record, config: Rollout, digest: str) -> State:
    last = record.last()
    if last is not None and last.candidate == digest:
        return last
    return begin(lake, record, config, digest, time.time())


def _last(record: Record, state: State) -> str:
    history = record.history(state.id)
    return str(history[-1]["said"]) if history else ""
