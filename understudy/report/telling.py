"""Tell people how a run has ended, from its record alone: released, a gate said no, or it crashed.

MLflow, where the environment names it, is told as well: it shows the releases as they are then.
"""

import sys
from typing import Any

from understudy.alerts import tell
from understudy.errors import first_line
from understudy.lake import Lake
from understudy.releases.mirror import keep_mirror
from understudy.runs import Run

__all__ = ["ending", "tell_end"]


def tell_end(lake_uri: str, run_id: str | None, job: str, last: str = "promote") -> bool:
    """Tell whoever the environment names; whether all people were told. Never raises.

    A run that has done what it was for is told of only where that is a release.

    Args:
        run_id: None: the job ended before it had a plan.
        job: of the orchestrator.
        last: the step whose commit means that the run has done what it is for.
    """
    told = _tell_people(lake_uri, run_id, job, last)
    if last == "promote":
        keep_mirror(lake_uri)
    return told


def _tell_people(lake_uri: str, run_id: str | None, job: str, last: str) -> bool:
    try:
        if run_id is None:
            text, details = f"a run ended before it had a plan; the log of job {job} says why", {"job": job}
        else:
            run = Run(Lake.open(lake_uri), run_id)
            if last != "promote" and run.is_done(last):
                return False
            text, details = ending(run, last)
        return tell(text, details={**details, "lake": lake_uri})
    except Exception as error:  # an alert never fails a run
        print(f"alert could not be sent: {first_line(error)}", file=sys.stderr, flush=True)
        return False


def ending(run: Run, last: str = "") -> tuple[str, dict[str, Any]]:
    """How a run has ended: a sentence with the figures, and what it is about.

    Args:
        last: of the graph that has ended; empty: of the one that was asked for.
    """
    last = last or run.last_step()
    plan = run.plan()
    window = f"{plan.window_start} to {plan.window_end}"
    details: dict[str, Any] = {"run": run.id, "window": window}
    failed, error = run.failed_verdicts(), run.last_error()
    if failed:
        return _refused(run, failed, details)
    manifest = run.manifest(last)
    if manifest is not None and last == "promote":
        figures = manifest["figures"]
        stage = "is production" if figures["promoted"] else f"waits as candidate: {figures['reason']}"
        details |= {"release": figures["digest"], "seconds": _seconds(run)}
        return f"run {run.id}: release {figures['digest'][:12]} {stage}", details
    if manifest is not None:
        return f"run {run.id}: done up to {last}", details
    if error is not None:
        word = {2: "could not use its input", 3: "was stopped"}.get(error["exit_code"], "crashed")
        return f"run {run.id} {word} in {error['step']}: {error['error']}", details | {"step": error["step"]}
    steps = run.committed_steps()
    reached = f"after {', '.join(sorted(steps))}" if steps else "before its first step"
    return (
        f"run {run.id} ended {reached} without a word, as a pod does that is evicted, out of memory or out of time",
        details,
    )


def _refused(run: Run, failed: list[dict[str, Any]], details: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    first = failed[0]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    details |= {"step": first["step"], "gate": first["gate"], "figure": first["figure"], "value": first["value"]}
    details |= {key: first[key] for key in ("low", "high") if first[key] is not None}
    text = f"run {run.id}: {first['step']}: gate {first['gate']} said no: {first['reason']}{more}"
    return f"{text}; production is as it was", details


def _seconds(run: Run) -> float:
    return round(sum(float(manifest["seconds"]) for manifest in run.committed_steps().values()), 1)
