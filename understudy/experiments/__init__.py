"""Who sees which release: buckets of users, arms of a rollout, holdouts; and what may be said of their difference."""

from understudy.experiments.arms import Arms, ramp
from understudy.experiments.outcomes import Difference, Outcomes, difference, without_heaviest

__all__ = ["Arms", "Difference", "Outcomes", "difference", "ramp", "without_heaviest"]
