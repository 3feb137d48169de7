"""What people did in an arm, from the log: users' seen items and actions, on impressions that had time to be answered.

A kept impression stands for ``1 / inclusion probability`` of them; both arms have the same cut. A metric is a head, how
often it was done per seen item; or a head's ``.value``, the sum of its actions' values per seen item, such as dwell.
"""

from collections.abc import Callable
from dataclasses import replace

import duckdb
import numpy as np

from understudy.config import Config
from understudy.errors import BadInput
from understudy.experiments import Outcomes
from understudy.lake import Lake
from understudy.logs.sources import literal, quoted
from understudy.rollout.state import ArmSeen, State
from understudy.section import duration_s
from understudy.snapshot import Snapshot

__all__ = ["logged"]

_TABLES = ("impressions", "actions")
_VALUE = ".value"
_SEEN = """
SELECT i.arm, i.user_id, i.row_key, i.{predicted} AS p, i.negative_keep_rate AS kept, i.slice = 'random' AS random,
       coalesce((SELECT {gain} FROM actions a WHERE a.row_key = i.row_key AND a.action = {head}), 0) AS gain,
       EXISTS (SELECT 1 FROM actions a WHERE a.row_key = i.row_key) AS any_done
FROM impressions i
WHERE i.seen AND i.arm IN ('canary', 'baseline') AND i.ts >= to_timestamp({start}) AND i.ts <= to_timestamp({end})
"""
_USERS = """
SELECT arm, user_id, sum(gain) AS y, sum(weight) AS n, sum(weight * p) AS p FROM (
  SELECT *, CASE WHEN any_done OR random OR kept IS NULL THEN 1.0 ELSE 1.0 / kept END AS weight FROM ({seen})
) GROUP BY arm, user_id
"""


def logged(
    lake: Lake, config: Config, metrics: tuple[str, ...]
) -> Callable[[State, float, dict[str, ArmSeen]], dict[str, ArmSeen]]:
    """A look at the lake's log.

    Args:
        metrics: heads, or heads' ``.value``.
    """
    window_s = duration_s(config.labels.attribution_window)

    def look(state: State, now_s: float, arms: dict[str, ArmSeen]) -> dict[str, ArmSeen]:
        try:
            snapshot = Snapshot.current(lake)
        except BadInput:
            return arms
        if not all(snapshot.tables.get(table) for table in _TABLES):
            return arms  # nothing was logged yet
        with duckdb.connect() as db:
            for table in _TABLES:
                db.register(table, snapshot.dataset(lake, table))
            return _filled(db, arms, metrics, state.step_s, now_s - window_s)

    return look


def _filled(
    db: "duckdb.DuckDBPyConnection", arms: dict[str, ArmSeen], metrics: tuple[str, ...], start: float, end: float
) -> dict[str, ArmSeen]:
    found = dict(arms)
    for metric in metrics:
        head = metric.removesuffix(_VALUE)
        gain = "sum(greatest(a.value, 0))" if metric != head else "max(1)"
        seen = _SEEN.format(predicted=quoted(f"p_{head}"), head=literal(head), gain=gain, start=start, end=end)
        rows = db.execute(_USERS.format(seen=seen)).fetchnumpy()
        for arm in arms:
            mine = np.asarray(rows["arm"] == arm, bool)
            y, n, p = (np.asarray(rows[name], np.float64)[mine] for name in ("y", "n", "p"))
            outcomes = found[arm].outcomes | {metric: Outcomes.of(y, n)}
            calibration = found[arm].calibration
            if metric == head:
                calibration = calibration | {head: Outcomes.of(y, np.nan_to_num(p))}
            users = max(found[arm].users or 0, int(mine.sum()))
            found[arm] = replace(found[arm], outcomes=outcomes, calibration=calibration, users=users)
    return found
