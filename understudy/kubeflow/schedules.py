"""What should be scheduled against what is: which recurring runs to create, to switch on or off, and to delete.

A recurring run can't be edited, and deleting one ends the runs that it has started. So a change makes a new one, off;
the old one is switched off, the new one on; the old one is deleted once nothing of it runs. Wherever that stops, at
most one of a schedule is on, and the next decision goes on from there. Names say what a recurring run holds, so none is
made twice.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from understudy.section import canonical_json

__all__ = ["Action", "Running", "Step", "Wanted", "decide", "schedule_of", "steps"]

_NAME = re.compile(r"(?P<prefix>[a-z0-9-]+)/(?P<schedule>[a-z0-9-]+)@[0-9a-f]{8}")
_FACTS = ("cron", "version", "parameters", "service_account", "max_concurrency", "no_catchup")


@dataclass(frozen=True)
class Wanted:
    """A recurring run as the configuration has it.

    Args:
        prefix: ``pipeline.name``: several configurations may share an experiment.
        version: of the pipeline, by name.
        cron: six fields of the server's zone.
        service_account: empty: the installation's own, whatever it is called.
    """

    prefix: str
    schedule: str
    version: str
    cron: str
    parameters: Mapping[str, Any]
    service_account: str = ""
    enabled: bool = True
    max_concurrency: int = 1
    no_catchup: bool = True

    @property
    def name(self) -> str:
        """``<prefix>/<schedule>@<digest of the content>``."""
        content = canonical_json({fact: _plain(getattr(self, fact)) for fact in _FACTS})
        return f"{self.prefix}/{self.schedule}@{hashlib.sha256(content.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Running:
    """A recurring run as the server has it.

    Args:
        version: of the pipeline, by name; empty: whatever is newest, or one that is gone.
        in_flight: runs that it has started and that have not ended.
    """

    id: str
    name: str
    version: str
    cron: str
    parameters: Mapping[str, Any]
    service_account: str
    max_concurrency: int
    no_catchup: bool
    enabled: bool
    in_flight: int = 0


class Step(NamedTuple):
    """One call: ``create``, ``pause``, ``resume`` or ``delete``.

    Args:
        id: of the recurring run; empty: the one that the action has created.
    """

    call: str
    id: str = ""


@dataclass(frozen=True)
class Action:
    """What is done about one schedule.

    Args:
        verb: ``create``, ``replace``, ``resume``, ``pause``, ``clear``, ``remove`` or ``unchanged``.
        why: what differs, in words.
        wanted: None: it is no longer in the configuration.
        current: id of the recurring run that holds what is wanted; empty: none does.
        old: recurring runs that have to go.
    """

    verb: str
    schedule: str
    why: tuple[str, ...] = ()
    wanted: Wanted | None = None
    current: str = ""
    old: tuple[Running, ...] = field(default=(), repr=False)

    @property
    def kept(self) -> tuple[str, ...]:
        """Recurring runs that stay, off, because something of them runs."""
        return tuple(one.id for one in self.old if one.in_flight)


def schedule_of(name: str, prefix: str) -> str | None:
    """The schedule of a recurring run that we have made; None: somebody else's."""
    match = _NAME.fullmatch(name)
    return match["schedule"] if match and match["prefix"] == prefix else None


def decide(prefix: str, wanted: Sequence[Wanted], running: Sequence[Running]) -> list[Action]:
    """What to do about each schedule, those of the configuration first; others' recurring runs are left alone."""
    own: dict[str, list[Running]] = {one.schedule: [] for one in wanted}
    for one in running:
        schedule = schedule_of(one.name, prefix)
        if schedule is not None:
            own.setdefault(schedule, []).append(one)
    by_name = {one.schedule: one for one in wanted}
    return [
        _about(by_name[schedule], found) if schedule in by_name else _gone(schedule, found)
        for schedule, found in own.items()
    ]


def _about(wanted: Wanted, found: Sequence[Running]) -> Action:
    alike = sorted((one for one in found if not _differences(wanted, one)), key=lambda one: (not one.enabled, one.id))
    current = alike[0] if alike else None
    old = tuple(one for one in found if one is not current)
    if current is None and not old:
        return Action("create", wanted.schedule, (_sentence(wanted),), wanted)
    if current is None:
        latest = sorted(old, key=lambda one: (not one.enabled, one.id))[0]
        return Action("replace", wanted.schedule, _differences(wanted, latest), wanted, old=old)
    verb, why = _switched(wanted, current)
    if verb == "unchanged" and old:
        verb, why = "clear", (f"{len(old)} left from before",)
    return Action(verb, wanted.schedule, why, wanted, current.id, old)


def _switched(wanted: Wanted, current: Running) -> tuple[str, tuple[str, ...]]:
    if current.enabled == wanted.enabled:
        return "unchanged", ()
    verb = "resume" if wanted.enabled else "pause"
    return verb, (f"on: {_word(current.enabled)} → {_word(wanted.enabled)}",)


def _gone(schedule: str, found: Sequence[Running]) -> Action:
    return Action("remove", schedule, ("not in the configuration",), old=tuple(found))


def steps(action: Action) -> list[Step]:
    """The calls in their order; whatever is between two of them, at most one recurring run of the schedule is on."""
    wanted, on = action.wanted, [one for one in action.old if one.enabled]
    calls: list[Step] = []
    if wanted is not None and not action.current:
        calls.append(Step("create"))
    calls += [Step("pause", one.id) for one in on]
    if wanted is not None and action.verb in ("create", "replace", "resume") and wanted.enabled:
        calls.append(Step("resume", action.current))
    if action.verb == "pause":
        calls.append(Step("pause", action.current))
    return calls + [Step("delete", one.id) for one in action.old if not one.in_flight]


def _differences(wanted: Wanted, running: Running) -> tuple[str, ...]:
    """Fact by fact; empty: it holds what is wanted."""
    found = []
    for fact in _FACTS:
        old, new = _plain(getattr(running, fact)), _plain(getattr(wanted, fact))
        chosen = fact == "service_account" and not new  # by the server, which tells its name
        if old != new and not chosen:
            found.append(f"{fact.replace('_', ' ')}: {_word(old)} → {_word(new)}")
    if not found and running.name != wanted.name:
        found.append("service account: another → the installation's own")
    return tuple(found)


def _sentence(wanted: Wanted) -> str:
    off = "" if wanted.enabled else ", off"
    return f"{wanted.cron}, {wanted.version}{off}"


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return canonical_json(value)
    return str(value) or "none"
