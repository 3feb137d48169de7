"""Days of a simulated feed, logged into a lake."""

from collections.abc import Callable
from typing import Any

from understudy.config import Config
from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.simulator import feed
from understudy.simulator.days import Days, world_of
from understudy.simulator.rankers import NAMES, WORTH, Chance, Oracle
from understudy.simulator.traffic import Ranker
from understudy.simulator.world import ACTIONS

__all__ = ["simulate"]


def simulate(
    config: Config, lake_uri: str, days: int, ranker: str = "random", progress: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Log the first ``days`` days of the configured world; days that the lake holds stay as they are.

    Args:
        ranker: ``random``, ``popularity`` or ``oracle``.

    Returns:
        per day: ``day``, ``requests``, rows, ``worth`` per request (of the true probabilities) and rates.

    Raises:
        BadInput: the configuration has no world, or names other actions than the world knows.
    """
    world = world_of(config)
    if ranker not in NAMES:
        raise BadInput(f"--ranker {ranker!r}: expected one of {', '.join(NAMES)}; correct it")
    lake = Lake.open_or_create(lake_uri)
    going = Days(config, lake)
    choices: dict[str, Ranker] = {
        "random": Chance(world.seed),
        "popularity": going.popularity,
        "oracle": Oracle(going.state),
    }
    found = []
    for _ in range(days):
        day = going.next(choices[ranker])
        if day.rows is None:
            progress(f"{day.name}: in the lake already")
            continue
        requests, outcomes = len(day.requests), day.outcomes
        worth = float((outcomes.true @ WORTH)[outcomes.seen].sum() / max(requests, 1))
        rates = {action: float(outcomes.done[..., a][outcomes.seen].mean()) for a, action in enumerate(ACTIONS)}
        found.append({"day": day.name, "requests": requests, **day.rows, "worth_per_request": worth, "rates": rates})
        progress(
            f"{day.name}: {requests} requests, {day.rows['impressions']} of {day.rows['served']} served items logged"
        )
    feed.log_attributes(lake, config, going.state)
    return found
