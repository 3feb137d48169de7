"""What the configuration says of sampling."""

from dataclasses import field

from understudy.section import number, section

__all__ = ["Rule", "Sampling"]


@section
class Rule:
    """Rows that are sampled or weighted otherwise. The first rule that matches a row decides.

    Args:
        name: as the report shows it.
        column: a column of the examples, or an attribute of the user or item.
        values: the rule is for rows whose column has one of these values.
        negative_rate: share of negatives to keep; None: the default rate.
        importance: weight of the rows in the loss, relative to others.
    """

    name: str
    column: str
    values: tuple[str, ...]
    negative_rate: float | None = number(None, low=1e-6, high=1)
    importance: float = number(1.0, low=0)


@section
class Sampling:
    """Which examples train the ranker. All positives are kept.

    Args:
        negative_rate: share of negatives to keep. Lower it when training is too slow.
        rules: exceptions, by segment, content type or surface.
        random_slice_share: the random slice's share of the total loss weight; None: its own.
        seed: another seed keeps other negatives.
        mode: who decides: ``spark``, which writes what is kept; ``loader``, the data loader of the training, which
            reads all examples, so that several configurations share one table. Both keep the same rows.
    """

    negative_rate: float = number(1.0, low=1e-6, high=1)
    rules: tuple[Rule, ...] = field(default=())
    random_slice_share: float | None = number(None, low=0, high=0.95)
    seed: int = 0
    mode: str = "spark"

    def __post_init__(self) -> None:
        if self.mode not in ("spark", "loader"):
            raise ValueError(f"mode: expected spark or loader, found {self.mode!r}")
