"""Which examples train: all positives, and negatives at the rate of the first rule that matches.

The decision is a function of the row alone: Spark evaluates it here as expressions, and
``decision`` in ``understudy.hashing`` gives the same numbers in NumPy.
"""

from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F

from understudy import spark
from understudy.sampling.config import Sampling

__all__ = ["DEFAULT_RULE", "importance", "keep", "rule_name", "sampling_rate", "split"]

DEFAULT_RULE = "default"
STOP_SHARE, CALIBRATE_SHARE = 0.2, 0.4


def rule_name(sampling: Sampling) -> Column:
    """The name of the rule that decides each row."""
    return _by_rule(sampling, DEFAULT_RULE, [rule.name for rule in sampling.rules])


def sampling_rate(sampling: Sampling, positive: Column) -> Column:
    """Chance that the row is kept: 1 for a positive."""
    rates = [sampling.negative_rate if r.negative_rate is None else r.negative_rate for r in sampling.rules]
    return F.when(positive, F.lit(1.0)).otherwise(_by_rule(sampling, sampling.negative_rate, rates))


def importance(sampling: Sampling) -> Column:
    """Weight in the loss beyond the sample weight."""
    return _by_rule(sampling, 1.0, [rule.importance for rule in sampling.rules])


def keep(sampling: Sampling, rate: Column) -> Column:
    """Whether the row stays, by the hash of its key."""
    return spark.decision("sampling", sampling.seed, F.col("row_key")) < rate


def split(window_end: str) -> Column:
    """``train`` for all days but the last; the last by hash of the user, 20 / 40 / 40."""
    share = spark.decision("split", 0, F.col("user_id"))
    last = (
        F.when(share < STOP_SHARE, F.lit("stop"))
        .when(share < STOP_SHARE + CALIBRATE_SHARE, F.lit("calibrate"))
        .otherwise(F.lit("gate"))
    )
    return F.when(F.col("day") == window_end, last).otherwise(F.lit("train"))


def _by_rule(sampling: Sampling, default: float | str, values: list[float] | list[str]) -> Column:
    cases = list(zip(sampling.rules, values, strict=True))
    matches = [(F.col(f"`{rule.column}`").cast("string").isin(*rule.values), F.lit(value)) for rule, value in cases]
    return reduce(lambda rest, case: F.when(case[0], case[1]).otherwise(rest), reversed(matches), F.lit(default))
