"""``understudy simulate``."""

import sys

import click

from understudy.cli.output import config_option, json_option, lake_option, number, print_json, print_table
from understudy.simulator.rankers import NAMES
from understudy.simulator.world import ACTIONS

__all__ = ["simulate"]


@click.command()
@config_option
@click.option("--days", required=True, type=click.IntRange(1, 3650), help="Days of the world, from its first.")
@click.option("--ranker", default="random", show_default=True, type=click.Choice(NAMES), help="Who ranks the feed.")
@lake_option
@json_option
def simulate(config: str, days: int, ranker: str, lake: str, as_json: bool) -> None:
    """Let a simulated feed run for some days and log what happens.

    Its truth is known: the true probability of every action lies beside the tables, where no step of
    the pipeline looks. Days that the lake holds already stay as they are.

    \b
    understudy simulate --config examples/simulated.yaml --days 8 --ranker popularity --lake lake
    understudy run --config examples/simulated.yaml --lake lake
    """
    from understudy.config import load
    from understudy.simulator.simulate import simulate as log

    found = log(load(config), lake, days, ranker, lambda text: print(f"simulate: {text}", file=sys.stderr, flush=True))
    if as_json:
        print_json(found)
        return
    columns = ("day", "requests", "served", "seen", "logged", "actions", "worth a request", *ACTIONS)
    rows = [
        (
            one["day"],
            one["requests"],
            one["served"],
            one["seen"],
            one["impressions"],
            one["actions"],
            number(one["worth_per_request"], 3),
            *(f"{one['rates'][action]:.2%}" for action in ACTIONS),
        )
        for one in found
    ]
    print_table(f"days ranked by {ranker}", columns, rows)
