"""What the configuration says of bringing a release into production."""

from understudy.section import section

__all__ = ["Rollout"]


@section
class Rollout:
    """How a candidate becomes production.

    Args:
        mode: ``direct`` moves the alias when every verdict of the run is a pass; ``none`` leaves
            the candidate for a person to promote.
    """

    mode: str = "direct"

    def __post_init__(self) -> None:
        if self.mode not in ("direct", "none"):
            raise ValueError(f"mode: expected direct or none, found {self.mode!r}")
