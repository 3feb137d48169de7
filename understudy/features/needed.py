"""What a run's features are for: the model that it trains, and the release that teaches it or stands beside it."""

from understudy.features.config import Features
from understudy.runs import Step
from understudy.section import stored

__all__ = ["needed"]


def needed(step: Step, features: Features) -> Features:
    """The configured features, and those that the plan's reference reads."""
    if step.plan.reference_features is None:
        return features
    kept = {"features": step.plan.reference_features}
    return features.united(stored(Features, kept, "features", f"run {step.run.id}", step.plan.version))
