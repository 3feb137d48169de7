"""``understudy runs``: the record of what was run."""

from typing import Any

import click

from understudy.cli.output import json_option, lake_option, print_json, print_table
from understudy.lake import Lake
from understudy.runs import Run

__all__ = ["runs"]


@click.group()
def runs() -> None:
    """Look at runs."""


@runs.command("list")
@lake_option
@json_option
def list_runs(lake: str, as_json: bool) -> None:
    """Every run of the lake: window, status, steps."""
    found = [_brief(run) for run in Run.all(Lake.open(lake))]
    if as_json:
        print_json(found)
        return
    rows = [
        (r["run"], r["purpose"], r["window"]["start"], r["window"]["end"], r["status"], len(r["steps"])) for r in found
    ]
    print_table("runs", ("run", "purpose", "from", "to", "status", "steps"), rows)


@runs.command("show")
@click.argument("run_id", metavar="RUN")
@lake_option
@json_option
def show_run(run_id: str, lake: str, as_json: bool) -> None:
    """One run: steps, seconds, verdicts, and what went wrong. The beginning of its id is enough."""
    run = Run.find(Lake.open(lake), run_id)
    steps = run.committed_steps()
    verdicts = [{"step": step, **v} for step, manifest in steps.items() for v in manifest["verdicts"]]
    whole = _brief(run) | {"verdicts": verdicts, "seconds": {s: m["seconds"] for s, m in steps.items()}}
    if as_json:
        figures = {step: manifest["figures"] for step, manifest in steps.items()}
        print_json(whole | {"plan": run.plan().to_json(), "figures": figures})
        return
    print_table(f"run {run.id}: {whole['status']}", ("step", "seconds"), list(whole["seconds"].items()))
    print_table(
        "verdicts",
        ("step", "gate", "outcome", "why"),
        [(v["step"], v["gate"], v["outcome"], v["reason"]) for v in verdicts],
    )
    if whole["error"]:
        click.echo(f"error in {whole['error']['step']}: {whole['error']['error']}")


def _brief(run: Run) -> dict[str, Any]:
    plan = run.plan()
    return {
        "run": run.id,
        "purpose": plan.purpose,
        "window": {"start": plan.window_start, "end": plan.window_end},
        "status": run.status(),
        "teacher": plan.teacher,
        "production": plan.production,
        "steps": sorted(run.committed_steps()),
        "error": run.last_error(),
    }
