"""What people did in an arm, from the log: users' seen items and actions, on impressions that had time to be answered.

A kept impression stands for ``1 / inclusion probability`` of them; both arms have the same cut. A metric is a head, how
often it was done per seen item; or a head's ``.value``, the sum of its actions' values per seen item, such as dwell.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np

from understudy.config import Config
from understudy.errors import first_line
from understudy.experiments import Outcomes
from understudy.lake import Lake
from understudy.logs.sources import literal, quoted
from understudy.rollout.state import ArmSeen, State
from understudy.section import canonical_json, duration_s
from understudy.snapshot import Snapshot

__all__ = ["Look", "logged"]

_TABLES = ("impressions", "actions")
_ARMS = ("canary", "baseline")
_VALUE = ".value"
_FRESH_S = 300
# What was sent twice counts once; an action after the window is no label.
_SEEN = """
WITH shown AS (
  SELECT * FROM impressions
  WHERE seen AND arm IN {arms} AND ts >= to_timestamp({start}) AND ts <= to_timestamp({end})
  QUALIFY row_number() OVER (PARTITION BY row_key ORDER BY ts) = 1
), acted AS (
  SELECT i.row_key, {gain} AS gain, count(*) AS acts
  FROM shown i JOIN (SELECT DISTINCT row_key, action, ts, value FROM actions) a USING (row_key)
  WHERE a.ts <= i.ts + to_seconds({window})
  GROUP BY i.row_key
)
SELECT i.arm, i.user_id, coalesce(a.gain, 0) AS y, CASE WHEN i.{predicted} BETWEEN 0 AND 1 THEN i.{predicted} END AS p,
       CASE WHEN a.acts > 0 OR i.slice = 'random' OR i.negative_keep_rate IS NULL THEN 1.0
            ELSE 1.0 / i.negative_keep_rate END AS weight
FROM shown i LEFT JOIN acted a USING (row_key)
"""
# What was not predicted, or is no probability, calibrates nothing: neither it nor what was done counts there.
_USERS = """
SELECT arm, user_id, sum(y) AS y, sum(weight) AS n, coalesce(sum(weight * p), 0) AS p,
       coalesce(sum(y) FILTER (p IS NOT NULL), 0) AS predicted_y
FROM ({seen}) GROUP BY arm, user_id
"""
_DONE = "max(CASE WHEN a.action = {head} THEN 1 ELSE 0 END)"
_SUM = "sum(CASE WHEN a.action = {head} AND isfinite(a.value) THEN greatest(a.value, 0) ELSE 0 END)"


Look = Callable[[State, float, dict[str, ArmSeen]], dict[str, ArmSeen]]


def logged(lake: Lake, config: Config, metrics: tuple[str, ...], arms: tuple[str, str] = _ARMS) -> Look:
    """A look at the lake's log, which is read again when it has grown, or after five minutes.

    Args:
        metrics: heads, or heads' ``.value``.
        arms: that are looked at.
    """
    window_s = duration_s(config.labels.attribution_window)
    kept: dict[Any, dict[str, ArmSeen]] = {}

    def look(state: State, now_s: float, shown: dict[str, ArmSeen]) -> dict[str, ArmSeen]:
        try:
            snapshot = Snapshot.current(lake)
            if not all(snapshot.tables.get(table) for table in _TABLES):
                return shown  # nothing was logged yet
            asked = (state.step_s, now_s // _FRESH_S, canonical_json(snapshot.tables))
            if asked not in kept:
                names = f"({', '.join(map(literal, arms))})"
                span = {"start": state.step_s, "end": now_s - window_s, "window": window_s, "arms": names}
                found = _read(lake, snapshot, metrics, span, arms)
                kept.clear()
                kept[asked] = found
        except Exception as error:  # no data, as from a server that does not answer; the other guardrails go on
            print(f"what people did: expected to read it, found: {first_line(error)}", file=sys.stderr, flush=True)
            return shown
        did = {arm: kept[asked][arm] for arm in shown}
        return {
            arm: replace(seen, users=did[arm].users, outcomes=did[arm].outcomes, calibration=did[arm].calibration)
            for arm, seen in shown.items()
        }

    return look


def _read(
    lake: Lake, snapshot: Snapshot, metrics: tuple[str, ...], span: dict[str, Any], arms: tuple[str, str]
) -> dict[str, ArmSeen]:
    """Arm → users, outcomes and calibration."""
    with duckdb.connect() as db:
        for table in _TABLES:
            db.register(table, snapshot.dataset(lake, table))
        return _filled(db, {arm: ArmSeen() for arm in arms}, metrics, span)


def _filled(
    db: "duckdb.DuckDBPyConnection", arms: dict[str, ArmSeen], metrics: tuple[str, ...], span: dict[str, Any]
) -> dict[str, ArmSeen]:
    found = dict(arms)
    for metric in metrics:
        head = metric.removesuffix(_VALUE)
        gain = (_DONE if metric == head else _SUM).format(head=literal(head))
        seen = _SEEN.format(predicted=quoted(f"p_{head}"), gain=gain, **span)
        rows = db.execute(_USERS.format(seen=seen)).fetchnumpy()
        for arm in arms:
            mine = np.asarray(rows["arm"] == arm, bool)
            y, n, p, predicted_y = (np.asarray(rows[name], np.float64)[mine] for name in ("y", "n", "p", "predicted_y"))
            outcomes = found[arm].outcomes | {metric: Outcomes.of(y, n)}
            calibration = found[arm].calibration
            if metric == head:
                calibration = calibration | {head: Outcomes.of(predicted_y, p)}
            users = max(found[arm].users or 0, int(mine.sum()))
            found[arm] = replace(found[arm], outcomes=outcomes, calibration=calibration, users=users)
    return found
