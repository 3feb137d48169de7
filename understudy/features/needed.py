"""What a run's features are for: the model that it trains, and the release that teaches it or stands beside it."""

from understudy.features.config import Features
from understudy.runs import Step
from understudy.section import canonical_json, from_json

__all__ = ["needed"]


def needed(step: Step, features: Features) -> Features:
    """The configured features, and those that the plan's reference reads."""
    if step.plan.reference_features is None:
        return features
    return features.united(from_json(Features, canonical_json(step.plan.reference_features)))
