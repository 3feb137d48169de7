"""A run as the lake records it: ``runs/<id>/``.

``plan.json`` is written once. ``asked/<step>`` names the last step of a graph that was begun for this run.
``steps/<step>/manifest.json`` is what the step committed: it is created once, and a late writer loses.
``steps/<step>/errors/`` keeps what went wrong, for people.
"""

import datetime
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from understudy.errors import BadInput, GateFailed, UnderstudyError, first_line
from understudy.formats import Format
from understudy.lake import Lake
from understudy.runs.plan import Plan

__all__ = ["MANIFEST", "Run", "Verdict"]

MANIFEST: Format[dict[str, Any]] = Format("record of a step", 1, "start a fresh run with `understudy run --again`")
_PLAN: Format[dict[str, Any]] = Format("plan", 1, "start a fresh run with `understudy run --again`")

# Purpose of a plan → the last step that commits. What ``evaluate`` and ``compare`` do after it is told, not committed.
_LAST = {
    "train": "promote",
    "refresh": "build_features",
    "evaluate": "retrieve_features",
    "compare": "retrieve_features",
}
_ENDS = {BadInput.exit_code: "bad input", GateFailed.exit_code: "gate failed"}


@dataclass(frozen=True)
class Verdict:
    """What a gate found.

    Args:
        gate: the gate's name.
        outcome: ``pass``, ``fail``, ``warn``, ``insufficient data`` or ``report``.
        figure: what was measured, in the field's words.
        value: the measured value, or None.
        low, high: the bounds that the value must keep, or None.
        reason: one sentence with the figures.
    """

    gate: str
    outcome: str
    figure: str
    value: float | None
    reason: str
    low: float | None = None
    high: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def stops(self) -> bool:
        return self.outcome in ("fail", "insufficient data")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Run:
    """The record of one run."""

    lake: Lake
    id: str

    @classmethod
    def all(cls, lake: Lake) -> "list[Run]":
        """Every run that has a plan, by id."""
        return [cls(lake, name) for name in lake.names("runs") if lake.exists("runs", name, "plan.json")]

    @classmethod
    def find(cls, lake: Lake, run_id: str) -> "Run":
        """The run of that id; a unique beginning is enough.

        Raises:
            BadInput: no such run, or several.
        """
        found = [run for run in cls.all(lake) if run.id == run_id] or [
            run for run in cls.all(lake) if run.id.startswith(run_id)
        ]
        if len(found) != 1:
            raise BadInput(
                f"run {run_id!r}: expected one run of that id in lake {lake.root}, found {len(found)}; "
                "`understudy runs list` shows them"
            )
        return found[0]

    @property
    def folder(self) -> str:
        return f"runs/{self.id}"

    def has_plan(self) -> bool:
        return self.lake.exists(self.folder, "plan.json")

    def plan(self) -> Plan:
        return Plan.from_json(_PLAN.unmarked(self.lake.read_json(self.folder, "plan.json"), f"run {self.id}"))

    def write_plan(self, plan: Plan) -> Plan:
        """Write the plan once; returns the one that stands."""
        self.lake.create_json(f"{self.folder}/plan.json", plan.to_json() | _PLAN.mark())
        return self.plan()

    def manifest(self, step: str) -> dict[str, Any] | None:
        """What the step committed, or None."""
        path = (self.folder, "steps", step, "manifest.json")
        if not self.lake.exists(*path):
            return None
        manifest: dict[str, Any] = MANIFEST.unmarked(self.lake.read_json(*path), f"run {self.id}, step {step}")
        return manifest

    def committed_steps(self) -> dict[str, dict[str, Any]]:
        """Step → manifest, of all committed steps."""
        steps = self.lake.names(self.folder, "steps")
        return {step: manifest for step in steps if (manifest := self.manifest(step)) is not None}

    def table_path(self, step: str, table: str) -> str:
        """Folder in the lake of a table that a step committed."""
        manifest = self.manifest(step)
        if manifest is None or table not in manifest["tables"]:
            raise UnderstudyError(
                f"run {self.id}: expected step {step} to have committed table {table}, found none; run {step} first"
            )
        return str(manifest["tables"][table]["path"])

    def failed_verdicts(self) -> list[dict[str, Any]]:
        """Verdicts that stop the run, with the step that gave them."""
        return [
            {"step": step, **verdict}
            for step, manifest in self.committed_steps().items()
            for verdict in manifest["verdicts"]
            if verdict["outcome"] in ("fail", "insufficient data")
        ]

    def ask_for(self, last: str) -> None:
        """Keep that a graph was begun whose last step this is."""
        self.lake.create_json(f"{self.folder}/asked/{last}", {"last": last})

    def last_step(self) -> str:
        """The step whose commit means that the run has done what it is for.

        A shorter graph of the same purpose, such as one that ends with ``check_drift``, counts as long as nobody has
        asked for the whole of it.
        """
        whole = _LAST[self.plan().purpose]
        asked = self.lake.names(self.folder, "asked")
        return whole if not asked or whole in asked else str(asked[0])

    def is_done(self, last: str = "") -> bool:
        """Whether the last step of the run's graph has committed, and no gate said no.

        Args:
            last: of the graph that is meant; empty: of the one that was asked for.
        """
        return self.manifest(last or self.last_step()) is not None and not self.failed_verdicts()

    def status(self) -> str:
        """``released``, ``done``, ``gate failed``, ``bad input``, ``crashed`` or ``unfinished``."""
        if self.manifest("promote"):
            return "released"
        if self.failed_verdicts():
            return "gate failed"
        if self.is_done():
            return "done"
        error = self.last_error()
        return _ENDS.get(error["exit_code"], "crashed") if error else "unfinished"

    def record_error(self, step: str, error: BaseException, lines: Sequence[str] = ()) -> None:
        """Keep what went wrong; errors are evidence and decide nothing.

        Args:
            lines: that its process wrote last, where it could not say itself what went wrong.
        """
        now = datetime.datetime.now(datetime.UTC)
        code = error.exit_code if isinstance(error, UnderstudyError) else 1
        value: dict[str, Any] = {"step": step, "at": now.isoformat(), "exit_code": code, "error": first_line(error)}
        if lines:
            value["lines"] = list(lines)
        name = f"{now:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}.json"
        self.lake.create_json(f"{self.folder}/steps/{step}/errors/{name}", value)

    def last_error(self) -> dict[str, Any] | None:
        """The newest error of a step that has not committed since."""
        errors: list[dict[str, Any]] = []
        for step in self.lake.names(self.folder, "steps"):
            names = self.lake.names(self.folder, "steps", step, "errors")
            if names and self.manifest(step) is None:
                errors.append(self.lake.read_json(self.folder, "steps", step, "errors", names[-1]))
        return max(errors, key=lambda error: error["at"]) if errors else None
