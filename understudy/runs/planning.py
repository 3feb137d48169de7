"""The step ``plan_window``: decide once what a run works on.

A run's id follows from what goes into it (window, configuration, package version, contents of the
logs), so the same command finds the same run: it resumes one that was killed and reports one that
is done. Aliases are no part of it: a rerun reads the plan, even when they have moved since.
"""

import datetime
import hashlib
import zoneinfo
from typing import Any

from understudy import __version__, renames
from understudy.config import Config
from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.runs.plan import Plan
from understudy.runs.record import Run
from understudy.runs.teaching import Teaching, decide_teaching
from understudy.section import canonical_json, duration_s, from_json
from understudy.snapshot import Snapshot

__all__ = ["draft_plan", "plan_window", "run_of_job"]

_SPLIT = ("train", "compare")  # purposes whose last day is split by users


def plan_window(
    lake_uri: str,
    config: Config | str,
    window_end: str | None = None,
    *,
    purpose: str = "train",
    window_start: str | None = None,
    again: bool = False,
    job: str = "",
    last: str = "",
) -> Plan:
    """Write the plan of a run, or read the one that stands.

    Args:
        config: the configuration, or its canonical JSON as a pipeline passes it.
        window_end: last day (``YYYY-MM-DD``); None or empty: the newest complete day.
        purpose: ``train``, ``evaluate``, ``compare``, or ``refresh``: build features of all days, the last
            unfinished one included.
        window_start: first day; None: as many days as the configuration says.
        again: plan a fresh run even where this one exists.
        job: of the orchestrator; the same job always gets the same plan, and its exit handler
            finds the run by it.
        last: the last step of the graph that is begun; empty: that of the purpose.

    Raises:
        BadInput: the window holds nothing to learn from, or a day is malformed.
    """
    lake = Lake.open(lake_uri)
    if "{{" in job:
        raise BadInput(
            f"job: expected the id of this run, found {job!r}, which this Kubeflow Pipelines does not fill in; "
            "upgrade it to 2.5 or newer"
        )
    if job and (known := run_of_job(lake, job)) is not None:
        return _begun(Run(lake, known), last)
    wanted: dict[str, Any] = {"purpose": purpose, "window_start": window_start, "again": again}
    draft_plan(lake, config, window_end, **wanted)
    Snapshot.admit(lake)
    plan = draft_plan(lake, config, window_end, **wanted)
    plan = Run(lake, plan.run_id).write_plan(plan)
    if job:
        lake.create_json(_job_path(job), {"run_id": plan.run_id})
    return _begun(Run(lake, plan.run_id), last)


def _begun(run: Run, last: str) -> Plan:
    if last:
        run.ask_for(last)
    return run.plan()


def run_of_job(lake: Lake, job: str) -> str | None:
    """The run that an orchestrator's job has planned, or None."""
    path = _job_path(job)
    return str(lake.read_json(path)["run_id"]) if lake.exists(path) else None


def _job_path(job: str) -> str:
    return f"jobs/{hashlib.sha256(job.encode()).hexdigest()[:24]}.json"


def draft_plan(
    lake: Lake,
    config: Config | str,
    window_end: str | None = None,
    *,
    purpose: str = "train",
    window_start: str | None = None,
    again: bool = False,
) -> Plan:
    """The plan that ``plan_window`` would write; writes nothing."""
    config = from_json(Config, config, where="the pipeline's configuration") if isinstance(config, str) else config
    snapshot = Snapshot.current(lake)
    if snapshot.heads and snapshot.heads != config.heads:
        raise BadInput(
            f"lake {lake.root}: expected heads {', '.join(config.heads)} (configuration), "
            f"found logs with {', '.join(snapshot.heads)}; use the configuration that wrote them"
        )
    end = _window_end(lake, config, snapshot, window_end, purpose)
    start = _window_start(config, snapshot, end, window_start, purpose)
    _check_window(lake, config, snapshot, start, end, purpose)
    history = _day(start, "window start") - datetime.timedelta(seconds=duration_s(config.features.history))
    fingerprint = snapshot.fingerprint(end)
    content = [purpose, start, end, config.digest(), fingerprint, __version__]
    digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()[:8]
    base = f"{end}-{digest}" if purpose == "train" else f"{purpose}-{start}-{end}-{digest}"
    return Plan(
        run_id=_run_id(lake, base, again),
        purpose=purpose,
        time_zone=config.time_zone,
        heads=config.heads,
        history_start=max(str(history), snapshot.days()[0]),
        window_start=start,
        window_end=end,
        snapshot=snapshot.number,
        **_lineage(lake, config, purpose),
        input_fingerprint=fingerprint,
        config_digest=config.digest(),
        config=_json(config),
        version=__version__,
    )


def newest_complete_day(config: Config, snapshot: Snapshot, now: datetime.datetime) -> str | None:
    """The newest day with impressions whose outcomes are all known at ``now``."""
    zone = zoneinfo.ZoneInfo(config.time_zone)
    known = now - datetime.timedelta(seconds=duration_s(config.labels.attribution_window))
    days = [day for day in snapshot.days() if day < str(known.astimezone(zone).date())]
    return days[-1] if days else None


def _window_end(lake: Lake, config: Config, snapshot: Snapshot, wanted: str | None, purpose: str) -> str:
    newest = newest_complete_day(config, snapshot, datetime.datetime.now(datetime.UTC))
    if purpose == "refresh" and snapshot.days():
        return snapshot.days()[-1]
    if newest is None:
        raise BadInput(
            f"lake {lake.root}: expected a complete day of impressions, found none; run `understudy ingest` first"
        )
    if not wanted:
        return newest
    day = str(_day(wanted, "--window-end"))
    if day > newest:
        option = "--to" if purpose == "evaluate" else "--window-end"
        raise BadInput(f"{option} {day}: expected a complete day, found none after {newest}; ingest it first")
    return day


def _window_start(config: Config, snapshot: Snapshot, end: str, wanted: str | None, purpose: str) -> str:
    if wanted:
        return str(_day(wanted, "--from"))
    if purpose == "refresh":
        return end
    first = _day(end, "window end") - datetime.timedelta(days=config.window.days - 1)
    return max(str(first), snapshot.days()[0])


def _check_window(lake: Lake, config: Config, snapshot: Snapshot, start: str, end: str, purpose: str) -> None:
    where = f"window {start} to {end} in lake {lake.root}"
    days = [day for day in snapshot.days() if start <= day <= end]
    least = 2 if purpose in _SPLIT else 1
    if len(days) < least or days[-1] != end:
        found = f"{len(days)} with impressions" + (f", the last being {days[-1]}" if days else "")
        known = snapshot.days()
        raise BadInput(
            f"{where}: expected impressions on {least} days or more, the last included, found {found}; "
            f"the lake holds {known[0]} to {known[-1]}: choose another window or ingest its days"
        )
    if purpose not in _SPLIT:
        return
    parts = snapshot.parts("actions", start, end)
    for head in config.heads:
        if not any(part["actions"].get(head) for part in parts):
            raise BadInput(
                f"{where}: expected positives of head {head!r}, found none; "
                "widen the window, or remove the head from the configuration"
            )


def _lineage(lake: Lake, config: Config, purpose: str) -> dict[str, Any]:
    from understudy.releases import ancestors, nearest_healthy, quarantined, read_manifest, resolve_alias

    production = resolve_alias(lake, "production")
    healthy = nearest_healthy(lake, production) if production else None
    teaching = Teaching(None, f"this run is for {purpose}: it trains nothing")
    if purpose == "train":
        before = ancestors(lake, production) if production else []
        teaching = decide_teaching(config.training, production, healthy, before)
    return {
        "production": production,
        "reference": healthy,
        "reference_features": renames.today(read_manifest(lake, healthy)["config"])["features"]
        if healthy and purpose in (*_SPLIT, "refresh")
        else None,
        "teacher": teaching.teacher,
        "teacher_note": teaching.note,
        "control": teaching.control,
        "given_up": teaching.given_up,
        "quarantined": tuple(sorted(quarantined(lake))),
    }


def _run_id(lake: Lake, base: str, again: bool) -> str:
    """The newest run of this content; the next one where a fresh run is wanted."""
    numbers = [1] if Run(lake, base).has_plan() else []
    for name in lake.names("runs"):
        suffix = name.removeprefix(f"{base}-")
        if suffix != name and suffix.isdigit():
            numbers.append(int(suffix))
    newest = max(numbers, default=0)
    number = newest + 1 if again else max(newest, 1)
    return base if number == 1 else f"{base}-{number}"


def _day(text: str, where: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"{where} {text!r}: expected a day such as 2022-05-04, found no such day; correct it") from error


def _json(config: Config) -> dict[str, Any]:
    import json

    value: dict[str, Any] = json.loads(config.work())
    return value
