"""What gradient-boosted trees reach on the demo's first window: the usual strong baseline, with and without a leak.

LightGBM learns 25 to 30 April from counts at each event's own time (per user, video, author, tag, user × author,
user × tag, and their crosses with the surface) and is scored on 1 to 4 May. KuaiRand repeats rows: a copy has the
same user, video and time as its original, and the same outcome. Where counts follow the order of rows, a copy reads
its own label from the original; the table shows what that is worth when copies are scored as well.
"""

import argparse
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from understudy.cli.output import print_table

KEYS = ("user_id", "video_id", "time_ms")
HEADS = {"click": "is_click", "long_view": "long_view"}
FIRST_TEST, LAST_TRAIN = 20220501, 20220430
PLAIN = (("user_id",), ("video_id",), ("author_id",), ("tag",), ("user_id", "author_id"), ("user_id", "tag"))
SURFACE = (("user_id", "tab"), ("video_id", "tab"), ("author_id", "tab"), ("tag", "tab"), ("tab",))
STATIC = ("tab", "hour", "video_duration", "user_active_degree", "register_days", "follow_user_num", "fans_user_num")
SETTINGS = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 63,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "num_threads": 2,
    "seed": 0,
    "deterministic": True,
    "verbose": -1,
}
ROUNDS = 150


def read(folder: Path) -> pd.DataFrame:
    """The policy's log in order of time, with what is known of users and videos."""
    log = pd.concat([pd.read_csv(path) for path in sorted(folder.glob("log_standard_*"))], ignore_index=True)
    videos = pd.concat([pd.read_csv(path) for path in sorted(folder.glob("video_features_basic_*"))])
    videos["tag"] = videos["tag"].astype(str).str.split(",").str[0]
    users = pd.concat([pd.read_csv(path) for path in sorted(folder.glob("user_features_*"))])
    columns = ["user_id", "user_active_degree", "register_days", "follow_user_num", "fans_user_num"]
    rows = log.merge(videos[["video_id", "author_id", "tag", "video_duration"]], on="video_id", how="left")
    rows = rows.merge(users[columns], on="user_id", how="left")
    rows["hour"] = rows["hourmin"] // 100
    rows["user_active_degree"] = rows["user_active_degree"].astype("category").cat.codes
    return rows.sort_values("time_ms", kind="stable", ignore_index=True)


def distinct(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per user, video and time; an outcome counts when any copy reports it."""
    outcomes = dict.fromkeys(HEADS.values(), "max")
    others = {name: "first" for name in rows.columns if name not in {*outcomes, *KEYS}}
    merged = rows.groupby(list(KEYS), sort=False, as_index=False).agg({**others, **outcomes})
    return merged.sort_values("time_ms", kind="stable", ignore_index=True)


def counts(rows: pd.DataFrame, groups: tuple[tuple[str, ...], ...], *, by_order: bool) -> dict[str, Any]:
    """Impressions and positives of each group before the row.

    Args:
        by_order: before in the order of rows, so that a copy sees its original; else strictly earlier in time.
    """
    found: dict[str, Any] = {}
    for group in groups:
        keys = list(group)
        moment = rows["time_ms"] if not by_order else pd.Series(np.arange(len(rows)))
        for name, values in {"n": pd.Series(1.0, rows.index), **{h: rows[c] for h, c in HEADS.items()}}.items():
            frame = rows[keys].assign(moment=moment, value=values)
            # The sum before the first row of this moment holds strictly earlier events only.
            before = frame.groupby(keys, dropna=False)["value"].cumsum() - frame["value"]
            first = before.groupby([frame[key] for key in [*keys, "moment"]], dropna=False).transform("first")
            found[f"{'_'.join(keys)}_{name}"] = first
        seen = found[f"{'_'.join(keys)}_n"]
        for head in HEADS:
            found[f"{'_'.join(keys)}_{head}_rate"] = (found[f"{'_'.join(keys)}_{head}"] + 1) / (seen + 2.5)
    return found


def auc(rows: pd.DataFrame, features: pd.DataFrame, head: str) -> tuple[float, float]:
    """AUC on the test days: of distinct rows, and of all rows."""
    train, test = rows["date"] <= LAST_TRAIN, rows["date"] >= FIRST_TEST
    data = lightgbm.Dataset(features[train], rows.loc[train, HEADS[head]])
    scores = lightgbm.train(SETTINGS, data, ROUNDS).predict(features[test])
    labels, first = rows.loc[test, HEADS[head]].to_numpy(), ~rows[test].duplicated(list(KEYS)).to_numpy()
    return float(roc_auc_score(labels[first], scores[first])), float(roc_auc_score(labels, scores))


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="folder with KuaiRand-Pure")
    folder = parser.parse_args().data
    published = read(folder)
    table = []
    for name, rows, by_order in (
        ("distinct rows, strictly earlier", distinct(published), False),
        ("rows as published, strictly earlier", published, False),
        ("rows as published, in their order", published, True),
    ):
        static = rows[list(STATIC)]
        plain = pd.DataFrame({**static, **counts(rows, PLAIN, by_order=by_order)})
        crossed = pd.DataFrame({**plain, **counts(rows, SURFACE, by_order=by_order)})
        for features, label in ((plain, "counts"), (crossed, "and surface crosses")):
            figures = [f"{value:.4f}" for head in HEADS for value in auc(rows, features, head)]
            table.append((name, label, *figures))
            print(*table[-1], sep="\t", flush=True)
    scored = [f"{head}, {what}" for head in HEADS for what in ("distinct", "all rows")]
    print_table("AUC of LightGBM on 1 to 4 May", ("learned from", "features", *scored), table)


if __name__ == "__main__":
    main()
