"""Records of runs that ended in every way, made without running anything."""

import contextlib
from typing import Any

from understudy import __version__
from understudy.errors import UnderstudyError
from understudy.lake import Lake
from understudy.runs import Outcome, Plan, Run, Verdict, execute
from understudy.runs.planning import _job_path

__all__ = ["FAILED", "PASSED", "commit", "recorded"]

PASSED = Verdict("AUC: click", "pass", "AUC click", 0.71, "AUC click is .71", low=0.7)
FAILED = Verdict("AUC: click", "fail", "AUC click", 0.61, "AUC click is .61; it must be at least .7", low=0.7)


def recorded(lake: Lake, job: str, run_id: str = "2026-11-27-0a1b2c3d", purpose: str = "train") -> Run:
    """A run that has its plan."""
    plan = Plan(
        run_id=run_id,
        purpose=purpose,
        time_zone="UTC",
        heads=("click",),
        history_start="2026-11-01",
        window_start="2026-11-14",
        window_end="2026-11-27",
        snapshot=1,
        production=None,
        reference=None,
        reference_features=None,
        teacher=None,
        teacher_note="first release",
        control=False,
        given_up=False,
        quarantined=(),
        input_fingerprint="f" * 64,
        config_digest="c" * 64,
        config={"evaluation": {"primary_heads": []}},
        version=__version__,
    )
    run = Run(lake, run_id)
    run.write_plan(plan)
    lake.create_json(_job_path(job), {"run_id": run_id})
    return run


def commit(run: Run, step: str, *verdicts: Verdict, error: Exception | None = None, **figures: Any) -> None:
    """A step that has committed, or has failed."""

    def body(_: Any) -> Outcome:
        if error is not None:
            raise error
        return Outcome(figures=figures, verdicts=verdicts)

    with contextlib.suppress(UnderstudyError, OSError):
        execute(run.lake.uri(), run.id, step, "{}", body, needs=[])
