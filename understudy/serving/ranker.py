"""Rank a slate: features, scores, utility, order. No HTTP here.

A ``Stage`` is what one request sees: a release and an item snapshot. Stages are exchanged whole, so that a request that
began on one ends on it.
"""

import json
import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from understudy import renames
from understudy.errors import BadInput
from understudy.evaluation.config import Evaluation
from understudy.features.items import ItemSnapshot
from understudy.inputs import Inputs
from understudy.logs.keep import SEED, SLICE
from understudy.ranker.served import Served
from understudy.releases import Release
from understudy.section import stored
from understudy.serving.config import Serving
from understudy.serving.feeds import Assembler
from understudy.serving.hashes import hashes_of, lots
from understudy.serving.online import OnlineStore, Row, Unavailable

__all__ = ["Model", "Scored", "Stage", "rank"]

_ORDER = "order"  # the name of the decision that orders the random slice

Floats = npt.NDArray[np.float32]


class Model:
    """A release that was loaded: its served file and how it ranks.

    Args:
        threads: CPU threads of one request.
    """

    def __init__(self, release: Release, threads: int = 1) -> None:
        config = renames.today(release.manifest["config"])
        where, by = f"release {release.digest[:12]}", release.manifest.get("version", "")
        self.digest = release.digest
        self.heads = tuple(release.manifest["heads"])
        self.inputs = Inputs.from_json(release.files["inputs.json"].decode())
        self.served = Served(release.files["served.onnx"], self.inputs, threads=threads)
        self.config = stored(Serving, config, "serving", where, by)
        self.random_share = float((config.get("logging") or {}).get("random_share", 0.0))
        self.views = {
            view: list(one["features"])
            for view, one in json.loads(release.files["feature_service.json"])["views"].items()
            if view.startswith("user_")
        }
        primary = stored(Evaluation, config, "evaluation", where, by).primary_heads or self.heads[:1]
        worth = self.config.utility or dict.fromkeys(primary, 1.0)
        unknown = sorted(set(worth) - set(self.heads))
        if unknown:
            raise BadInput(
                f"release {self.digest[:12]}: serving.utility: expected heads {', '.join(self.heads)}, "
                f"found {', '.join(unknown)}; correct the configuration and release again"
            )
        self.worth = np.array([worth.get(head, 0.0) for head in self.heads], np.float32)


@dataclass(frozen=True)
class Stage:
    """What a request is answered with.

    Raises:
        BadInput: the snapshot lacks what the release is fed.
    """

    model: Model
    items: ItemSnapshot
    assembler: Assembler = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "assembler", Assembler(self.model.inputs, self.items))

    def warm_up(self) -> None:
        """Score an empty slate twice, so that no request pays for the first time."""
        known = self.assembler.known([("user_history", ("",)), ("user_profile", ("",))], [{}, {}])
        some = np.full(500, -1, np.int64)
        for _ in range(2):
            self.model.served.score_feeds(self.assembler.feeds("", some, some, known, None, 0))


@dataclass(frozen=True)
class Scored:
    """A slate as it was scored.

    Args:
        order: (M,) places of the candidates, best first; at random where ``random``.
        probability: (M, H). utility: (M,).
        user: ``known``, ``unknown``, or ``unavailable`` where the online store gave nothing; ``unavailable``: why.
        unknown_items: candidates that the snapshot lacks.
        started: when its turn came, by ``time.perf_counter``.
        seconds: stage → how long it took.
    """

    order: npt.NDArray[np.int64]
    probability: Floats
    utility: Floats
    random: bool
    user: str
    unavailable: str | None
    unknown_items: int
    started: float
    seconds: dict[str, float]


def rank(
    stage: Stage,
    store: OnlineStore,
    user_id: str,
    candidates: list[str],
    *,
    request_id: str,
    surface: str | None,
    now_us: int,
) -> Scored:
    """Order candidates for a user.

    Args:
        now_us: when the slate is served.
    """
    started = time.perf_counter()
    assembler = stage.assembler
    item_ids = hashes_of(candidates)
    at = stage.items.find(item_ids)
    asked = assembler.asked(user_id, at)
    unavailable, rows = None, [Row()] * len(asked)
    try:
        rows = store.read(asked)
    except Unavailable as error:
        unavailable = error.cause
    read = time.perf_counter()
    feeds = assembler.feeds(user_id, item_ids, at, assembler.known(asked, rows), surface, now_us)
    fed = time.perf_counter()
    probability, _ = stage.model.served.score_feeds(feeds)
    utility = probability @ stage.model.worth
    random = bool(lots(SLICE, SEED, [request_id])[0] < stage.model.random_share)  # as the collector decides
    order = np.argsort(lots(_ORDER, 0, candidates, after=request_id) if random else -utility, kind="stable")
    scored = time.perf_counter()
    seconds = {"online_store": read - started, "features": fed - read, "scoring": scored - fed}
    unknown_items = int((at < 0).sum())
    user = "unavailable" if unavailable else "known" if any(rows[:2]) else "unknown"
    return Scored(order, probability, utility, random, user, unavailable, unknown_items, started, seconds)
