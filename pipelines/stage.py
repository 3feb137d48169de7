"""The end of the demo: a new release goes on stage and becomes production; a spoiled one is taken back."""

import dataclasses
import os
import secrets
from collections.abc import Callable
from typing import Any

from pipelines.local import run_pipeline
from understudy.config import Config
from understudy.errors import GateFailed
from understudy.lake import Lake
from understudy.releases import aliases
from understudy.rollout.beginning import begin
from understudy.rollout.places import local_driver
from understudy.rollout.record import Rollouts
from understudy.rollout.state import State
from understudy.runs import Run
from understudy.section import duration_s
from understudy.simulator import feed
from understudy.simulator.days import Days
from understudy.simulator.spoiling import spoiled
from understudy.simulator.stage import Stage

__all__ = ["stories"]

_TOKEN = "UNDERSTUDY_SERVE_TOKEN"
Say = Callable[[str], None]


def stories(config: Config, lake: Lake, days: Days, say: Say) -> list[dict[str, Any]]:
    """Put two releases on stage, one after the other; those that have been there already stay as they ended.

    Returns:
        per rollout: ``title``, ``rollout``, ``phase``, ``reason``, and ``said``: the judge's sentences.
    """
    rollouts = Rollouts(lake)
    done = rollouts.ids()
    if len(done) < 1 or not rollouts.load(done[0])[1].ended:
        candidate = _candidate(config, lake, feed.day_of(days.world, days.state.day), say)
        if candidate is None:
            return []
        _play(config, lake, days, candidate, say)
    if len(done) < 2 or not rollouts.load(done[1])[1].ended:
        production = aliases(lake)["production"]
        _play(config, lake, days, spoiled(lake, production), say)
    titles = ("a new release", "the same, spoiled: it predicts e times the odds")
    return [_story(rollouts, one, title) for one, title in zip(rollouts.ids(), titles, strict=False)]


def _candidate(config: Config, lake: Lake, window_end: str, say: Say) -> str | None:
    """The window's release, which is not promoted by its run; None where a gate said no."""
    waiting = dataclasses.replace(config, rollout=dataclasses.replace(config.rollout, mode="none"))
    say(f"the pipeline for the window that ends on {window_end}; its release goes on stage")
    try:
        run = Run(lake, run_pipeline(waiting, lake.root, window_end))
    except GateFailed as error:
        say(f"{error}; nothing goes on stage")
        return None
    manifest = run.manifest("promote")
    assert manifest is not None, "run_pipeline returns when the last step is done"
    return str(manifest["figures"]["digest"])


def _play(config: Config, lake: Lake, days: Days, candidate: str, say: Say) -> State:
    token = os.environ.setdefault(_TOKEN, secrets.token_hex(16))
    most_days = duration_s(config.rollout.max_duration) // 86_400 + 2
    last = Rollouts(lake).last()
    state = last if last is not None and not last.ended else None
    while state is None and feed.day_of(days.world, days.state.day + 1) in days.present:
        days.next(days.popularity)  # a rollout that has ended took place then
    with local_driver(lake, config, 0, say, ("--replay",)) as (driver, url), Stage(days, driver, url, token) as stage:
        driver.clock = lambda: stage.now_s
        state = state or begin(lake, driver.record, driver.config, candidate, stage.now_s)
        say(f"rollout {state.id}: {candidate[:12]} is on stage against {state.stable[:12]}")
        return stage.play(state.id, int(most_days))


def _story(rollouts: Rollouts, rollout_id: str, title: str) -> dict[str, Any]:
    _, state = rollouts.load(rollout_id)
    said = [one["said"] for one in rollouts.history(rollout_id)]
    return {"title": title, "rollout": rollout_id, "phase": state.phase, "reason": state.reason, "said": said}
