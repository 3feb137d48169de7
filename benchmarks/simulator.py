"""How many impressions a second the simulated feed makes on one core, and what of that is its log.

One process on one core. The same days are made twice: requests, slates and outcomes alone, and with the log, the
truth and the features that serving would read.
"""

import argparse
import dataclasses
import os
import tempfile
import time

from understudy import config as configuration
from understudy.cli.output import print_table
from understudy.lake import Lake
from understudy.simulator.days import Days
from understudy.simulator.rankers import Popularity
from understudy.simulator.traffic import requests_of, respond
from understudy.simulator.world import new_state, next_day


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="examples/simulated.yaml")
    parser.add_argument("--requests", type=int, default=30_000, help="a day")
    parser.add_argument("--days", type=int, default=3)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    config = configuration.load(options.config)
    assert config.world is not None, "the configuration has a world"
    world = dataclasses.replace(config.world, requests_per_day=options.requests)
    rows = []
    state, popularity, made = new_state(world), Popularity(), 0
    started, cpu = time.monotonic(), time.process_time()
    for day in range(options.days):
        if day:
            next_day(state, world)
        requests = requests_of(state, world)
        outcomes = respond(state, world, requests, popularity(requests), 0.1)
        popularity.observe(outcomes)
        made += outcomes.items.size
    rows.append(_row("requests, slates, outcomes", made, time.monotonic() - started, time.process_time() - cpu))
    with tempfile.TemporaryDirectory(prefix="understudy-simulator-") as folder:
        days, made = Days(dataclasses.replace(config, world=world), Lake.open_or_create(f"{folder}/lake")), 0
        started, cpu = time.monotonic(), time.process_time()
        for _ in range(options.days):
            made += days.next(days.popularity).outcomes.items.size
        rows.append(_row("with log, truth and features", made, time.monotonic() - started, time.process_time() - cpu))
    print_table("simulated feed on one core", ("what", "impressions", "a second", "a second of CPU"), rows)


def _row(name: str, made: int, wall_s: float, cpu_s: float) -> tuple[str, int, str, str]:
    return name, made, f"{made / wall_s:,.0f}", f"{made / cpu_s:,.0f}"


if __name__ == "__main__":
    main()
