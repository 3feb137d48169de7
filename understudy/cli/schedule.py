"""``understudy schedule``: what recurs on Kubeflow Pipelines. The configuration is the truth."""

import datetime
import zoneinfo
from typing import TYPE_CHECKING, Any

import click

from understudy.cli.kubeflow import connected, place_options
from understudy.cli.output import config_option, json_option, print_json, print_table

if TYPE_CHECKING:
    from pipelines.scheduling import Planned
    from understudy.config import Config
    from understudy.kubeflow.schedules import Running

__all__ = ["schedule"]


@click.group()
def schedule() -> None:
    """Make the configuration's schedules true on Kubeflow Pipelines; look at them, switch them on and off."""


@schedule.command("apply")
@config_option
@place_options
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@json_option
def apply_schedules(config: str, host: str | None, namespace: str | None, dry_run: bool, as_json: bool) -> None:
    """Compare what runs with what should run, print the plan, and change what differs.

    New content of the pipeline is uploaded, and schedules move on to it. A run in flight is never ended.

    \b
    understudy schedule apply --config my.yaml --dry-run
    """
    from pipelines.scheduling import apply, plan
    from understudy.config import load

    read = load(config)
    connection = connected(read.pipeline, host, namespace)
    planned = plan(connection, read)
    if not as_json:
        _print_plan(planned)
    kept = {} if dry_run else apply(connection, read, planned)
    if as_json:
        print_json(_plan_json(planned) | {"applied": not dry_run, "kept": kept})
        return
    for name, ids in kept.items():
        click.echo(f"{name}: {', '.join(ids)} stays, off, until its run has ended; apply again then")
    if not dry_run and _changes(planned):
        click.echo("done")


@schedule.command("list")
@config_option
@place_options
@json_option
def list_schedules(config: str, host: str | None, namespace: str | None, as_json: bool) -> None:
    """Every schedule of this configuration's name on the server."""
    from understudy.config import load

    read = load(config)
    found = _found(read, host, namespace)
    if as_json:
        print_json(found)
        return
    columns = ("schedule", "on", "cron", f"next ({read.time_zone})", "version", "in flight", "id")
    rows = [(r["schedule"], _word(r["on"]), r["cron"], r["next"], r["version"], r["in_flight"], r["id"]) for r in found]
    print_table(f"schedules (cron in {read.pipeline.cron_zone})", columns, rows)


@schedule.command("show")
@click.argument("name")
@config_option
@place_options
@json_option
def show_schedule(name: str, config: str, host: str | None, namespace: str | None, as_json: bool) -> None:
    """One schedule: all that is on the server, and how it differs from the configuration."""
    from pipelines.scheduling import plan
    from understudy.config import load
    from understudy.errors import BadInput

    read = load(config)
    found = [one for one in _found(read, host, namespace) if one["schedule"] == name]
    actions = [one for one in plan(connected(read.pipeline, host, namespace), read).actions if one.schedule == name]
    if not actions:
        raise BadInput(f"schedule {name!r}: expected one of the configuration or the server, found none; correct it")
    whole = {"schedule": name, "apply": actions[0].verb, "why": list(actions[0].why), "recurring_runs": found}
    if as_json:
        print_json(whole)
        return
    for one in found:
        print_table(f"{name}: {one['id']}", ("what", "value"), [(key, str(value)) for key, value in one.items()])
    click.echo(f"`understudy schedule apply`: {actions[0].verb}{_because(actions[0].why)}")


@schedule.command("pause")
@click.argument("name")
@config_option
@place_options
def pause(name: str, config: str, host: str | None, namespace: str | None) -> None:
    """Switch a schedule off, until `resume` or the next `apply`; `enabled: false` in the configuration lasts."""
    changed = _switch(name, config, host, namespace, "pause")
    click.echo(f"{name} is off until `understudy schedule resume` or the next apply" if changed else f"{name} was off")


@schedule.command("resume")
@click.argument("name")
@config_option
@place_options
def resume(name: str, config: str, host: str | None, namespace: str | None) -> None:
    """Switch a schedule on. Where a time has passed meanwhile, it runs at once."""
    changed = _switch(name, config, host, namespace, "resume")
    click.echo(f"{name} is on; if a time has passed meanwhile, it runs at once" if changed else f"{name} was on")


@schedule.command("delete")
@click.argument("name")
@config_option
@place_options
def delete(name: str, config: str, host: str | None, namespace: str | None) -> None:
    """Take a schedule away. While something of it runs, it is only switched off."""
    left = [one for one in _switch(name, config, host, namespace, "delete") if one.in_flight]
    if left:
        click.echo(f"{name} is off; {left[0].in_flight} in flight: give the command again when that has ended")
    else:
        click.echo(f"{name} is gone")


def _switch(name: str, config: str, host: str | None, namespace: str | None, call: str) -> "list[Running]":
    from pipelines.scheduling import switch
    from understudy.config import load

    read = load(config)
    return switch(connected(read.pipeline, host, namespace), read, name, call)


def _found(config: "Config", host: str | None, namespace: str | None) -> list[dict[str, Any]]:
    from pipelines.scheduling import listed
    from understudy.kubeflow.schedules import schedule_of

    found = listed(connected(config.pipeline, host, namespace), config)
    return [
        {
            "schedule": schedule_of(one.name, config.pipeline.name),
            "id": one.id,
            "name": one.name,
            "on": one.enabled,
            "cron": one.cron,
            "next": _next(one, config),
            "version": one.version or None,
            "parameters": dict(one.parameters),
            "service_account": one.service_account or None,
            "in_flight": one.in_flight,
        }
        for one in sorted(found, key=lambda one: (one.name, one.id))
    ]


def _next(running: "Running", config: "Config") -> str | None:
    """When it runs next, in the configuration's zone."""
    from understudy.kubeflow.cron import parse

    if not running.enabled:
        return None
    try:
        cron = parse(running.cron)
    except ValueError:  # somebody else has made it
        return None
    found = cron.next(datetime.datetime.now(datetime.UTC), zoneinfo.ZoneInfo(config.pipeline.cron_zone))
    return found.astimezone(zoneinfo.ZoneInfo(config.time_zone)).isoformat() if found else None


def _print_plan(planned: "Planned") -> None:
    rows = [("pipeline", one.name, "upload", f"version {one.version} is not there yet") for one in planned.missing]
    rows += [("schedule", one.schedule, one.verb, "; ".join(_told(one.why, one.kept))) for one in planned.actions]
    print_table("plan", ("what", "name", "action", "why"), rows)
    for name, note in planned.notes.items():
        click.echo(f"{name}: {note}")
    for line in planned.versions:
        click.echo(line)
    loose = sorted({image for one in planned.made.values() for image in one.loose})
    if loose:
        click.echo(f"not named by a digest, so what runs may change without a new version: {', '.join(loose)}")
    if not _changes(planned):
        click.echo("nothing to do")


def _plan_json(planned: "Planned") -> dict[str, Any]:
    return {
        "upload": [{"pipeline": one.name, "version": one.version} for one in planned.missing],
        "schedules": [
            {"schedule": one.schedule, "action": one.verb, "why": list(one.why), "stays": list(one.kept)}
            for one in planned.actions
        ],
        "notes": planned.notes,
        "versions": planned.versions,
    }


def _changes(planned: "Planned") -> bool:
    return bool(planned.missing) or any(one.verb != "unchanged" for one in planned.actions)


def _told(why: tuple[str, ...], kept: tuple[str, ...]) -> tuple[str, ...]:
    return (*why, "the old one is deleted when its run has ended") if kept else why


def _because(why: tuple[str, ...]) -> str:
    return f" ({'; '.join(why)})" if why else ""


def _word(value: bool) -> str:
    return "yes" if value else "no"
