"""What pods show: their own counters, or Prometheus', and how often they were started again."""

import sys
from dataclasses import dataclass, field, replace

from understudy.errors import Later
from understudy.kubernetes_api import Api, Json
from understudy.rollout.cluster.objects import selector
from understudy.rollout.engagement import Look
from understudy.rollout.metrics import Tally, read
from understudy.rollout.prometheus import Prometheus
from understudy.rollout.state import Seen, State

__all__ = ["ClusterSource"]


@dataclass
class ClusterSource:
    """A ``Source`` of a namespace.

    Args:
        engagement: arm → the arm with users, outcomes and calibration filled in.
        prometheus: None: each pod is asked for its counters.
    """

    api: Api
    engagement: Look
    prometheus: Prometheus | None = None
    tally: Tally = field(default_factory=Tally)
    warned: str = ""

    def see(self, state: State, now_s: float) -> Seen:
        """Since the last look; what can't be reached says nothing."""
        pods = {arm: self._pods(arm) for arm in ("canary", "baseline")}
        if self.prometheus is not None:
            arms = self.prometheus.arms(state, now_s)
            self._warn("; ".join(f"{name}: {why}" for name, why in self.prometheus.unanswered.items()))
        else:
            counted = {arm: {uid: read(url) for uid, url in _urls(its)} for arm, its in pods.items()}
            arms = self.tally.arms(state, counted)
        for arm, its in pods.items():
            if its:
                arms[arm] = replace(arms[arm], restarts=sum(map(_restarts, its)))
        found = self.engagement(state, now_s, arms)
        return Seen(now_s, found["canary"], found["baseline"])

    def _warn(self, text: str) -> None:
        """Say what Prometheus did not answer, when that changes."""
        if text and text != self.warned:
            print(f"Prometheus: no answer: {text}", file=sys.stderr, flush=True)
        self.warned = text

    def _pods(self, arm: str) -> list[Json]:
        try:
            return self.api.list("Pod", selector(arm))
        except Later:
            return []


def _urls(pods: list[Json]) -> list[tuple[str, str]]:
    """A pod's name for good, and where its server listens."""
    found = []
    for pod in pods:
        address, ports = pod.get("status", {}).get("podIP"), list(_ports(pod))
        if address and ports and pod["status"].get("phase") == "Running":
            host = f"[{address}]" if ":" in address else address
            found.append((pod["metadata"]["uid"], f"http://{host}:{ports[0]}"))
    return found


def _ports(pod: Json) -> list[int]:
    containers = pod["spec"].get("containers") or []
    return [int(port["containerPort"]) for one in containers for port in one.get("ports") or [] if _is_http(port)]


def _is_http(port: Json) -> bool:
    return bool(port.get("name") == "http")


def _restarts(pod: Json) -> int:
    status = pod.get("status", {})
    both = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    return sum(int(one.get("restartCount", 0)) for one in both)
