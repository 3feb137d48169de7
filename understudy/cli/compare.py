"""``understudy compare``."""

import sys
from pathlib import Path
from typing import Any

import click

from understudy.cli.output import json_option, lake_option, number, print_json, print_table

__all__ = ["compare"]


@click.command()
@click.argument("configs", nargs=-1, required=True, metavar="A.yaml B.yaml ...")
@lake_option
@click.option("--window-end", metavar="DAY", help="Last day of the window; default: the newest complete day.")
@click.option(
    "--seeds", default=3, show_default=True, type=click.IntRange(1, 100), help="How often each is trained.", metavar="N"
)
@json_option
def compare(configs: tuple[str, ...], lake: str, window_end: str | None, seeds: int, as_json: bool) -> None:
    """Train several configurations on one window and tell them apart.

    All are trained with the same seeds and scored on the same users of the last day; each is compared with the first.
    Intervals are of paired differences, over users and seeds. Nothing is released. What is trained is kept: the same
    command, stopped or with one more configuration, trains only what is missing.

    \b
    understudy compare examples/generated.yaml mine.yaml --lake lake --seeds 5
    """
    from understudy.comparison import compare as run
    from understudy.config import load
    from understudy.errors import BadInput
    from understudy.lake import Lake
    from understudy.report import comparison as page
    from understudy.spark_server import serving

    if len(configs) < 2:
        raise BadInput(f"compare: expected two configurations or more, found {len(configs)}; name another file")
    names = [Path(one).stem for one in configs]
    known = names if len(set(names)) == len(names) else list(configs)
    if len(set(known)) < len(known):
        raise BadInput("compare: expected each configuration once, found one of them twice")
    loaded = {name: load(path) for name, path in zip(known, configs, strict=True)}
    with serving():
        found = run(
            lake, loaded, window_end, seeds, lambda text: print(f"compare: {text}", file=sys.stderr, flush=True)
        )
    where = page.write(Lake.open(lake), found)
    if as_json:
        print_json({**found, "report": where})
        return
    for head, figures in found["heads"].items():
        rows = [_row(name, one, found["costs"][name]) for name, one in figures.items()]
        columns = ("configuration", "AUC", "− first", "log loss", "− first", "calibration ratio", "rows", "s", "MB")
        print_table(f"{head}: {found['rows']} rows of {found['window']['end']}, {seeds} seeds", columns, rows)
    click.echo(f"report: {where}")


def _say(text: str) -> None:
    print(f"compare: {text}", file=sys.stderr, flush=True)


def _row(name: str, figures: dict[str, Any], costs: dict[str, Any]) -> tuple[Any, ...]:
    diff = figures.get("difference")
    return (
        name,
        number(figures["auc"]),
        _interval(diff, "auc"),
        number(figures["log_loss"]),
        _interval(diff, "log_loss"),
        number(figures["calibration_ratio"], 3),
        round(costs["rows"]),
        number(costs["seconds"], 0),
        number(costs["bytes"] / 1e6, 1),
    )


def _interval(diff: dict[str, Any] | None, name: str) -> str:
    if diff is None:
        return ""
    low, high = diff[f"{name}_interval"]
    return f"{diff[name]:+.4f} [{low:+.4f}, {high:+.4f}]"
