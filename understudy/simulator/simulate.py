"""Days of a simulated feed, logged into a lake."""

from collections.abc import Callable
from typing import Any

from understudy.config import Config
from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.simulator import feed
from understudy.simulator.rankers import NAMES, WORTH, Chance, Oracle, Popularity
from understudy.simulator.traffic import Ranker, requests_of, respond
from understudy.simulator.world import ACTIONS, new_state, next_day

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
    world, logging = config.world, config.logging
    if world is None or logging is None:
        raise BadInput(
            "configuration: expected the keys world and logging, found one missing; see examples/simulated.yaml"
        )
    if unknown := sorted(set(config.heads) - set(ACTIONS)):
        raise BadInput(f"logging.heads: expected some of {', '.join(ACTIONS)}, found {unknown[0]!r}; correct its name")
    if ranker not in NAMES:
        raise BadInput(f"--ranker {ranker!r}: expected one of {', '.join(NAMES)}; correct it")
    lake = Lake.open_or_create(lake_uri)
    present = set(feed.logged_days(lake))
    state, popularity = new_state(world), Popularity()
    choices: dict[str, Ranker] = {"random": Chance(world.seed), "popularity": popularity, "oracle": Oracle(state)}
    found = []
    for day in range(days):
        if day:
            next_day(state, world)
        requests = requests_of(state, world)
        outcomes = respond(state, world, requests, choices[ranker](requests), logging.random_share)
        popularity.observe(outcomes)
        name = feed.day_of(world, day)
        if name in present:
            progress(f"{name}: in the lake already")
            continue
        rows = feed.log_day(lake, config, world, day, requests, outcomes, release=None)
        worth = float((outcomes.true @ WORTH)[outcomes.seen].sum() / max(len(requests), 1))
        rates = {action: float(outcomes.done[..., a][outcomes.seen].mean()) for a, action in enumerate(ACTIONS)}
        found.append({"day": name, "requests": len(requests), **rows, "worth_per_request": worth, "rates": rates})
        progress(f"{name}: {len(requests)} requests, {rows['impressions']} of {rows['served']} served items logged")
    feed.log_attributes(lake, config, state)
    return found
