"""``understudy features``: what serving reads."""

import click

from understudy.cli.output import config_option, lake_option

__all__ = ["features"]


@click.group()
def features() -> None:
    """Refresh what serving reads."""


@features.command("refresh")
@config_option
@lake_option
def refresh(config: str, lake: str) -> None:
    """Build the features of all logs in the lake and write them to the online store.

    \b
    understudy features refresh --config examples/kuairand.yaml --lake lake
    """
    from understudy.config import load
    from understudy.features.online import refresh_now

    pointer = refresh_now(load(config), lake)
    click.echo(f"features are current up to {pointer['window_end']}")
