"""How a rollout's status and history look to people."""

from typing import Any

import click

from understudy.cli.output import print_table, short
from understudy.rollout.state import ENDED

__all__ = ["print_history", "print_status"]


def print_status(found: dict[str, Any]) -> None:
    """Arms with their figures, differences, and the last sentence."""
    seen = found["seen"] or {"buckets": {}, "arms": {}, "differences": {}}
    title = f"rollout {found['id']}: {found['phase']}, step {found['step'] + 1}"
    columns = ("arm", "release", "buckets", "users", "requests", "errors", "p99 ms", "memory MB", "restarts", "scored")
    buckets = {} if found["phase"] in ENDED else seen["buckets"]
    rows = [
        (arm, short(release), buckets.get(arm, ""), *_figures(seen["arms"].get(arm, {})))
        for arm, release in found["releases"].items()
        if not buckets or arm in buckets
    ]
    print_table(title, columns, rows)
    for metric, one in seen["differences"].items():
        click.echo(f"{metric}: {one['value']:+.2%} [{one['low']:+.2%}, {one['high']:+.2%}] against the baseline")
    strikes = {name: count for name, count in found["strikes"].items() if count}
    for name, count in strikes.items():
        click.echo(f"guardrail {name}: missed {count} ticks in a row")
    click.echo(f"said last: {found['said'] or '–'}")


def print_history(found: list[dict[str, Any]]) -> None:
    """What was said, oldest first."""
    rows = [(one["at"], one["step"] + 1, one["phase"], one["said"]) for one in found]
    print_table("history", ("at", "step", "phase", "why"), rows)


def _figures(arm: dict[str, Any]) -> tuple[str, ...]:
    names = ("users", "requests", "errors", "p99_ms", "memory_mb", "restarts", "scored")
    return tuple("" if arm.get(name) is None else f"{arm[name]:.4g}" for name in names)
