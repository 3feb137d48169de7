"""The record of a run: its plan, what each step committed, verdicts and seconds."""

from understudy.runs.plan import Plan
from understudy.runs.record import Run, Verdict
from understudy.runs.step import Outcome, Step, execute, say_error, stop_at_failed

__all__ = ["Outcome", "Plan", "Run", "Step", "Verdict", "execute", "say_error", "stop_at_failed"]
