"""Logs in KuaiRand's layout with a planted signal, as messy as real ones.

A click's log odds are a sum: the user's taste for the video's topic, the video's quality, its
author, the tab and the hour. The policy's log shows a user what they like; the random log does
not. The same seed gives the same bytes.
"""

import csv
import datetime
import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from understudy.simulator.profiles import users, videos

__all__ = ["FIRST_DAY", "Generated", "generate"]

FIRST_DAY = datetime.date(2022, 4, 25)
DAYS, USERS, VIDEOS, AUTHORS, TAGS = 10, 400, 300, 60, 15
RANDOM_SHARE, REPEATED_SHARE, DISAGREEING_SHARE = 0.1, 0.01, 0.003
CLICK_RATE, LONG_VIEW_RATE, LIKE_RATE = 0.40, 0.30, 0.04
TAB_SHARES = np.array([0.09, 0.62, 0.04, 0.02, 0.08, 0.01, 0.08, 0.02, 0.01, 0.01, 0.005, 0.005, 0.005, 0.003, 0.002])

_SHANGHAI = datetime.timezone(datetime.timedelta(hours=8))
_FIRST_MS = int(datetime.datetime.combine(FIRST_DAY, datetime.time(), _SHANGHAI).timestamp()) * 1000
_HOUR_MS = 3_600_000

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Generated:
    """What was written.

    Args:
        rows: file name → rows.
        impressions: distinct rows of both logs.
        repeated: exact copies of another row.
        disagreeing: copies that differ in an outcome.
        best_auc: of the true click probability on the impressions; no model can do better.
    """

    rows: dict[str, int]
    impressions: int
    repeated: int
    disagreeing: int
    best_auc: float


@dataclass(frozen=True)
class _World:
    """The truth. Effects are in log odds of a click."""

    activity: Floats  # (USERS,), sums to 1
    taste: Floats  # (USERS, TAGS)
    quality: Floats  # (VIDEOS,)
    popularity: Floats  # (VIDEOS,)
    author: Integers  # (VIDEOS,)
    author_effect: Floats  # (AUTHORS,)
    tag: Integers  # (VIDEOS,)
    duration_ms: Integers  # (VIDEOS,)
    tab_effect: Floats  # (TABS,)


def generate(folder: str | Path, *, seed: int = 0, rows: int = 30_000) -> Generated:
    """Write logs, users and videos into ``folder``, which is made where it is missing.

    Args:
        rows: of both logs together, copies included.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    world = _draw_world(rng)
    repeated, disagreeing = round(rows * REPEATED_SHARE), round(rows * DISAGREEING_SHARE)
    log, logit = _draw_log(world, rng, rows - repeated - disagreeing)
    best_auc = _auc(logit, log["is_click"])
    log = _with_copies(log, rng, repeated, disagreeing)
    random = log["is_rand"] == 1
    files: dict[str, Columns] = {
        "log_standard_4_25_to_5_04_pure.csv.gz": {name: column[~random] for name, column in log.items()},
        "log_random_4_25_to_5_04_pure.csv.gz": {name: column[random] for name, column in log.items()},
        "user_features_pure.csv.gz": users(world.activity, rng),
        "video_features_basic_pure.csv.gz": videos(world.author, world.tag, world.duration_ms, rng),
    }
    written = {name: _write(target / name, columns) for name, columns in files.items()}
    return Generated(written, rows - repeated - disagreeing, repeated, disagreeing, best_auc)


def _draw_world(rng: np.random.Generator) -> _World:
    activity = np.minimum(rng.pareto(1.2, USERS) + 0.2, 20)
    tag_shares = 1 / np.arange(1, TAGS + 1) ** 0.7
    return _World(
        activity=activity / activity.sum(),
        taste=rng.normal(0, 0.8, (USERS, TAGS)) + rng.normal(0, 0.35, (USERS, 1)),
        quality=rng.normal(0, 0.6, VIDEOS),
        popularity=rng.normal(0, 1.1, VIDEOS),
        author=rng.integers(0, AUTHORS, VIDEOS),
        author_effect=rng.normal(0, 0.4, AUTHORS),
        tag=rng.choice(TAGS, VIDEOS, p=tag_shares / tag_shares.sum()),
        duration_ms=np.clip(rng.lognormal(10.2, 0.7, VIDEOS), 3_000, 600_000).astype(np.int64),
        tab_effect=rng.normal(0, 0.45, len(TAB_SHARES)),
    )


def _draw_log(world: _World, rng: np.random.Generator, rows: int) -> tuple[Columns, Floats]:
    """Distinct impressions in order of time, and the log odds of a click of each."""
    random = rng.random(rows) < RANDOM_SHARE
    user = rng.choice(USERS, rows, p=world.activity)
    video = _choose_videos(world, rng, user, random)
    tab = rng.choice(len(TAB_SHARES), rows, p=TAB_SHARES / TAB_SHARES.sum())
    hour_shares = 1.15 + np.cos((np.arange(24) - 21) * 2 * np.pi / 24)
    hour = rng.choice(24, rows, p=hour_shares / hour_shares.sum())
    since_ms = (rng.integers(0, DAYS, rows) * 24 + hour) * _HOUR_MS + rng.integers(0, _HOUR_MS - rows, rows)
    order = np.argsort(since_ms, kind="stable")
    user, video, tab, hour, random = user[order], video[order], tab[order], hour[order], random[order]
    # No two impressions share a moment, so no two are one by accident.
    since_ms = np.maximum.accumulate(since_ms[order] - np.arange(rows)) + np.arange(rows)

    effect = world.taste[user, world.tag[video]] + world.quality[video] + world.author_effect[world.author[video]]
    effect += world.tab_effect[tab] + 0.3 * np.cos((hour - 22) * 2 * np.pi / 24)
    logit = _shifted(effect, CLICK_RATE)
    click = rng.random(rows) < _sigmoid(logit)
    long_view = rng.random(rows) < _sigmoid(_shifted(0.7 * effect + 3.0 * click, LONG_VIEW_RATE))
    like = click.copy()
    like[click] = rng.random(click.sum()) < _sigmoid(_shifted(0.5 * effect[click], LIKE_RATE / CLICK_RATE))
    return _log_columns(world, rng, user, video, tab, since_ms, random, click, long_view, like), logit


def _choose_videos(world: _World, rng: np.random.Generator, user: Integers, random: npt.NDArray[np.bool_]) -> Integers:
    """By popularity and taste, or uniformly at random (Gumbel's trick)."""
    wanted = world.popularity + 0.6 * world.taste[:, world.tag]  # (USERS, VIDEOS)
    video = np.empty(len(user), np.int64)
    for start in range(0, len(user), 8192):
        part = slice(start, start + 8192)
        score = np.where(random[part, None], 0.0, wanted[user[part]])
        video[part] = np.argmax(score + rng.gumbel(size=score.shape), axis=1)
    return video


def _log_columns(
    world: _World,
    rng: np.random.Generator,
    user: Integers,
    video: Integers,
    tab: Integers,
    since_ms: Integers,
    random: npt.NDArray[np.bool_],
    click: npt.NDArray[np.bool_],
    long_view: npt.NDArray[np.bool_],
    like: npt.NDArray[np.bool_],
) -> Columns:
    rows = len(user)
    days = np.array([int(f"{FIRST_DAY + datetime.timedelta(days=d):%Y%m%d}") for d in range(DAYS + 1)])
    rare = {name: (rng.random(rows) < rate) & click for name, rate in _RARE_GIVEN_CLICK.items()}
    duration = world.duration_ms[video]
    watched = np.where(long_view, rng.uniform(0.8, 1.5, rows), rng.uniform(0.0, 0.4, rows) * np.where(click, 1, 0.3))
    return {
        "user_id": user,
        "video_id": video,
        "date": days[since_ms // (24 * _HOUR_MS)],
        "hourmin": since_ms // _HOUR_MS % 24 * 100,
        "time_ms": _FIRST_MS + since_ms,
        "is_click": click.astype(np.int64),
        "is_like": like.astype(np.int64),
        **{name: rare[name].astype(np.int64) for name in ("is_follow", "is_comment", "is_forward")},
        "is_hate": ((rng.random(rows) < 0.001) & ~like).astype(np.int64),
        "long_view": long_view.astype(np.int64),
        "play_time_ms": (duration * watched).astype(np.int64),
        "duration_ms": duration,
        "profile_stay_time": np.where(rare["is_profile_enter"], rng.integers(100, 20_000, rows), 0),
        "comment_stay_time": np.where(rare["is_comment"], rng.integers(100, 60_000, rows), 0),
        "is_profile_enter": rare["is_profile_enter"].astype(np.int64),
        "is_rand": random.astype(np.int64),
        "tab": tab,
    }


_RARE_GIVEN_CLICK = {"is_follow": 0.005, "is_comment": 0.01, "is_forward": 0.004, "is_profile_enter": 0.03}


def _with_copies(log: Columns, rng: np.random.Generator, repeated: int, disagreeing: int) -> Columns:
    """Add exact copies, and copies whose click is the opposite, each beside its original."""
    rows = len(log["user_id"])
    copied = rng.choice(rows, repeated + disagreeing, replace=False)
    order = np.argsort(np.concatenate([np.arange(rows), copied]), kind="stable")
    differs = np.zeros(rows + len(copied), bool)
    differs[rows + repeated :] = True
    both = {name: np.concatenate([column, column[copied]]) for name, column in log.items()}
    both["is_click"] = np.where(differs, 1 - both["is_click"], both["is_click"])
    return {name: column[order] for name, column in both.items()}


def _shifted(logit: Floats, rate: float) -> Floats:
    """``logit`` plus the constant that makes its mean probability ``rate``."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _sigmoid(logit + middle).mean() < rate else (low, middle)
    return logit + low


def _sigmoid(logit: Floats) -> Floats:
    return 1 / (1 + np.exp(-logit))


def _auc(score: Floats, label: npt.NDArray[Any]) -> float:
    ranks = np.argsort(np.argsort(score)) + 1
    positives = int(label.sum())
    return float((ranks[label == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(label) - positives)))


def _write(path: Path, columns: Mapping[str, npt.NDArray[Any]]) -> int:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    with path.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file:
        file.write(text.getvalue().encode())
    return len(next(iter(columns.values())))
