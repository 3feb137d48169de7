"""What the configuration says of calibration."""

from understudy.section import number, section

__all__ = ["Calibration"]


@section
class Calibration:
    """How logits become probabilities.

    Args:
        method: ``affine`` on the logit, or ``isotonic`` with ties broken, for many rows.
        prior_positives: how many positives the network's own word is worth. Rates move by some 3% from day to day,
            1/√1000: a calibrator that has seen fewer knows the level no better than the network does.
    """

    method: str = "affine"
    prior_positives: float = number(1000.0, low=0)

    def __post_init__(self) -> None:
        if self.method not in ("affine", "isotonic"):
            raise ValueError(f"method: expected affine or isotonic, found {self.method!r}")
