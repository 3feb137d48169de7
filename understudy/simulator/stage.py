"""A simulated feed that is ranked over HTTP while a rollout is on: people meet the router, the driver meets the judge.

Time is the feed's: before each hour the driver has its tick, at midnight the day's log is in the lake, and servers are
told with each request what time it is.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np

from understudy.errors import UnderstudyError
from understudy.experiments.header import BUCKET, NOW
from understudy.hashing import bucket
from understudy.rollout.driver import Driver
from understudy.rollout.state import State, arms_of
from understudy.simulator.days import Days
from understudy.simulator.feed import start_us
from understudy.simulator.rankers import WORTH
from understudy.simulator.traffic import Requests, Scores
from understudy.simulator.world import ACTIONS, SURFACES

__all__ = ["Stage"]

_SIDE_BY_SIDE = 4
_DAY_S = 86_400
_TRIES = 20


class Stage:
    """Ranks requests by asking the router, hour by hour; a ``Ranker``.

    Args:
        token: of the servers.
    """

    def __init__(self, days: Days, driver: Driver, url: str, token: str) -> None:
        self.days, self.driver, self.token = days, driver, token
        self.client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        self.pool = ThreadPoolExecutor(_SIDE_BY_SIDE)
        self.state: State | None = None
        self.now_s = self.midnight_s()

    def midnight_s(self) -> float:
        """When the feed's next day begins, seconds since 1970."""
        return start_us(self.days.world) / 1e6 + (self.days.state.day + 1) * _DAY_S

    def play(self, rollout_id: str, most_days: int) -> State:
        """Let days pass until the rollout has ended; the rest of its last day passes too.

        Raises:
            UnderstudyError: it has not ended.
        """
        self.rollout_id = rollout_id
        _, self.state = self.driver.record.load(rollout_id)
        for _ in range(most_days):
            self.days.next(self)
            if self.state.ended:
                return self.state
        raise UnderstudyError(
            f"rollout {rollout_id}: expected an end within {most_days} days, found {self.state.phase}"
        )

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.pool.shutdown()

    def __call__(self, requests: Requests) -> Scores:
        self.now_s = start_us(self.days.world) / 1e6 + float(requests.time_days[0]) * _DAY_S
        self.state, _ = self.driver.tick(self.rollout_id)
        assert self.days.config.logging is not None, "a simulated feed has it"
        buckets = bucket(self.days.config.logging.salt, [f"u{user}" for user in requests.users])
        answers = list(self.pool.map(self._asked, *_parts(requests, buckets)))
        probabilities = np.stack([one for one, _ in answers])
        arms = arms_of(self.state, self.driver.config)
        return Scores(
            probabilities @ WORTH,
            probabilities,
            np.array([arms.of(int(one)) for one in buckets], object),
            np.array([release for _, release in answers], object),
        )

    def _asked(
        self, request_id: str, user: int, surface: int, time_days: float, items: Any, its: int
    ) -> tuple[Any, str]:
        """Probabilities (N, A) in the order of the candidates, and who predicted them."""
        candidates = [f"i{item}" for item in items]
        body = {"user_id": f"u{user}", "candidates": candidates, "request_id": request_id}
        now_s = start_us(self.days.world) / 1e6 + time_days * _DAY_S
        headers = {BUCKET: str(its), NOW: f"{now_s:.6f}"}
        for _ in range(_TRIES):
            answer = self.client.post(
                "/v1/rank", json={**body, "context": {"surface": SURFACES[surface]}}, headers=headers
            )
            if answer.status_code != 503:
                break
        answer.raise_for_status()
        found = answer.json()
        place = {item: at for at, item in enumerate(found["items"])}
        at = [place[item] for item in candidates]
        whole = np.zeros((len(candidates), len(ACTIONS)))
        for head, values in found["probabilities"].items():
            whole[:, ACTIONS.index(head)] = np.asarray(values)[at]
        return whole, str(found["release"])


def _parts(requests: Requests, buckets: Any) -> tuple[Any, ...]:
    return (
        requests.ids.to_pylist(),
        requests.users.tolist(),
        requests.surfaces.tolist(),
        requests.time_days.tolist(),
        requests.candidates.tolist(),
        buckets.tolist(),
    )
