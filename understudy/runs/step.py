"""How a step runs: check what it reads, write into an attempt, commit once.

A step's key is the digest of its name, the package version, its section and what its predecessors
committed. Where a manifest stands already the step is skipped; where its key differs, the run was
begun by another version or configuration and must not go on. Attempts that were killed stay behind;
whoever finds the step committed removes them.
"""

import contextlib
import hashlib
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from understudy import __version__, schema
from understudy.errors import BadInput, GateFailed, UnderstudyError, first_line
from understudy.lake import Lake, unwritable
from understudy.runs.plan import Plan
from understudy.runs.record import MANIFEST, Run, Verdict
from understudy.section import canonical_json
from understudy.spark_settings import missing_jars

__all__ = ["Outcome", "Step", "execute", "say_error", "stop_at_failed"]

_ATTEMPT = "attempt-"


@dataclass
class Outcome:
    """What a step hands over to be committed.

    Args:
        tables: names of the tables that it wrote into ``Step.table(name)``.
        figures: JSON values for the record and the report; nothing that depends on the clock.
        verdicts: what its gates found.
        files: other files that it wrote into ``Step.attempt``, relative to it.
    """

    tables: Sequence[str] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    verdicts: Sequence[Verdict] = ()
    files: Sequence[str] = ()


@dataclass(frozen=True)
class Step:
    """One attempt at a step: where it reads, where it writes."""

    lake: Lake
    run: Run
    plan: Plan
    name: str
    attempt: str

    def table(self, name: str) -> str:
        """Folder in the lake into which this attempt writes a table."""
        return f"{self.attempt}/{name}"

    def dataset(self, step: str, table: str) -> Any:
        """A predecessor's table, checked against its declaration."""
        path = self.run.table_path(step, table)
        dataset = self.lake.dataset(path)
        self._complete(step, table, path)
        schema.check(table, _without_day(dataset.schema), self.plan.heads)
        return dataset

    def _complete(self, step: str, table: str, path: str) -> None:
        """A file that was removed would be rows lost in silence."""
        manifest = self.run.manifest(step)
        assert manifest is not None, "the table's path came from it"
        committed = {file["name"] for file in manifest["tables"][table]["files"]}
        missing = sorted(committed - set(self.lake.files(path)))
        if missing:
            raise BadInput(
                f"{self.lake.path(path, missing[0])}: expected the file that step {step} committed, found none; "
                "restore it from a copy, or start a fresh run with `understudy run --again`"
            )

    def table_uri(self, step: str, table: str) -> str:
        """A predecessor's table as Spark reads it, checked against its declaration."""
        self.dataset(step, table)
        return self.lake.uri(self.run.table_path(step, table))

    def figures(self, step: str) -> dict[str, Any]:
        """What a predecessor recorded."""
        manifest = self.run.manifest(step)
        figures: dict[str, Any] = manifest["figures"] if manifest else {}
        return figures

    def file(self, step: str, name: str) -> str:
        """Path in the lake of a file that a predecessor committed."""
        manifest = self.run.manifest(step)
        if manifest is None or name not in manifest["files"]:
            raise UnderstudyError(f"run {self.run.id}: expected step {step} to have committed file {name}, found none")
        return str(manifest["files"][name]["path"])

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)


def execute(
    lake_uri: str,
    run_id: str,
    name: str,
    section: str,
    body: Callable[[Step], Outcome],
    *,
    needs: Sequence[str],
) -> dict[str, Any]:
    """Run a step of a run, or skip it where it is committed; returns its manifest.

    Args:
        lake_uri: the lake.
        run_id: a run that has a plan.
        name: the step.
        section: the step's configuration as canonical JSON.
        body: does the work and says what it wrote.
        needs: steps that must have committed, with no verdict that stops.

    Raises:
        GateFailed: this step's gates, or a predecessor's, said no.
        BadInput: the run was begun by another version or configuration.
    """
    lake = Lake.open(lake_uri)
    run = Run(lake, run_id)
    if not run.has_plan():
        raise BadInput(f"run {run_id!r}: expected a plan in lake {lake_uri}, found none; run plan_window first")
    try:
        manifest = _execute(lake, run, name, section, body, needs)
    except Exception as error:
        if not isinstance(error, GateFailed) or not run.failed_verdicts():
            say_error(name, error)
            # On a full disk the record cannot say it; the line above still reaches the user.
            with contextlib.suppress(OSError, UnderstudyError):
                run.record_error(name, error)
        raise
    stop_at_failed(name, manifest)
    return manifest


def say_error(name: str, error: BaseException) -> None:
    """One line that the runner of the pipeline can read, where the record may not be writable."""
    code = error.exit_code if isinstance(error, UnderstudyError) else UnderstudyError.exit_code
    print(f"{name}: error {code}: {first_line(error)}", file=sys.stderr, flush=True)


def stop_at_failed(name: str, manifest: dict[str, Any]) -> None:
    """Raise GateFailed where the manifest holds a verdict that stops."""
    failed = [v for v in manifest["verdicts"] if v["outcome"] in ("fail", "insufficient data")]
    if failed:
        more = f" (and {len(failed) - 1} more: `understudy runs show`)" if len(failed) > 1 else ""
        raise GateFailed(f"{name}: gate {failed[0]['gate']} said no: {failed[0]['reason']}{more}")


def _execute(
    lake: Lake, run: Run, name: str, section: str, body: Callable[[Step], Outcome], needs: Sequence[str]
) -> dict[str, Any]:
    predecessors: dict[str, str] = {}
    for need in needs:
        manifest = run.manifest(need)
        if manifest is None:
            raise UnderstudyError(f"run {run.id}, step {name}: expected {need} to be committed, found no manifest")
        stop_at_failed(need, manifest)
        predecessors[need] = manifest["output_digest"]
    plan = run.plan()
    key = _digest([name, __version__, section, plan.to_json(), predecessors])

    done = run.manifest(name)
    if done is None:
        done = _attempt(lake, run, plan, name, key, body)
    else:
        print(f"{name}: committed already, skipped", file=sys.stderr, flush=True)
    if done["key"] != key:
        raise BadInput(
            f"run {run.id}, step {name}: expected a record by this version ({__version__}) and configuration, "
            f"found one by version {done['version']}; start a fresh run with `understudy run --again`"
        )
    _sweep(lake, f"{run.folder}/steps/{name}", done["attempt"])
    return done


def _sweep(lake: Lake, folder: str, committed: str) -> None:
    """Remove the attempts that can win no more: of killed processes, and of late ones, which then lose."""
    for name in lake.names(folder):
        attempt = f"{folder}/{name}"
        if name.startswith(_ATTEMPT) and attempt != committed:
            with contextlib.suppress(OSError):  # a late process may still write there; the next to come sweeps again
                lake.remove(attempt)


def _attempt(lake: Lake, run: Run, plan: Plan, name: str, key: str, body: Callable[[Step], Outcome]) -> dict[str, Any]:
    folder = f"{run.folder}/steps/{name}"
    step = Step(lake, run, plan, name, f"{folder}/{_ATTEMPT}{uuid.uuid4().hex[:12]}")
    started = time.monotonic()
    try:
        outcome = body(step)
        tables = {table: _describe_table(step, table) for table in outcome.tables}
        files = {
            name: {"path": f"{step.attempt}/{name}", "sha256": lake.digest(step.attempt, name)}
            for name in outcome.files
        }
        content = {
            "tables": {table: sorted(f["sha256"] for f in t["files"]) for table, t in tables.items()},
            "files": {name: file["sha256"] for name, file in files.items()},
            "figures": outcome.figures,
        }
        manifest = {
            "step": name,
            "key": key,
            "version": __version__,
            "attempt": step.attempt,
            "tables": tables,
            "files": files,
            "figures": outcome.figures,
            "verdicts": [verdict.to_json() for verdict in outcome.verdicts],
            "output_digest": _digest(content),
            "seconds": round(time.monotonic() - started, 3),
        }
        won = lake.create_json(f"{folder}/manifest.json", manifest | MANIFEST.mark())
    except BaseException as error:
        lake.remove(step.attempt)
        committed = run.manifest(name)
        if committed is not None and isinstance(error, Exception):
            return committed  # too late, and it may have lost its attempt to the winner
        if isinstance(error, OSError):
            raise unwritable(error, lake.path(step.attempt)) from error
        if jars := missing_jars(str(error)):
            raise BadInput(jars) from error
        raise
    if won:
        return manifest
    lake.remove(step.attempt)
    committed = run.manifest(name)
    assert committed is not None, "a manifest that could not be created must exist"
    return committed


def _describe_table(step: Step, table: str) -> dict[str, Any]:
    path = step.table(table)
    dataset = step.lake.dataset(path)
    schema.check(table, _without_day(dataset.schema), step.plan.heads)
    names = [name for name in step.lake.files(path) if name.endswith(".parquet")]
    return {
        "path": path,
        "rows": dataset.count_rows(),
        "files": [{"name": name, "sha256": step.lake.digest(path, name)} for name in names],
    }


def _without_day(found: pa.Schema) -> pa.Schema:
    at = found.get_field_index("day")
    return found.remove(at) if at >= 0 else found


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
