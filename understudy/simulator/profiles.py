"""Attributes of users and videos in KuaiRand's columns."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["users", "videos"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Columns = dict[str, npt.NDArray[Any]]


def users(activity: Floats, rng: np.random.Generator) -> Columns:
    """One row per user. Only ``user_active_degree`` tells anything: how active the user is.

    Args:
        activity: (users,) share of the traffic.
    """
    count = len(activity)
    follow, fans, friends = (rng.lognormal(mean, 1.4, count).astype(np.int64) for mean in (4.2, 3.0, 2.3))
    registered = rng.integers(2, 2_500, count)
    rank = np.argsort(np.argsort(-activity)) / count
    degrees = np.array(["full_active", "high_active", "middle_active", "low_active"])
    columns: Columns = {
        "user_id": np.arange(count),
        "user_active_degree": degrees[np.searchsorted([0.3, 0.6, 0.85], rank, side="right")],
        "is_lowactive_period": np.zeros(count, np.int64),
        "is_live_streamer": np.where(rng.random(count) < 0.2, 1, -124),
        "is_video_author": (rng.random(count) < 0.8).astype(np.int64),
        "follow_user_num": follow,
        "follow_user_num_range": _range(follow, [10, 50, 100, 150, 250, 500]),
        "fans_user_num": fans,
        "fans_user_num_range": _range(fans, [1, 10, 100, 1_000, 5_000]),
        "friend_user_num": friends,
        "friend_user_num_range": _range(friends, [1, 5, 30, 60, 120, 250]),
        "register_days": registered,
        "register_days_range": _range(registered, [30, 60, 90, 180, 365, 730]),
    }
    widths = (2, 7, 50, 1471, 15, 34, 3, 118, 454, 7, 5, 5, 2, 2, 2, 2, 2, 2)
    for i, width in enumerate(widths):
        values = rng.integers(0, width, count)
        # As in the published files, some of these are floats with gaps.
        gaps = np.where(rng.random(count) < 0.03, "", np.char.add(values.astype(str), ".0"))
        columns[f"onehot_feat{i}"] = gaps if i == 4 or i >= 12 else values
    return columns


def videos(author: Integers, tag: Integers, duration_ms: Integers, rng: np.random.Generator) -> Columns:
    """One row per video. Some list a second tag, as the published files do.

    Args:
        author, tag, duration_ms: (videos,).
    """
    count = len(author)
    upright = rng.random(count) < 0.8
    tags = tag.astype(str)
    tags = np.where(rng.random(count) < 0.1, np.char.add(tags, ",99"), tags)
    return {
        "video_id": np.arange(count),
        "author_id": author + 1_000,
        "video_type": np.where(rng.random(count) < 0.99, "NORMAL", "AD"),
        "upload_dt": np.array(["2022-04-09", "2022-04-10", "2022-04-11"])[rng.integers(0, 3, count)],
        "upload_type": np.array(["LongImport", "Web", "ShortImport", "Kmovie"])[rng.integers(0, 4, count)],
        "visible_status": np.zeros(count),
        "video_duration": duration_ms.astype(np.float64),
        "server_width": np.where(upright, 720.0, 1280.0),
        "server_height": np.where(upright, 1280.0, 720.0),
        "music_id": rng.integers(1, 10**10, count),
        "music_type": rng.choice([4.0, 7.0, 8.0, 9.0], count, p=[0.1, 0.02, 0.03, 0.85]),
        "tag": tags,
    }


def _range(values: Integers, bounds: Sequence[int]) -> npt.NDArray[np.str_]:
    names = [f"[0,{bounds[0]})", *(f"[{a},{b})" for a, b in itertools.pairwise(bounds)), f"{bounds[-1]}+"]
    return np.array(names)[np.searchsorted(bounds, values, side="right")]
