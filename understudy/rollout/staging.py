"""A run's release on stage: its rollout is begun, or found again, and waited for where the configuration says so."""

import time
from collections.abc import Callable

from understudy.config import Config
from understudy.lake import Lake
from understudy.rollout.beginning import begin
from understudy.rollout.places import local_driver
from understudy.rollout.record import Record, Rollouts
from understudy.rollout.state import State

__all__ = ["stage"]


def stage(lake: Lake, config: Config, digest: str, say: Callable[[str], None]) -> tuple[State, str]:
    """Put a release on stage; the state in which its rollout ended or was left, and what was said last.

    Called again, it goes on with the rollout that it began.

    Raises:
        BadInput: another rollout is on, or the release can't go on stage.
    """
    rollout = config.rollout
    if not rollout.namespace:
        record: Record = Rollouts(lake)
        state = _begun(lake, record, digest)
        say(f"rollout {state.id}: {digest[:12]} is on stage")
        if rollout.wait and not (state.ended and state.told):
            with local_driver(lake, config, rollout.port, say) as (driver, _):
                state = driver.drive(state.id)
        return state, _last(record, state)
    from understudy.rollout.cluster.api import connect
    from understudy.rollout.cluster.record import ClusterRollouts
    from understudy.rollout.places import cluster_driver

    record = ClusterRollouts(connect(rollout.namespace), lake)
    state = _begun(lake, record, digest)
    say(f"rollout {state.id}: {digest[:12]} is on stage in namespace {rollout.namespace}")
    if rollout.wait and not (state.ended and state.told):
        state = cluster_driver(lake, record, config, say).drive(state.id)
    return state, _last(record, state)


def _begun(lake: Lake, record: Record, digest: str) -> State:
    last = record.last()
    return last if last is not None and last.candidate == digest else begin(lake, record, digest, time.time())


def _last(record: Record, state: State) -> str:
    history = record.history(state.id)
    return str(history[-1]["said"]) if history else ""
