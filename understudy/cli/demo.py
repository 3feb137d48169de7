"""``understudy demo``."""

import dataclasses
import sys
import time
from typing import Any

import click

from understudy.cli.output import json_option, lake_option, number, print_json, print_table, short
from understudy.config import Config

__all__ = ["demo"]

_EXAMPLE = "examples/simulated.yaml"


@click.command()
@click.option("--weeks", default=2, show_default=True, type=click.IntRange(1, 52), help="With a release on stage.")
@click.option("--users", type=click.IntRange(10, 1_000_000), help="On the first day; default: the configuration's.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Another seed is another world.")
@click.option(
    "--ceiling",
    default="last",
    show_default=True,
    type=click.Choice(["last", "every", "none"]),
    help="Weeks in which the same network, taught by the truth, competes; a minute or two each.",
)
@click.option("--canary/--no-canary", default=True, show_default=True, help="Two releases go on stage in the end.")
@click.option("--config", default=_EXAMPLE, show_default=True, metavar="FILE", help="A configuration with a world.")
@click.option("--data", metavar="DIR", help="Real logs (KuaiRand) instead: two releases from them.")
@lake_option
@json_option
def demo(
    weeks: int,
    users: int | None,
    seed: int,
    ceiling: str,
    canary: bool,
    config: str,
    data: str | None,
    lake: str,
    as_json: bool,
) -> None:
    """Watch a ranker keep itself fresh for several weeks.

    A feed is simulated, so the truth is known. Each week is ranked by the release of the week before,
    logged the way a real feed logs it, and makes the next release through the whole pipeline. The table
    says how close the ranker came to the best possible one, and what one that is never retrained loses.
    In the end a new release goes on stage before some of the people and becomes everybody's, and a spoiled
    one is taken back.

    \b
    understudy demo --lake lake
    understudy demo --weeks 4 --users 1000 --seed 7 --lake other
    understudy demo --data path/to/kuairand --lake real
    """
    if data is not None:
        if as_json:
            raise click.UsageError("--json: expected a simulated feed, found --data; `understudy releases list` has it")
        from pipelines.demo import real_logs

        sys.exit(real_logs(data, lake))
    from pipelines.closed_loop import closed_loop
    from understudy.config import load
    from understudy.lake import Lake
    from understudy.report.closed_loop import write
    from understudy.simulator.closed_loop import Settings
    from understudy.simulator.days import world_of

    started = time.monotonic()
    whole = _with_options(load(config), users, seed)
    world = world_of(whole)
    settings = Settings(weeks=weeks, ceiling=ceiling)
    say = _saying(started)
    played, stories = closed_loop(whole, lake, settings, say, lambda week: _tell(say, week.to_json()), canary)
    found = [week.to_json() for week in played]
    headline = _headline(found)
    page = write(Lake.open(lake), found, dataclasses.asdict(world), settings.times, headline, stories)
    if as_json:
        print_json({"seed": seed, "weeks": found, "headline": headline, "on_stage": stories, "page": page})
        return
    _print(found)
    for story in stories:
        click.echo(f"\non stage: {story['title']}: {story['phase']}")
        for sentence in story["said"]:
            click.echo(f"  {sentence}")
    click.echo("")
    click.echo(headline)
    click.echo(f"page: {page}")
    click.echo(f"{time.monotonic() - started:.0f} s in all")


def _with_options(config: Config, users: int | None, seed: int) -> Config:
    if config.world is None:
        return config
    world = dataclasses.replace(config.world, seed=seed, users=users or config.world.users)
    return dataclasses.replace(config, world=world, training=dataclasses.replace(config.training, seed=seed))


def _saying(started: float) -> Any:
    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {text}", file=sys.stderr, flush=True)

    return say


def _tell(say: Any, week: dict[str, Any]) -> None:
    shares = ", ".join(f"{n} {f['lift']:.1%}" for n, f in week["figures"].items() if n not in ("random", "oracle"))
    say(f"week {week['number']}: {shares} of the oracle's lift over random")


def _print(weeks: list[dict[str, Any]]) -> None:
    names = ("refreshed", "frozen", "popularity", "ceiling")
    rows = []
    for week in weeks:
        figures = week["figures"]
        lifts = (f"{figures[name]['lift']:.1%}" if name in figures else "–" for name in names)
        own = figures.get("refreshed", {})
        aucs = (own.get("auc"), figures.get("frozen", {}).get("auc"), figures["oracle"]["auc"])
        ranked_by = short(week["release"]) if week["release"] else "popularity"
        ratio = number(own.get("calibration_ratio"), 3)
        rows.append((week["number"], week["first_day"], ranked_by, *lifts, *(number(auc) for auc in aucs), ratio))
    columns = ("week", "from", "ranked by", *names, "AUC refreshed", "frozen", "best", "calibration, random slice")
    print_table("share of the oracle's lift over random, under the truth", columns, rows)


def _headline(weeks: list[dict[str, Any]]) -> str:
    last = weeks[-1]["figures"]
    own, frozen = last["refreshed"]["lift"], last["frozen"]["lift"]
    text = f"In the last week the refreshed ranker reaches {own:.0%} of the oracle's lift over random"
    if "ceiling" in last:
        text += f", {own / last['ceiling']['lift']:.0%} of its ceiling's"
    return f"{text}; the first one, never retrained, {frozen:.0%}, and popularity {last['popularity']['lift']:.0%}."
