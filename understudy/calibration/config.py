"""What the configuration says of calibration."""

from understudy.section import section

__all__ = ["Calibration"]


@section
class Calibration:
    """How logits become probabilities.

    Args:
        method: ``affine`` on the logit, or ``isotonic`` with ties broken, for many rows.
    """

    method: str = "affine"

    def __post_init__(self) -> None:
        if self.method not in ("affine", "isotonic"):
            raise ValueError(f"method: expected affine or isotonic, found {self.method!r}")
