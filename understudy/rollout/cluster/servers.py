"""Arms as Deployments, and the route to them.

The Deployment of ``stable`` comes from a manifest; of it the driver owns the release alone. The other arms' Deployments
are copies of its pods with another release and arm, so that arms differ in nothing else; they are the driver's, and go
with ``stable``. The manifest's HTTPRoute leads everybody to ``stable``; the driver's own one names buckets, which takes
precedence (Gateway API: a match of more headers).
"""

import copy
import math
from dataclasses import dataclass

from understudy.errors import BadInput
from understudy.experiments import Arms
from understudy.experiments.arms import HOLDOUTS
from understudy.experiments.header import BUCKET
from understudy.rollout.cluster.api import Api, Json

__all__ = ["ARM", "ROUTE", "ClusterServers", "deployment", "route", "selector"]

ARM, RELEASE = "understudy.dev/arm", "understudy.dev/release"
BASE_ROUTE, ROUTE = "understudy", "understudy-arms"
ARMS = ("canary", "baseline", *HOLDOUTS)
_OURS = {"app.kubernetes.io/managed-by": "understudy-rollout"}
_CONTAINERS = ("fetch", "serve")  # that are told the release
_RELEASE_ENV, _ARM_ENV = "UNDERSTUDY_RELEASE", "UNDERSTUDY_ARM"
_MOST_MATCHES = 64  # of a rule (Gateway API)
_CAPACITY = "understudy.dev/capacity"
_LEAST_SHARE = 20  # of the buckets, from which all may be estimated
_SHORT = 12  # of a digest, in a label


def name_of(arm: str) -> str:
    """The name of an arm's Deployment and Service."""
    return f"understudy-{arm}"


def selector(arm: str) -> str:
    """The labels of an arm's pods."""
    return f"app.kubernetes.io/name=understudy,app.kubernetes.io/component=serve,{ARM}={arm}"


@dataclass(frozen=True)
class ClusterServers:
    """Deployments and routes of a namespace; a ``Target``."""

    api: Api

    def apply(self, arms: Arms, releases: dict[str, str]) -> bool:
        """The route leaves what is no longer wanted; then come new servers, their route, and the end of those it left.

        A bucket moves to an arm when all its pods are ready. A candidate that became everybody's keeps its buckets
        until ``stable`` has rolled out the same release.
        """
        stable = self.api.get("Deployment", name_of("stable"))
        if stable is None:
            raise BadInput(
                f"Deployment {name_of('stable')} in namespace {self.api.namespace}: expected it, found none; "
                "`kubectl apply -k manifests/overlays/...` makes it"
            )
        deployed = {arm: self.api.get("Deployment", name_of(arm)) for arm in ARMS}
        routed = _routed(self.api.get("HTTPRoute", ROUTE))
        capacity = _capacity(stable, deployed["canary"], routed)
        settled = release_of(stable) == releases["stable"] and is_ready(stable)
        wanted = _wanted(arms, releases, folded=settled)
        if not settled and release_of(deployed["canary"]) == releases["stable"] and routed.get("canary"):
            wanted.setdefault("canary", routed["canary"])
            releases = {**releases, "canary": releases["stable"]}
        buckets = {arm: tuple(one for one in its if one in wanted.get(arm, ())) for arm, its in routed.items()}
        self._route(buckets, routed)
        self._stable(stable, releases["stable"], capacity, 100 - sum(map(len, buckets.values())))
        ready, routed = settled, _some(buckets)
        for arm, its in wanted.items():
            content = deployment(stable, arm, releases[arm], capacity, len(its))
            up = is_ready(self.api.apply("Deployment", name_of(arm), content))
            ready = ready and up
            buckets[arm] = its if up else buckets.get(arm, ())
        self._route(buckets, routed)
        for arm in ARMS:
            if arm not in wanted and _is_ours(deployed[arm]):
                self.api.delete("Deployment", name_of(arm))
        return ready

    def _stable(self, stable: Json, release: str, capacity: int, share: int) -> None:
        """Its release; and pods at once where it is about to bear more, which an autoscaler may change."""
        is_new = release_of(stable) != release
        needed = capacity if is_new else math.ceil(capacity * share / 100)
        if needed > _replicas_of(stable):
            self.api.merge("Deployment", name_of("stable"), {"spec": {"replicas": needed}})
        if is_new:
            self.api.apply("Deployment", name_of("stable"), released(stable, release))

    def _route(self, buckets: dict[str, tuple[int, ...]], routed: dict[str, tuple[int, ...]]) -> None:
        buckets = _some(buckets)
        if buckets == routed:
            return
        if not buckets:
            self.api.delete("HTTPRoute", ROUTE)
            return
        base = self.api.get("HTTPRoute", BASE_ROUTE)
        if base is None:
            raise BadInput(
                f"HTTPRoute {BASE_ROUTE} in namespace {self.api.namespace}: expected the route to stable, found none; "
                "`kubectl apply -k manifests/overlays/...` makes it"
            )
        self.api.apply("HTTPRoute", ROUTE, route(base, buckets))


def deployment(stable: Json, arm: str, release: str, capacity: int, buckets: int) -> Json:
    """An arm's Deployment: the pods of ``stable`` with another release and arm.

    Args:
        capacity: pods that bear all buckets.
    """
    template = copy.deepcopy(stable["spec"]["template"])
    labels = {**template["metadata"]["labels"], ARM: arm, RELEASE: release[:_SHORT]}
    containers = [one for key in ("initContainers", "containers") for one in template["spec"].get(key) or []]
    for one in containers:
        if one["name"] in _CONTAINERS:
            own = [env for env in one.get("env") or [] if env["name"] not in (_RELEASE_ENV, _ARM_ENV)]
            one["env"] = [{"name": _RELEASE_ENV, "value": release}, {"name": _ARM_ENV, "value": arm}, *own]
    for one in template["spec"].get("topologySpreadConstraints") or []:
        if ARM in one.get("labelSelector", {}).get("matchLabels", {}):
            one["labelSelector"]["matchLabels"][ARM] = arm
    selected = {**stable["spec"]["selector"]["matchLabels"], ARM: arm}
    spec = {key: stable["spec"][key] for key in ("strategy", "minReadySeconds") if key in stable["spec"]}
    return {
        "metadata": {
            "labels": {**stable["metadata"].get("labels", {}), ARM: arm, RELEASE: release[:_SHORT], **_OURS},
            "annotations": {_CAPACITY: str(capacity)},
            "ownerReferences": [_owner(stable)],
        },
        "spec": {
            **spec,
            "replicas": max(1, math.ceil(capacity * buckets / 100)),
            "selector": {"matchLabels": selected},
            "template": {
                "metadata": {"labels": labels, "annotations": template["metadata"].get("annotations") or {}},
                "spec": template["spec"],
            },
        },
    }


def released(stable: Json, release: str) -> Json:
    """What the driver owns of ``stable``: the release of its containers, and its label."""
    spec = stable["spec"]["template"]["spec"]
    env = [{"name": _RELEASE_ENV, "value": release}]
    told = {
        key: [{"name": one["name"], "env": env} for one in spec.get(key) or [] if one["name"] in _CONTAINERS]
        for key in ("initContainers", "containers")
    }
    labels = {RELEASE: release[:_SHORT]}
    return {
        "metadata": {"labels": labels},
        "spec": {
            "template": {"metadata": {"labels": labels}, "spec": {key: value for key, value in told.items() if value}}
        },
    }


def route(base: Json, buckets: dict[str, tuple[int, ...]]) -> Json:
    """The driver's HTTPRoute: buckets to arms, where and for whom the base route listens.

    At most 100 matches; rules of 64, as the Gateway API limits them.
    """
    rules = [
        {
            "matches": [
                {"headers": [{"type": "Exact", "name": BUCKET, "value": str(bucket)}]} for bucket in its[first:last]
            ],
            "backendRefs": [{"name": name_of(arm), "port": 80}],
        }
        for arm, its in sorted(buckets.items())
        for first, last in _pieces(len(its))
    ]
    spec = {key: base["spec"][key] for key in ("parentRefs", "hostnames") if base["spec"].get(key)}
    return {
        "metadata": {"labels": {"app.kubernetes.io/name": "understudy", **_OURS}, "ownerReferences": [_owner(base)]},
        "spec": {**spec, "rules": rules},
    }


def release_of(found: Json | None) -> str | None:
    """The digest that a Deployment's pods serve."""
    for one in ((found or {}).get("spec", {}).get("template", {}).get("spec", {})).get("containers") or []:
        for env in one.get("env") or []:
            if one["name"] in _CONTAINERS and env["name"] == _RELEASE_ENV:
                return str(env.get("value"))
    return None


def is_ready(found: Json) -> bool:
    """Whether a Deployment has rolled out: every pod is of its newest template, and ready."""
    status, wanted = found.get("status") or {}, _replicas_of(found)
    return bool(
        status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
        and status.get("updatedReplicas", 0) >= wanted
        and status.get("availableReplicas", 0) >= wanted
        and status.get("replicas", 0) <= status.get("updatedReplicas", 0)
    )


def _routed(found: Json | None) -> dict[str, tuple[int, ...]]:
    """Arm → buckets, as the driver's route has them now."""
    arms: dict[str, list[int]] = {}
    for rule in ((found or {}).get("spec") or {}).get("rules") or []:
        for backend in rule.get("backendRefs") or []:
            arm = str(backend["name"]).removeprefix(name_of(""))
            values = [head["value"] for match in rule.get("matches") or [] for head in match.get("headers") or []]
            arms.setdefault(arm, []).extend(int(value) for value in values if str(value).isdigit())
    return {arm: tuple(sorted(its)) for arm, its in arms.items()}


def _some(buckets: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {arm: its for arm, its in buckets.items() if its}


def _wanted(arms: Arms, releases: dict[str, str], folded: bool) -> dict[str, tuple[int, ...]]:
    """Arm → buckets, of arms that need pods of their own.

    Args:
        folded: ``stable`` serves its release, and bears whoever is to see the same; but not the baseline, whose pods
            must be as fresh as the canary's.
    """
    wanted = {arm: arms.buckets[arm] for arm in ARMS if arms.size(arm)}
    if not folded:
        return wanted
    return {arm: its for arm, its in wanted.items() if arm == "baseline" or releases[arm] != releases["stable"]}


def _capacity(stable: Json, canary: Json | None, routed: dict[str, tuple[int, ...]]) -> int:
    """Pods that bear all buckets, from those of ``stable``; while a rollout is on it only grows."""
    kept = int(((canary or {}).get("metadata", {}).get("annotations") or {}).get(_CAPACITY, 0))
    share = 100 - sum(map(len, routed.values()))
    now = math.ceil(_replicas_of(stable) * 100 / share) if share >= _LEAST_SHARE else 0
    return max(kept, now, 1)


def _replicas_of(found: Json) -> int:
    replicas = found["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def _is_ours(found: Json | None) -> bool:
    labels = (found or {}).get("metadata", {}).get("labels") or {}
    return all(labels.get(key) == value for key, value in _OURS.items())


def _owner(found: Json) -> Json:
    kept = {key: found[key] for key in ("apiVersion", "kind")}
    return {**kept, "name": found["metadata"]["name"], "uid": found["metadata"]["uid"]}


def _pieces(count: int) -> list[tuple[int, int]]:
    return [(first, first + _MOST_MATCHES) for first in range(0, count, _MOST_MATCHES)]
