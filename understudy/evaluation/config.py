"""What the configuration says of evaluation and its gates."""

from understudy.section import number, section

__all__ = ["Evaluation"]

_MOST = 100_000


@section
class Evaluation:
    """What a candidate must prove.

    Args:
        primary_heads: heads whose non-inferiority is required; empty: the
            alphabetically first.
        auc_margin: AUC that a candidate may lose against production, at the lower end of the
            interval. An interval wider than the margin is insufficient data.
        min_auc: absolute floor per primary head.
        max_calibration_error: |ratio − 1| that a primary head's calibration may show.
        max_ece: bound on a primary head's equal-mass expected calibration error.
        min_rank_correlation: how much of production's order within requests a candidate must keep.
        top: items of a request that count as its top, where churn is reported.
        max_size_mb: of the exported model.
        max_p99_ms: of scoring one slate on one core.
        slate_size: candidates in that slate.
        slate_sizes: of other slates that are measured and reported.
        export_tolerance: largest difference of a probability between the trained network with its
            calibration and the exported file.
        segments: columns whose segments may block on harm.
        min_segment_rows: smaller segments are reported only.
        bootstrap: resamples of users for intervals.
        seed: of the resamples.
    """

    primary_heads: tuple[str, ...] = ()
    auc_margin: float = number(0.01, low=1e-6, high=0.5)
    min_auc: float = number(0.55, low=0.5, high=1)
    max_calibration_error: float = number(0.05, low=0, high=1)
    max_ece: float = number(0.03, low=0, high=1)
    min_rank_correlation: float = number(0.3, low=-1, high=1)
    top: int = number(10, low=1, high=10_000)
    max_size_mb: float = number(200.0, low=0.001)
    max_p99_ms: float = number(25.0, low=0.001)
    slate_size: int = number(500, low=1, high=_MOST)
    slate_sizes: tuple[int, ...] = (100, 1000)
    export_tolerance: float = number(1e-4, low=0, high=1)
    segments: tuple[str, ...] = ("surface",)
    min_segment_rows: int = number(300, low=1)
    bootstrap: int = number(200, low=20, high=100_000)
    seed: int = 0

    def __post_init__(self) -> None:
        if not all(1 <= size <= _MOST for size in self.slate_sizes):
            raise ValueError(f"slate_sizes: expected numbers from 1 to {_MOST}, found {list(self.slate_sizes)}")
