"""``understudy runs submit`` and ``wait``, and what ``list`` and ``show`` print of Kubeflow Pipelines."""

import dataclasses
import sys
from typing import TYPE_CHECKING

import click

from understudy.cli.kubeflow import connected, kind_option, place_options
from understudy.cli.output import config_option, json_option, print_json, print_table

if TYPE_CHECKING:
    from pipelines.cluster_runs import ClusterRun
    from pipelines.connection import Connection
    from understudy.kubeflow.config import Pipeline

__all__ = ["print_list", "print_run", "submit", "wait"]

_lake_option = click.option("--lake", metavar="URI", help="As the steps see it; wins over pipeline.lake.")
_timeout_option = click.option(
    "--timeout", metavar="DURATION", help="Stop waiting after that, such as 2h; the run goes on."
)
_every_option = click.option("--every", default="10s", show_default=True, metavar="DURATION", help="How often to look.")


@click.command()
@config_option
@kind_option
@click.option("--window-end", metavar="DAY", help="Last day of the window; default: the newest complete day.")
@click.option("--again", is_flag=True, help="Run afresh, even where this window was run already.")
@_lake_option
@click.option("--wait", "waits", is_flag=True, help="Follow it to its end.")
@_timeout_option
@_every_option
@place_options
@json_option
def submit(
    config: str,
    kind: str,
    window_end: str | None,
    again: bool,
    lake: str | None,
    waits: bool,
    timeout: str | None,
    every: str,
    host: str | None,
    namespace: str | None,
    as_json: bool,
) -> None:
    """Start a run on Kubeflow Pipelines; the pipeline is uploaded where it is new.

    \b
    understudy runs submit --config my.yaml --wait
    """
    from pipelines import cluster_runs
    from understudy.config import load

    read = load(config)
    connection = connected(read.pipeline, host, namespace)
    parameters = {"window_end": window_end, "again": True if again else None}
    run, uploaded = cluster_runs.submit(connection, read, kind, lake, **parameters)
    if not waits:
        if as_json:
            print_json(_json(run) | {"version": uploaded.version})
        else:
            click.echo(f"run {run.id}: {run.name}, version {uploaded.version}")
        return
    _say(f"run {run.id}")
    _follow(connection, run.id, timeout, every, None, as_json)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--config", metavar="FILE", help="Whose section `pipeline` is used.")
@click.option(
    "--lake", metavar="URI", help="As this machine sees it, for why a run has failed; default: the run's own."
)
@_timeout_option
@_every_option
@place_options
@json_option
def wait(
    run_id: str,
    config: str | None,
    lake: str | None,
    timeout: str | None,
    every: str,
    host: str | None,
    namespace: str | None,
    as_json: bool,
) -> None:
    """Follow a run on Kubeflow Pipelines to its end; exit code 3 when a gate said no.

    \b
    understudy runs wait 4f1c… --config my.yaml
    """
    pipeline = _pipeline(config)
    connection = connected(pipeline, host, namespace)
    run = _find(connection, pipeline, run_id)
    _follow(connection, run.id, timeout, every, lake, as_json)


def print_list(config: str | None, host: str | None, namespace: str | None, as_json: bool) -> None:
    """The newest runs of the experiment."""
    from pipelines.cluster_runs import listed

    pipeline = _pipeline(config)
    found = listed(connected(pipeline, host, namespace), pipeline)
    if as_json:
        print_json([_json(one) for one in found])
        return
    rows = [(one.id, one.name, one.state.lower(), one.created_at, one.schedule and "schedule") for one in found]
    print_table("runs", ("run", "name", "state", "created", "by"), rows)


def print_run(run_id: str, config: str | None, host: str | None, namespace: str | None, as_json: bool) -> None:
    """One run with its steps."""
    pipeline = _pipeline(config)
    run = _find(connected(pipeline, host, namespace), pipeline, run_id)
    if as_json:
        print_json(_json(run))
        return
    print_table(f"run {run.id}: {run.state.lower()}", ("what", "value"), [("name", run.name), *run.parameters.items()])
    rows = [
        (step, one["state"].lower(), one["start"], None if one["seconds"] is None else f"{one['seconds']:.0f}")
        for step, one in run.steps.items()
    ]
    print_table("steps", ("step", "state", "began", "seconds"), rows)


def _follow(
    connection: "Connection", run_id: str, timeout: str | None, every: str, lake: str | None, as_json: bool
) -> None:
    from pipelines.cluster_runs import end_of
    from pipelines.cluster_runs import wait as follow

    run = follow(connection, run_id, every_s=_seconds("--every", every), limit_s=_limit(timeout), say=_say)
    if as_json:
        print_json(_json(run))
    end_of(run, lake)
    if not as_json:
        click.echo(f"run {run.id}: {run.state.lower()}")


def _find(connection: "Connection", pipeline: "Pipeline", run_id: str) -> "ClusterRun":
    """The run of that id; a unique beginning is enough among the newest."""
    from pipelines.cluster_runs import find, listed
    from understudy.errors import BadInput

    if len(run_id) == 36:
        return find(connection, run_id)
    found = [one for one in listed(connection, pipeline, most=200) if one.id.startswith(run_id)]
    if len(found) != 1:
        raise BadInput(
            f"run {run_id!r}: expected one of that id among the newest, found {len(found)}; "
            "`understudy runs list --kubeflow` shows them"
        )
    return find(connection, found[0].id)


def _pipeline(config: str | None) -> "Pipeline":
    from understudy.config import load
    from understudy.kubeflow.config import Pipeline

    return load(config).pipeline if config else Pipeline()


def _limit(timeout: str | None) -> float | None:
    return _seconds("--timeout", timeout) if timeout else None


def _seconds(option: str, text: str) -> float:
    from understudy.errors import BadInput
    from understudy.section import duration_s

    try:
        return float(duration_s(text))
    except ValueError as error:
        raise BadInput(f"{option}: {error}; correct it") from error


def _json(run: "ClusterRun") -> dict[str, object]:
    return dataclasses.asdict(run)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
