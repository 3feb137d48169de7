"""Run the pipeline on this machine: the same graph and components, each step its own process or container."""

import contextlib
import io
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines.watching import End, watched
from understudy.config import Config
from understudy.errors import BadInput, GateFailed, UnderstudyError
from understudy.lake import Lake
from understudy.runs import Run
from understudy.runs.planning import draft_plan
from understudy.spark_server import serving

__all__ = ["run_pipeline"]

_LOG, _REPORT = "pipeline.log", "write_report"
_KINDS = {BadInput.exit_code: BadInput, GateFailed.exit_code: GateFailed}
_ERROR = re.compile(r"(\w+): error (\d): (.*)")


def run_pipeline(
    config: Config, lake_uri: str, window_end: str | None = None, again: bool = False, *, runner: str = "subprocess"
) -> str:
    """Run the retraining pipeline for one window; returns the run's id.

    A run that was killed goes on where it stood; one that is released already is not run again.

    Args:
        runner: ``subprocess``, or ``docker``: each step in a container of its role's image.

    Raises:
        BadInput: the window, the configuration or the container engine cannot be used.
        GateFailed: a gate said no; the record and the report tell which.
    """
    lake_uri = lake_uri if "://" in lake_uri else os.path.abspath(lake_uri)
    lake = Lake.open(lake_uri)
    plan = draft_plan(lake, config, window_end, again=again)
    run = Run(lake, plan.run_id)
    if run.has_plan() and run.status() == "released":
        from understudy.report.step import write

        write(lake_uri, run.id)  # a run that was killed after its release has no page, or an old one
        return run.id
    log = Path(lake.path(run.folder, _LOG)) if lake.is_local else None
    started = _now()
    spark = contextlib.nullcontext() if runner == "docker" else serving()
    with spark, _tap(log, {"plan_window", *_steps()}) as tap:
        ends = _Ends(run, started, tap)
        arguments = {"lake": lake_uri, "window_end": plan.window_end, "again": again}
        _run_graph(config, lake, arguments, runner, ends.hear)
    if run.manifest("promote") is None:
        raise _explain(run, log, started, tap.error, ends.first)
    return run.id


class _Ends:
    """Processes of steps that have not ended well: what nobody else has said of them is told and recorded."""

    def __init__(self, run: Run, started: str, tap: "_Tap") -> None:
        self.run, self.started, self.tap = run, started, tap
        self.first: End | None = None

    def hear(self, end: End) -> None:
        if end.step == _REPORT:
            print(f"{end.step}: {end.said()}", file=sys.__stderr__, flush=True)
            return
        self.first = self.first or end
        if self._is_explained(end.step):
            return
        print("\n".join([f"{end.step}: last lines of its process:", *end.lines]), file=sys.__stderr__, flush=True)
        if self.run.has_plan():
            with contextlib.suppress(OSError, UnderstudyError):  # a full disk is told by the line above
                self.run.record_error(end.step, UnderstudyError(end.said()), end.lines)

    def _is_explained(self, step: str) -> bool:
        """Whether the step has said itself why it stopped, or has committed before its process was lost."""
        if self.tap.error is not None:
            return True
        if not self.run.has_plan():
            return False
        error = self.run.last_error()
        is_told = error is not None and error["step"] == step and error["at"] >= self.started
        return is_told or bool(self.run.failed_verdicts()) or self.run.manifest(step) is not None


def _steps() -> list[str]:
    from pipelines.retraining import STEPS

    return list(STEPS)


def _run_graph(config: Config, lake: Lake, arguments: dict[str, Any], runner: str, told: Callable[[End], None]) -> None:
    """Run it to its end; how it went stands in the record.

    Args:
        told: hears of each step whose process has not ended well.
    """
    from kfp import local

    from pipelines.retraining import retraining

    logging.getLogger().setLevel(logging.ERROR)
    pipeline = retraining(config)
    with tempfile.TemporaryDirectory(prefix="understudy-kfp-") as root, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _steps_by(runner, pipeline, config, lake, Path(root), told) as how:
            local.init(how, pipeline_root=root, raise_on_error=False)
            pipeline(**arguments)


@contextlib.contextmanager
def _steps_by(
    runner: str, pipeline: Any, config: Config, lake: Lake, root: Path, told: Callable[[End], None]
) -> Iterator[Any]:
    """What kfp runs each step with."""
    if runner == "docker":
        try:
            from pipelines.docker_runner import docker_steps
        except ModuleNotFoundError as error:
            raise BadInput(
                f"--runner docker: expected Python's package docker, found none ({error}); `pip install docker`"
            ) from error
        with docker_steps(pipeline, lake, root, told, gpu=config.training.device == "cuda") as containers:
            yield containers
        return
    from kfp import local
    from kfp.local import subprocess_task_handler as handler

    here = str(Path(__file__).resolve().parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (here, os.environ.get("PYTHONPATH")) if p)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with watched(handler, "run_local_subprocess", handler.run_local_subprocess, told):
        yield local.SubprocessRunner(use_venv=False)


def _explain(
    run: Run, log: Path | None, started: str, said: tuple[int, str] | None, ended: End | None
) -> UnderstudyError:
    """Why the graph stopped: the record's word, or what a step said where the record could not be written."""
    error = run.last_error() if run.has_plan() else None
    failed = run.failed_verdicts() if run.has_plan() else []
    if failed:
        first = failed[0]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return GateFailed(
            f"{first['step']}: gate {first['gate']} said no: {first['reason']}{more}; production is as it was; "
            f"`understudy runs show {run.id}` tells more"
        )
    if error is not None and error["at"] >= started:
        return _KINDS.get(error["exit_code"], UnderstudyError)(f"{error['step']}: {error['error']}")
    if said is not None:
        return _KINDS.get(said[0], UnderstudyError)(said[1])
    where = f"; see {log}" if log else ""
    if ended is not None:
        return UnderstudyError(f"{ended.step}: {ended.said()}{where}")
    steps = ["plan_window"] if not run.has_plan() else [step for step in _steps() if run.manifest(step) is None]
    return UnderstudyError(f"run {run.id}: expected {steps[0]} to commit, found that it ended without a word{where}")


class _Tap(io.TextIOBase):
    """Passes the steps' own lines to stderr, and everything to a log."""

    def __init__(self, log: Path | None, steps: set[str]) -> None:
        self.steps = tuple(f"{step}: " for step in steps)
        self.waiting = ""
        self.error: tuple[int, str] | None = None
        self.log = log

    def write(self, text: str) -> int:
        self._keep(text)
        *lines, self.waiting = (self.waiting + text).split("\n")
        for line in map(str.strip, lines):
            if failed := _ERROR.fullmatch(line):
                self.error = int(failed[2]), f"{failed[1]}: {failed[3]}"
            elif line.startswith(self.steps):
                print(line, file=sys.__stderr__, flush=True)
        return len(text)

    def _keep(self, text: str) -> None:
        """The log is for people: a disk without room for it stops nothing."""
        if self.log is not None:
            with contextlib.suppress(OSError):
                self.log.parent.mkdir(parents=True, exist_ok=True)
                with self.log.open("a") as file:
                    file.write(text)


@contextlib.contextmanager
def _tap(log: Path | None, steps: set[str]) -> Iterator[_Tap]:
    tap = _Tap(log, steps)
    with contextlib.redirect_stdout(tap), contextlib.redirect_stderr(tap):
        yield tap


def _now() -> str:
    import datetime

    return datetime.datetime.now(datetime.UTC).isoformat()
