"""How much of the order changes from one release to the next, whatever that does to the metrics.

Churn is what people notice and what other systems that read the scores must bear: M. Milani Fard et al.,
"Launch and Iterate: Reducing Prediction Churn", NeurIPS 2016.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["churn"]

Floats = npt.NDArray[np.float64]


def churn(requests: npt.NDArray[Any], ours: Floats, theirs: Floats, top: int) -> dict[str, Any] | None:
    """Agreement of two rankers within requests, averaged over the requests that both can order.

    Args:
        requests: (n,) the request of each row.
        ours, theirs: (n,) scores.
        top: how many of a request's best items count as its top; at most half of them.

    Returns:
        ``requests`` that were compared, ``rank_correlation`` (C. Spearman's; ties share their mean rank) and
        ``top_kept``, the share of their top that is in ours. None: no request has two items that differ.
    """
    rows = pd.DataFrame({"request": requests, "ours": ours, "theirs": theirs})
    by = rows.groupby("request", sort=False)
    ranks = by[["ours", "theirs"]].rank()
    apart = ranks - ranks.groupby(rows["request"], sort=False).transform("mean")
    products = {"both": apart["ours"] * apart["theirs"], "ours": apart["ours"] ** 2, "theirs": apart["theirs"] ** 2}
    sums = pd.DataFrame(products).groupby(rows["request"], sort=False).sum()
    sums = sums[(sums["ours"] > 0) & (sums["theirs"] > 0)]
    if sums.empty:
        return None
    size = (by["ours"].transform("size") // 2).clip(1, top)
    best = by[["ours", "theirs"]].rank(method="first", ascending=False).le(size, axis=0)
    kept = (best["ours"] & best["theirs"]).groupby(rows["request"], sort=False).sum()
    kept = kept / best["theirs"].groupby(rows["request"], sort=False).sum()
    return {
        "requests": len(sums),
        "rank_correlation": round(float((sums["both"] / np.sqrt(sums["ours"] * sums["theirs"])).mean()), 9),
        "top_kept": round(float(kept[sums.index].mean()), 9),
    }
