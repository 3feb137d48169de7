"""``understudy ingest`` and ``understudy generate``."""

import sys
from dataclasses import asdict

import click

from understudy.cli.output import config_option, json_option, lake_option, print_json, print_table

__all__ = ["generate", "ingest"]


@click.command()
@config_option
@click.option("--source", required=True, metavar="DIR", help="Folder with the raw log files.")
@lake_option
@json_option
def ingest(config: str, source: str, lake: str, as_json: bool) -> None:
    """Read raw logs into a lake.

    The configuration maps columns to user, item, time, surface, outcomes and attributes. Rows in =
    rows kept + duplicates + rejected. The same files again change nothing.

    \b
    understudy ingest --config examples/kuairand.yaml --source ~/KuaiRand-Pure/data --lake lake
    """
    from understudy.config import load
    from understudy.logs.ingest import ingest as read

    done = read(load(config), source, lake, lambda text: print(f"ingest: {text}", file=sys.stderr, flush=True))
    if as_json:
        print_json(asdict(done))
        return
    rows = [
        (table, c.rows, c.kept, c.duplicates, c.rejected, ", ".join(f"{r} ({n})" for r, n in c.reasons.items()))
        for table, c in done.tables.items()
    ]
    print_table("rows", ("table", "rows in", "kept", "duplicates", "rejected", "why"), rows)
    click.echo(f"the lake holds {done.first_day} to {done.last_day}{'' if done.changed else '; nothing has changed'}")


@click.command()
@click.option("--out", required=True, metavar="DIR", help="Folder to write into.")
@click.option("--seed", default=0, show_default=True, help="Another seed gives another world.")
@click.option("--rows", default=30_000, show_default=True, type=click.IntRange(1000, 10_000_000), help="Impressions.")
def generate(out: str, seed: int, rows: int) -> None:
    """Write small logs with a planted signal, in KuaiRand's layout.

    \b
    understudy generate --out build/logs
    understudy ingest --config examples/generated.yaml --source build/logs --lake lake
    """
    from understudy.simulator.kuairand import generate as write

    write(out, seed=seed, rows=rows)
    click.echo(f"wrote {rows} impressions into {out}")
