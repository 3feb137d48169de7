"""``understudy runs``: the record of what was run, in the lake; and with ``--kubeflow`` what runs there."""

from typing import Any

import click

from understudy.cli import cluster_runs
from understudy.cli.kubeflow import place_options
from understudy.cli.output import json_option, lake_option, print_json, print_table
from understudy.lake import Lake
from understudy.runs import Run

__all__ = ["runs"]

_kubeflow_option = click.option("--kubeflow", is_flag=True, help="Of Kubeflow Pipelines, not of the lake.")
_config_option = click.option("--config", metavar="FILE", help="With --kubeflow: whose section `pipeline` is used.")


@click.group()
def runs() -> None:
    """Look at runs; on Kubeflow Pipelines, start and follow them."""


runs.add_command(cluster_runs.submit)
runs.add_command(cluster_runs.wait)


@runs.command("list")
@lake_option
@_kubeflow_option
@_config_option
@place_options
@json_option
def list_runs(
    lake: str, kubeflow: bool, config: str | None, host: str | None, namespace: str | None, as_json: bool
) -> None:
    """Every run of the lake: window, status, steps. With --kubeflow: the newest runs there."""
    if kubeflow:
        cluster_runs.print_list(config, host, namespace, as_json)
        return
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
@_kubeflow_option
@_config_option
@place_options
@json_option
def show_run(
    run_id: str,
    lake: str,
    kubeflow: bool,
    config: str | None,
    host: str | None,
    namespace: str | None,
    as_json: bool,
) -> None:
    """One run: steps, seconds, verdicts, and what went wrong. The beginning of its id is enough."""
    if kubeflow:
        cluster_runs.print_run(run_id, config, host, namespace, as_json)
        return
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
        lines = whole["error"].get("lines", [])
        click.echo("\n".join([f"error in {whole['error']['step']}: {whole['error']['error']}", *lines]))


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
