"""Make the schedules of a configuration true on Kubeflow Pipelines."""

import datetime
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipelines.cluster_runs import ENDED
from pipelines.compile import Compiled, compiled
from pipelines.connection import Connection, Lost, Refused, none_of
from pipelines.retraining import GRAPHS, name_of
from pipelines.upload import Uploaded, experiment_id, find_experiment, find_version, upload, version_names
from understudy import __version__
from understudy.config import Config
from understudy.errors import BadInput
from understudy.kubeflow.cron import server_cron
from understudy.kubeflow.schedules import Action, Running, Wanted, decide, schedule_of, steps
from understudy.kubeflow.versions import difference

__all__ = ["Planned", "apply", "in_flight", "listed", "plan", "switch"]

_NOT_FOUND = 404


@dataclass(frozen=True)
class Planned:
    """What `schedule apply` would do.

    Args:
        made: the pipelines that the schedules need. missing: of these, what is not on the server.
        notes: schedule → what must be said of its times.
        versions: where a pipeline and its images are of several versions, a line each.
    """

    made: dict[str, Compiled]
    missing: list[Compiled]
    actions: list[Action]
    notes: dict[str, str] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)


def plan(connection: Connection, config: Config, now: datetime.datetime | None = None) -> Planned:
    """Compare what should run with what runs; changes nothing.

    Raises:
        BadInput: a schedule that can't be said in the installation's zone, or no lake.
    """
    pipeline = config.pipeline
    made = {kind: compiled(config, kind) for kind in dict.fromkeys(one.kind for one in pipeline.schedules)}
    there = {one.name: find_version(connection, one) for one in made.values()}
    missing = [one for one in made.values() if there[one.name] is None]
    by = {name: __version__ if found is None else found.by for name, found in there.items()}
    told = [difference(one.name, by[one.name], one.images, __version__) for one in made.values()]
    wanted, notes = _wanted(config, made, now or datetime.datetime.now(datetime.UTC))
    actions = decide(pipeline.name, wanted, listed(connection, config))
    return Planned(made, missing, actions, notes, [line for line in told if line is not None])


def _wanted(config: Config, made: dict[str, Compiled], now: datetime.datetime) -> tuple[list[Wanted], dict[str, str]]:
    pipeline, wanted, notes = config.pipeline, [], {}
    for one in pipeline.schedules:
        try:
            cron, note = server_cron(one.cron, one.time_zone or config.time_zone, pipeline.cron_zone, now)
        except ValueError as error:
            raise BadInput(f"configuration: pipeline.schedules.{one.name}.{error}") from error
        if note:
            notes[one.name] = note
        parameters = {"lake": pipeline.lake_for(), **one.parameters}
        account, version = pipeline.service_account, made[one.kind].version
        wanted.append(Wanted(pipeline.name, one.name, version, cron, parameters, account, one.enabled))
    return wanted, notes


def listed(connection: Connection, config: Config) -> list[Running]:
    """Every recurring run of this configuration's name on the server."""
    experiment = find_experiment(connection, config.pipeline)
    if experiment is None:
        return []
    names = {
        version: name for kind in GRAPHS for version, name in version_names(connection, name_of(config, kind)).items()
    }
    find = connection.client.list_recurring_runs
    found = connection.all("recurring runs", find, "recurring_runs", experiment_id=experiment)
    own = [one for one in found if schedule_of(one.display_name, config.pipeline.name) is not None]
    flying = in_flight(connection, experiment) if own else Counter()
    return [_running(one, names, flying[one.recurring_run_id]) for one in own]


def _running(one: Any, names: dict[str, str], flying: int) -> Running:
    reference, cron = one.pipeline_version_reference, one.trigger.cron_schedule if one.trigger else None
    return Running(
        id=one.recurring_run_id,
        name=one.display_name,
        version=names.get(reference.pipeline_version_id or "", "") if reference else "",
        cron=cron.cron if cron else "",
        parameters=(one.runtime_config.parameters if one.runtime_config else None) or {},
        service_account=one.service_account or "",
        max_concurrency=int(one.max_concurrency or 0),
        no_catchup=bool(one.no_catchup),
        enabled=one.mode == "ENABLE" or (one.mode is None and one.status == "ENABLED"),
        in_flight=flying,
    )


def in_flight(connection: Connection, experiment: str) -> Counter[str]:
    """Recurring run → how many of the runs that it has started have not ended."""
    wanted = {"experiment_id": experiment, "filter": none_of("state", ENDED)}
    found = connection.all("runs in flight", connection.client.list_runs, "runs", **wanted)
    return Counter(one.recurring_run_id for one in found if one.recurring_run_id and one.state not in ENDED)


def apply(connection: Connection, config: Config, planned: Planned) -> dict[str, list[str]]:
    """Do what was planned; begun again after any failure, the next plan goes on from there.

    Returns:
        schedule → ids of the recurring runs that stay, off, because something of them runs.
    """
    uploaded = {kind: upload(connection, one) for kind, one in planned.made.items()}
    kinds = {one.name: one.kind for one in config.pipeline.schedules}
    experiment = experiment_id(connection, config.pipeline) if planned.actions else ""
    kept: dict[str, list[str]] = {}
    for action in planned.actions:
        made = ""
        for step in steps(action):
            if step.call == "create":
                made = _create(connection, experiment, action, uploaded[kinds[action.schedule]])
            else:
                _do(connection, experiment, action.schedule, step.call, step.id or made)
        flying = in_flight(connection, experiment) if action.old else Counter()
        kept |= {action.schedule: left} if (left := [one.id for one in action.old if flying[one.id]]) else {}
    return kept


def switch(connection: Connection, config: Config, schedule: str, call: str) -> list[Running]:
    """``pause``, ``resume`` or ``delete`` a schedule by hand, until the next `apply`; what it was done to.

    Raises:
        BadInput: no such schedule, or several recurring runs of it.
    """
    every = listed(connection, config)
    found = [one for one in every if schedule_of(one.name, config.pipeline.name) == schedule]
    if not found:
        names = sorted({str(schedule_of(one.name, config.pipeline.name)) for one in every})
        raise BadInput(f"schedule {schedule!r}: expected one of {', '.join(names) or 'none there'}; correct its name")
    if call == "resume" and len(found) > 1:
        raise BadInput(
            f"schedule {schedule}: expected one recurring run, found {len(found)}; "
            "`understudy schedule apply` clears up"
        )
    experiment = experiment_id(connection, config.pipeline)
    changed = [one for one in found if one.enabled != (call == "resume")]
    for one in changed:
        _do(connection, experiment, schedule, "resume" if call == "resume" else "pause", one.id)
    if call != "delete":
        return changed
    for one in found:
        _do(connection, experiment, schedule, "delete", one.id)
    return found


def _create(connection: Connection, experiment: str, action: Action, uploaded: Uploaded) -> str:
    wanted = action.wanted
    assert wanted is not None, "only what is wanted is created"
    given = {
        "experiment_id": experiment,
        "job_name": wanted.name,
        "description": f"made by `understudy schedule apply` ({uploaded.kind}); changes are made in the configuration",
        "cron_expression": wanted.cron,
        "max_concurrency": wanted.max_concurrency,
        "no_catchup": wanted.no_catchup,
        "params": dict(wanted.parameters),
        "pipeline_id": uploaded.pipeline_id,
        "version_id": uploaded.version_id,
        "enabled": False,
        "service_account": wanted.service_account or None,
    }
    create, find = connection.client.create_recurring_run, connection.client.list_recurring_runs
    try:
        return str(connection.call(f"creating {wanted.name}", create, **given).recurring_run_id)
    except Lost:  # names are not unique on the server: it is looked for, and never sent twice
        found = connection.named("recurring runs", find, "recurring_runs", wanted.name, experiment_id=experiment)
        if found is None:
            raise
        return str(found.recurring_run_id)


def _do(connection: Connection, experiment: str, schedule: str, call: str, recurring_run: str) -> None:
    """One call. Deleting ends what is in flight, so that waits for another time."""
    if call == "delete" and in_flight(connection, experiment)[recurring_run]:
        return
    calls = connection.client.recurring_runs
    function, extra = {
        "pause": (calls.recurring_run_service_disable_recurring_run, {}),
        "resume": (calls.recurring_run_service_enable_recurring_run, {}),
        # A run that began this very moment goes on by itself, where the server is new enough to know the policy.
        "delete": (calls.recurring_run_service_delete_recurring_run, {"propagation_policy": "ORPHAN"}),
    }[call]
    try:
        connection.call(f"{call} of schedule {schedule}", function, recurring_run_id=recurring_run, **extra)
    except Refused as error:
        if call != "delete" or error.status != _NOT_FOUND:
            raise
