"""What the configuration says of serving; a release carries it."""

from dataclasses import field

from understudy.section import duration_s, number, section

__all__ = ["Serving"]


@section
class Serving:
    """How a release ranks, and within which limits.

    Args:
        utility: head → what one such outcome is worth; candidates are ordered by the sum of probability × worth.
            Empty: each primary head is worth 1. A harmful head's worth is negative.
        budget_ms: a request that can't be answered within this is refused at once (503), so that others can.
        queue: requests that wait at most.
        max_candidates: of a request.
        max_body_kb: of a request.
        online_timeout_ms: how long the online store may take; after that the user counts as unknown.
        kept_rows: of users' features, which a process keeps for up to a minute; a user takes two, and one for each
            creator or topic of a slate where ``features.crosses`` counts them. More of them take more memory.
        stale_after: features that were refreshed longer ago than this are counted as stale, and used.
    """

    utility: dict[str, float] = field(default_factory=dict)
    budget_ms: float = number(50.0, low=1, high=60_000)
    queue: int = number(64, low=1, high=100_000)
    max_candidates: int = number(1000, low=1, high=10_000)
    max_body_kb: int = number(256, low=1, high=65_536)
    online_timeout_ms: float = number(5.0, low=0.1, high=10_000)
    kept_rows: int = number(10_000, low=0, high=10_000_000)
    stale_after: str = "6h"

    def __post_init__(self) -> None:
        duration_s(self.stale_after)
        for head, worth in self.utility.items():
            if not -1e9 <= worth <= 1e9:
                raise ValueError(f"utility: expected a number for {head}, found {worth}")
