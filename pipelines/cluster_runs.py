"""Runs on Kubeflow Pipelines: start one, see how far it is, wait for its end, and tell a gate's no from a crash."""

import datetime
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines.compile import compiled
from pipelines.connection import Connection, Lost
from pipelines.retraining import ROLES, name_of
from pipelines.upload import Uploaded, experiment_id, find_experiment, upload
from understudy.config import Config
from understudy.errors import BadInput, GateFailed, UnderstudyError, first_line
from understudy.kubeflow.config import Pipeline

__all__ = ["ENDED", "ClusterRun", "end_of", "find", "listed", "submit", "wait"]

ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
_PATIENCE_S = 300.0  # without an answer, before waiting is given up
_LONG_AGO = datetime.datetime(1971, 1, 1, tzinfo=datetime.UTC)  # servers tell unset times as the year 1


@dataclass(frozen=True)
class ClusterRun:
    """A run as the server tells it.

    Args:
        state: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED``, ``CANCELED`` and the like.
        parameters: that it was given; ``lake`` holds its record.
        schedule: id of the recurring run that has started it, or None.
        steps: step → state, start and end, in the order in which they began.
    """

    id: str
    name: str
    state: str
    created_at: str
    finished_at: str | None
    parameters: dict[str, Any]
    schedule: str | None
    steps: dict[str, dict[str, Any]]

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def submit(
    connection: Connection, config: Config, kind: str = "retrain", lake: str | None = None, **parameters: Any
) -> tuple[ClusterRun, Uploaded]:
    """Upload the pipeline where it is new, and start a run of it.

    Args:
        lake: wins over the configuration's.
        parameters: of the pipeline; None is left out.
    """
    given = {"lake": config.pipeline.lake_for(lake)}
    given |= {key: value for key, value in parameters.items() if value is not None}
    uploaded = upload(connection, compiled(config, kind))
    experiment = experiment_id(connection, config.pipeline)
    now = datetime.datetime.now(datetime.UTC)
    name = f"{name_of(config, kind)} {now:%Y-%m-%d %H:%M:%S} {secrets.token_hex(3)}"
    wanted = {
        "experiment_id": experiment,
        "job_name": name,
        "params": given,
        "pipeline_id": uploaded.pipeline_id,
        "version_id": uploaded.version_id,
        "service_account": config.pipeline.service_account or None,
    }
    try:
        return _run(connection.call("starting a run", connection.client.run_pipeline, **wanted)), uploaded
    except Lost:
        find = connection.client.list_runs
        found = connection.named("runs", find, "runs", name, experiment_id=experiment)
        if found is None:
            raise
        return _run(found), uploaded


def listed(connection: Connection, pipeline: Pipeline, most: int = 20) -> list[ClusterRun]:
    """The newest runs of the configuration's experiment, newest first."""
    experiment = find_experiment(connection, pipeline)
    if experiment is None:
        return []
    wanted = {"experiment_id": experiment, "sort_by": "created_at desc"}
    found: list[ClusterRun] = []
    for one in connection.all("runs", connection.client.list_runs, "runs", **wanted):
        found.append(_run(one))
        if len(found) == most:
            break
    return found


def find(connection: Connection, run_id: str) -> ClusterRun:
    """One run, with its steps.

    Raises:
        BadInput: no such run.
    """
    return _run(connection.call(f"run {run_id}", connection.client.get_run, run_id=run_id))


def wait(
    connection: Connection,
    run_id: str,
    *,
    every_s: float = 10.0,
    limit_s: float | None = None,
    say: Callable[[str], None],
) -> ClusterRun:
    """Follow a run to its end, whatever that is; a server that is away for some minutes is waited for.

    Args:
        limit_s: after which waiting ends; the run goes on. None: no limit.
        say: is given a line for each step that begins or ends.

    Raises:
        UnderstudyError: the limit has passed, or the server was away for too long.
    """
    end = None if limit_s is None else time.monotonic() + limit_s
    known: dict[str, str] = {}
    seen = time.monotonic()
    while True:
        try:
            run = find(connection, run_id)
            seen = time.monotonic()
            known = _progress(run, known, say)
            if run.ended:
                return run
        except Lost:
            if time.monotonic() - seen > _PATIENCE_S:
                raise
        if end is not None and time.monotonic() >= end:
            raise UnderstudyError(
                f"run {run_id}: expected its end within {limit_s:g} s, found it under way; it goes on"
            )
        time.sleep(every_s)


def end_of(run: ClusterRun, lake: str | None = None) -> None:
    """Return where the run has succeeded; else say why not, as its record in the lake has it.

    Raises:
        GateFailed: a gate said no. BadInput: its input could not be used. UnderstudyError: it failed otherwise.
    """
    if run.state == "SUCCEEDED":
        return
    failed = [step for step, one in run.steps.items() if one["state"] == "FAILED"]
    where = f" in {', '.join(failed)}" if failed else ""
    place = lake or run.parameters.get("lake", "")
    told = f"run {run.id}: {run.state.lower()}{where}"
    if run.state != "FAILED":
        raise UnderstudyError(told)
    raise _as_recorded(run, str(place), told)


def _as_recorded(run: ClusterRun, lake: str, told: str) -> UnderstudyError:
    from understudy.lake import Lake
    from understudy.report.telling import ending
    from understudy.runs import Run
    from understudy.runs.planning import run_of_job

    try:
        opened = Lake.open(lake)
        known = run_of_job(opened, run.id)
        if known is None:
            return UnderstudyError(f"{told}; it had no plan yet, so its log alone says why")
        record = Run(opened, known)
        status, (sentence, _) = record.status(), ending(record)
    except Exception as error:  # a lake that this machine cannot read is no failure of the run's
        return UnderstudyError(
            f"{told}; its record in {lake or 'its lake'} can't be read here ({first_line(error)}), which would say why"
        )
    kinds = {"gate failed": GateFailed, "bad input": BadInput}
    return kinds.get(status, UnderstudyError)(f"{told}: {sentence}")


def _progress(run: ClusterRun, known: dict[str, str], say: Callable[[str], None]) -> dict[str, str]:
    states = {step: str(one["state"]) for step, one in run.steps.items()}
    for step, state in states.items():
        if known.get(step) != state:
            seconds = run.steps[step]["seconds"]
            say(f"{step}: {state.lower()}{f' after {seconds:.0f} s' if seconds is not None else ''}")
    return states


def _run(one: Any) -> ClusterRun:
    return ClusterRun(
        id=one.run_id,
        name=one.display_name,
        state=one.state or "PENDING",
        created_at=_time(one.created_at) or "",
        finished_at=_time(one.finished_at),
        parameters=dict((one.runtime_config.parameters if one.runtime_config else None) or {}),
        schedule=one.recurring_run_id or None,
        steps=_steps((one.run_details.task_details if one.run_details else None) or []),
    )


def _steps(details: list[Any]) -> dict[str, dict[str, Any]]:
    """Our steps, of all that the server runs for them; the newest attempt of each."""
    found: dict[str, dict[str, Any]] = {}
    for one in sorted(details, key=lambda one: one.start_time or one.create_time or _LONG_AGO):
        step = (one.display_name or "").replace("-", "_")
        if step in ROLES and one.state:
            start, end = _time(one.start_time), _time(one.end_time)
            seconds = (one.end_time - one.start_time).total_seconds() if start and end else None
            found[step] = {"state": one.state, "start": start, "end": end, "seconds": seconds}
    return found


def _time(moment: datetime.datetime | None) -> str | None:
    return moment.isoformat() if moment is not None and moment > _LONG_AGO else None
