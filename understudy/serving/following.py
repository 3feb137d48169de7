"""Which release and which features are current: looked up every few seconds, exchanged whole."""

import time
from pathlib import Path
from typing import Any

from understudy import releases
from understudy.errors import BadInput
from understudy.features.items import FOLDER, ItemSnapshot
from understudy.features.pointer import REDIS_URL, current_features, redis_parts
from understudy.lake import Lake
from understudy.releases.aliases import ALIASES
from understudy.serving.copies import Copies
from understudy.serving.online import Bounded, OnlineStore, RedisStore, SqliteStore
from understudy.serving.ranker import Model, Stage

__all__ = ["Following"]


class Following:
    """The stage of a lake.

    Args:
        ref: an alias, which is followed, or a digest.
        redis_url: where users' features are; None: in the lake's SQLite file, which an object store has not.
        threads: of one request.
        fetched: folder with a copy of the release, which is read instead of the lake's.
        copies: folder for copies of an object store's item snapshots; None: one of its own.

    Raises:
        BadInput: no such release, no features, or features that the release can't be fed with.
    """

    def __init__(
        self,
        lake_uri: str,
        ref: str,
        redis_url: str | None = None,
        threads: int = 1,
        fetched: str | None = None,
        copies: str | None = None,
    ) -> None:
        self.lake, self.ref, self.redis_url, self.threads = Lake.open(lake_uri), ref, redis_url, threads
        self.released = self.lake if fetched is None else _fetched(fetched, ref)
        if redis_url is not None:
            redis_parts(redis_url)
        elif not self.lake.is_local:
            raise BadInput(
                f"lake {lake_uri}: expected a Redis with users' features, which a lake in an object store needs, "
                f"found none; set {REDIS_URL}"
            )
        self.copies = None if self.lake.is_local else Copies(self.lake, copies)
        features = self._features()
        self.stage = self._staged(releases.resolve(self.released, self.ref), features["items"], None)
        self.as_of_us = int(features["as_of_us"])

    def look(self) -> None:
        """Take up what is new: a release, features, or both.

        Raises:
            BadInput: one of them, or both, can't be taken up; of what can't, the stage keeps what it has.
        """
        before, failed = self.stage, []
        digest, name, as_of_us = before.model.digest, before.items.name, self.as_of_us
        try:
            digest = releases.resolve(self.released, self.ref)
        except Exception as error:
            failed.append(error)
        try:
            features = self._features()
            name, as_of_us = features["items"], int(features["as_of_us"])
        except Exception as error:
            failed.append(error)
        # Both together, or the features for the release that stands, or the release alone.
        for way in dict.fromkeys([(digest, name), (before.model.digest, name), (digest, before.items.name)]):
            try:
                self.stage = self._staged(*way, before)
            except Exception as error:
                failed.append(error)
                continue
            self.as_of_us = as_of_us if way[1] == name else self.as_of_us
            break
        if failed:
            raise failed[0]

    def store(self) -> OnlineStore:
        """A reader of what the stage's release wants to know of users, for one thread."""
        timeout_s = self.stage.model.config.online_timeout_ms / 1000
        if self.redis_url is None:
            return Bounded(SqliteStore(Path(self.lake.path("features", "online.db"))), timeout_s)
        return Bounded(RedisStore(self.redis_url, self.stage.model.views), timeout_s)

    def age_s(self) -> float:
        """Seconds since the features were refreshed."""
        return max(0.0, time.time() - self.as_of_us / 1e6)

    def _staged(self, digest: str, name: str, before: Stage | None) -> Stage:
        """The stage of a release and an item snapshot; what stands already is not loaded again."""
        model = before.model if before is not None and before.model.digest == digest else self._model(digest)
        items = before.items if before is not None and before.items.name == name else self._items(name)
        if before is not None and model is before.model and items is before.items:
            return before
        stage = Stage(model, items)
        stage.warm_up()
        return stage

    def _model(self, digest: str) -> Model:
        if digest in releases.quarantined(self.lake):
            raise BadInput(f"release {digest[:12]}: expected a healthy release, found one in quarantine; name another")
        return Model(releases.load(self.released, digest), self.threads)

    def _features(self) -> dict[str, Any]:
        pointer = current_features(self.lake)
        if "items" not in pointer:
            raise BadInput(
                f"lake {self.lake.root}: expected an item snapshot, found features of an older version; "
                "remove features/current.json and refresh the features"
            )
        return pointer

    def _items(self, name: str) -> ItemSnapshot:
        return ItemSnapshot.open(self.copies.of(name) if self.copies else Path(self.lake.path(FOLDER, name)))


def _fetched(folder: str, ref: str) -> Lake:
    """The lake of one release that `understudy releases fetch` made."""
    if ref in ALIASES:
        raise BadInput(f"--release {ref}: expected the digest of what was fetched, found an alias, which moves")
    if not Lake(folder).exists("releases"):
        raise BadInput(f"--fetched {folder}: expected a release, found none; run `understudy releases fetch` first")
    return Lake.open(folder)
