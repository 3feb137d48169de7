"""The closed loop with the real pipeline: every week of a simulated feed makes the next week's release."""

import sys
from collections.abc import Callable
from typing import Any

from pipelines.local import run_pipeline
from pipelines.stage import stories
from understudy.config import Config
from understudy.errors import BadInput, GateFailed
from understudy.lake import Lake
from understudy.runs import Run
from understudy.simulator.closed_loop import Settings, Week, run_weeks
from understudy.spark_server import serving

__all__ = ["closed_loop"]

_CONFIG = "simulator/config.yaml"


def closed_loop(
    config: Config,
    lake_uri: str,
    settings: Settings,
    say: Callable[[str], None],
    done: Callable[[Week], None],
    canary: bool = False,
) -> tuple[list[Week], list[dict[str, Any]]]:
    """Run the weeks; begun again on the same lake, it goes on where it stood.

    Args:
        canary: two releases go on stage after the weeks.

    Returns:
        the weeks, and the stories of what was on stage.

    Raises:
        BadInput: the lake was made with another world or configuration.
        GateFailed: the first window's gates said no, so nothing can rank.
    """
    lake = Lake.open_or_create(lake_uri)
    text = config.work() + "\n"
    if not lake.create(_CONFIG, text.encode()) and lake.read_bytes(_CONFIG).decode() != text:
        raise BadInput(
            f"lake {lake.root}: expected the configuration of its first week, found another; "
            "give the same options again, or another --lake"
        )
    ranking: list[str] = []

    def retrain(window_end: str) -> str:
        ranking.append(_release_of(config, lake, window_end, ranking[-1] if ranking else None, say))
        return ranking[-1]

    with serving():
        weeks, days = run_weeks(config, lake, settings, retrain, say, done)
        return weeks, stories(config, lake, days, say) if canary else []


def _release_of(config: Config, lake: Lake, window_end: str, before: str | None, say: Callable[[str], None]) -> str:
    """The release that ranks after a window: its own, or the one before where a gate said no."""
    say(f"the pipeline for the window that ends on {window_end}")
    try:
        run = Run(lake, run_pipeline(config, lake.root, window_end))
    except GateFailed as error:
        if before is None:
            raise
        print(f"{error}; {before[:12]} goes on ranking", file=sys.stderr, flush=True)
        return before
    manifest = run.manifest("promote")
    assert manifest is not None, "run_pipeline returns when the release is promoted"
    return str(manifest["figures"]["digest"])
