"""What an arm's servers did, from a Prometheus that scrapes them.

Each query is asked once for both arms, and all of them at one moment. A monitor's ``podTargetLabels`` gives the pods'
label ``understudy.dev/arm`` to their series, as ``understudy_dev_arm``. A counter begins at its first scrape: what came
before is not counted, in either arm.
"""

import json
import math
import re
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field

from understudy.errors import BadInput
from understudy.http_calls import Unanswered, call
from understudy.rollout.state import ArmSeen, State

__all__ = ["Prometheus"]

_ARM = "understudy_dev_arm"
_ARMS = ("canary", "baseline")
_LEAST_S = 120  # a growth needs several scrapes, and most clusters scrape every 15 or 30 s
_MOST_S = 30 * 86_400  # of what Prometheus is asked to go through
_QUERY_S, _LOOK_S = 5.0, 15.0  # until an answer, and until all answers of a look
_MOST_BYTES = 1 << 20
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

Vector = list[tuple[dict[str, str], float]]


@dataclass
class Prometheus:
    """The HTTP API at ``url``, such as ``http://prometheus.monitoring.svc:9090``.

    Args:
        url: of http or https; a path before ``/api/v1/query`` is kept.
        namespace: of the pods.
        token: is sent as ``Authorization: Bearer``; never logged.
        tick_s: how far back errors, latency and memory look. Less than 2 minutes counts as 2 minutes: a growth needs
            several scrapes. Ticks that are shorter overlap, and one bad moment is seen in several of them.
        unanswered: why queries of the last look had no answer, by field; empty: all had one.
    """

    url: str
    namespace: str
    token: str | None = field(default=None, repr=False)
    tick_s: float = _LEAST_S
    unanswered: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Raises BadInput where Prometheus could never be asked."""
        try:
            parts = urllib.parse.urlsplit(self.url)
            usable = re.fullmatch(r"https?://[!-~]+", self.url) and parts.hostname and (parts.port or 1)
        except ValueError:
            usable = False
        if not usable or parts.query or parts.fragment:
            raise BadInput("prometheus: expected a URL such as http://prometheus.monitoring.svc:9090, found another")
        if "@" in parts.netloc:
            raise BadInput("prometheus: expected a URL without a password, found one with it; use a token")
        if not _NAMESPACE.fullmatch(self.namespace):
            raise BadInput(f"namespace: expected a name as Kubernetes has it, found {self.namespace!r}")
        if self.token is not None and not re.fullmatch(r"[!-~]+", self.token):
            raise BadInput("prometheus token: expected one line of printable ASCII, found something else")

    def arms(self, state: State, now_s: float) -> dict[str, ArmSeen]:
        """What is known of ``canary`` and ``baseline``; what was not answered, or has no series, stays None.

        Args:
            now_s: seconds since 1970; what came before the rollout, or the step, is left out.
        """
        end = time.monotonic() + _LOOK_S
        self.unanswered = {}
        found = {name: self._ask(name, text, now_s, end) for name, text in self._queries(state, now_s).items()}
        return {arm: _seen({name: list(_of(arm, vector)) for name, vector in found.items()}) for arm in _ARMS}

    def _queries(self, state: State, now_s: float) -> dict[str, str]:
        of = f'namespace="{self.namespace}", {_ARM}=~"{"|".join(_ARMS)}"'
        rollout = _whole(now_s - state.started_s)
        step = _whole(now_s - state.step_s)
        tick = min(_whole(max(self.tick_s, _LEAST_S)), rollout)

        def grown(name: str, seconds: int, more: str = "", by: str = _ARM) -> str:
            return f"sum by ({by}) (increase(understudy_serving_{name}{{{of}{more}}}[{seconds}s]))"

        # Restarts have no arm; the pods' own series say which pod is of which, those of pods that are gone included.
        restarts = f'kube_pod_container_status_restarts_total{{namespace="{self.namespace}"}}'
        resident = f"understudy_serving_resident_bytes{{{of}}}"
        return {
            "requests": grown("requests_total", tick),
            "errors": grown("requests_total", tick, ', status=~"5.."'),
            "p99": f"histogram_quantile(0.99, {grown('request_seconds_bucket', tick, by=f'{_ARM}, le')})",
            "memory": f"max by ({_ARM}) (max_over_time({resident}[{tick}s]))",
            "restarts": f"sum by ({_ARM}) (max by (pod, container) (max_over_time({restarts}[{rollout}s])) "
            f"* on (pod) group_left ({_ARM}) group by (pod, {_ARM}) (last_over_time({resident}[{rollout}s])))",
            "scores": f"{grown('predicted_sum_total', step, by=f'{_ARM}, head')} "
            f"/ on ({_ARM}) group_left () {grown('candidates_total', step)}",
            "scored": grown("users_total", step),
        }

    def _ask(self, name: str, query: str, now_s: float, end: float) -> Vector:
        """The answer's vector; empty where there is none."""
        limit_s = min(_QUERY_S, end - time.monotonic())
        asked = urllib.parse.urlencode({"query": query, "time": f"{now_s:.3f}", "timeout": f"{_QUERY_S:g}s"})
        headers = {"Accept": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            if limit_s <= 0:
                raise Unanswered("no answer in time")
            url = f"{self.url.rstrip('/')}/api/v1/query?{asked}"
            return _vector(call(url, headers=headers, limit_s=limit_s, most_bytes=_MOST_BYTES))
        except Unanswered as error:
            self.unanswered[name] = str(error)
            return []


def _whole(seconds: float) -> int:
    """Seconds of a range: whole, so that it holds nothing older."""
    return int(min(max(1.0, seconds), _MOST_S))


def _vector(body: bytes) -> Vector:
    """Labels and finite values of an instant vector.

    Raises:
        Unanswered: it is none.
    """
    try:
        answer = json.loads(body)
        if answer["status"] != "success" or answer["data"]["resultType"] != "vector":
            raise Unanswered("no vector")
        samples = [(dict[str, str](one["metric"]), float(one["value"][1])) for one in answer["data"]["result"]]
    except (ValueError, TypeError, LookupError, RecursionError):
        raise Unanswered("no answer of Prometheus' form") from None
    return [(labels, value) for labels, value in samples if math.isfinite(value)]


def _of(arm: str, vector: Vector) -> Iterator[tuple[str, float]]:
    """Head, where there is one, and value."""
    return ((labels.get("head", ""), value) for labels, value in vector if labels.get(_ARM) == arm)


def _seen(found: dict[str, list[tuple[str, float]]]) -> ArmSeen:
    one = {name: values[0][1] for name, values in found.items() if values}
    whole = {name: round(value) for name, value in one.items()}
    return ArmSeen(
        requests=whole.get("requests"),
        errors=whole.get("errors"),
        p99_ms=one["p99"] * 1000 if "p99" in one else None,
        memory_mb=one["memory"] / 2**20 if "memory" in one else None,
        restarts=whole.get("restarts"),
        scores=dict(found["scores"]),
        scored=whole.get("scored", 0),
    )
