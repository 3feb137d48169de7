"""What the configuration says of drift."""

from dataclasses import field

from understudy.section import number, section

__all__ = ["Drift"]


@section
class Drift:
    """How much the new days may differ from the reference.

    Args:
        actions: column → ``stop``, ``warn`` or ``report``, over the defaults.
        psi_floor: a population stability index below this never stops.
        psi_factor: a column may drift this many times as much as it did from day to day before.
        label_rate_factor: a head's rate may change by this factor, up or down.
        null_share: a column's share of nulls may grow by this much.
        min_rows: fewer rows than this on either side are "insufficient data".
        report_rows: rows of the sample for the Evidently report.
    """

    actions: dict[str, str] = field(default_factory=dict)
    psi_floor: float = number(0.25, low=0)
    psi_factor: float = number(3.0, low=1)
    label_rate_factor: float = number(1.5, low=1)
    null_share: float = number(0.1, low=0, high=1)
    min_rows: int = number(500, low=1)
    report_rows: int = number(5000, low=100, high=1_000_000)

    def __post_init__(self) -> None:
        for column, action in self.actions.items():
            if action not in ("stop", "warn", "report"):
                raise ValueError(f"actions.{column}: expected stop, warn or report, found {action!r}")
