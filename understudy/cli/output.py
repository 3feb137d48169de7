"""How commands print: tables for people, JSON for machines."""

import json
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

__all__ = ["config_option", "json_option", "lake_option", "number", "print_json", "print_table", "short"]

config_option = click.option(
    "--config", required=True, help="Configuration in YAML; examples/ has some.", metavar="FILE"
)
lake_option = click.option(
    "--lake", default="./lake", show_default=True, help="Folder or URI of the lake.", metavar="DIR"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def print_json(value: Any) -> None:
    """A value as JSON on stdout."""
    click.echo(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout; numbers to the right."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)


def number(value: Any, digits: int = 4) -> str:
    """A figure with a fixed number of digits, or a dash."""
    return "–" if value is None else f"{float(value):.{digits}f}"


def short(digest: str | None) -> str:
    """The beginning of a digest."""
    return digest[:12] if digest else "–"
