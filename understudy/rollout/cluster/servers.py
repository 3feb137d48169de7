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
_NEARLY_ALL = 80  # of the buckets
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

        A bucket moves to an arm when all its pods are ready, and leaves it when none is. A candidate that became
        everybody's keeps its buckets until ``stable`` has rolled out the same release.

        Raises:
            BadInput: an object is missing, is another's, or has not the shape that the manifests give it.
            Later: the cluster does not answer, or another driver was first.
        """
        stable, base = self._found("Deployment", name_of("stable")), self._found("HTTPRoute", BASE_ROUTE)
        deployed = {arm: self.api.get("Deployment", name_of(arm)) for arm in ARMS}
        found = self.api.get("HTTPRoute", ROUTE)
        routed = _routed(found)
        wanted, releases = _wanted(arms, releases, stable, deployed["canary"], routed)
        capacity = _capacity(stable, deployed["canary"], routed)
        buckets = _some({arm: tuple(one for one in its if one in wanted.get(arm, ())) for arm, its in routed.items()})
        if buckets != routed:
            found = self._route(base, found, buckets)
        self._stable(stable, releases["stable"], capacity, _share(buckets) if _share(buckets) > _share(routed) else 0)
        is_settled = release_of(stable) == releases["stable"] and is_ready(stable)
        for arm, its in wanted.items():
            _refuse_foreign(deployed[arm], f"Deployment {name_of(arm)}")
            now = self.api.apply("Deployment", name_of(arm), deployment(stable, arm, releases[arm], capacity, len(its)))
            is_settled = is_settled and (is_ready(now) or arm in HOLDOUTS)
            if is_ready(now) or not _available(now):
                buckets[arm] = its if is_ready(now) else ()
        self._route(base, found, _some(buckets))
        for arm in ARMS:
            if arm not in wanted and _is_ours(deployed[arm]):
                self.api.delete("Deployment", name_of(arm))
        return is_settled

    def _found(self, kind: str, name: str) -> Json:
        found = self.api.get(kind, name)
        if found is None:
            raise BadInput(
                f"{kind} {name} in namespace {self.api.namespace}: expected it, found none; "
                "`kubectl apply -k manifests/overlays/...` makes it"
            )
        return found

    def _stable(self, stable: Json, release: str, capacity: int, share: int) -> None:
        """Its release; and pods at once where it is about to bear more, which an autoscaler may change.

        Args:
            share: buckets that it is about to bear; 0: no more than before.
        """
        is_new = release_of(stable) != release
        needed = capacity if is_new else math.ceil(capacity * share / 100)
        if needed > _replicas_of(stable):
            self.api.merge("Deployment", name_of("stable"), {"spec": {"replicas": needed}})
        if is_new:
            self.api.apply("Deployment", name_of("stable"), released(stable, release))

    def _route(self, base: Json, found: Json | None, buckets: dict[str, tuple[int, ...]]) -> Json | None:
        """Write the driver's route; one that was changed since it was read is another driver's."""
        if found is not None:
            _refuse_foreign(found, f"HTTPRoute {ROUTE}")
        if buckets:
            content = route(base, buckets)
            if found is not None:
                content["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
            return self.api.apply("HTTPRoute", ROUTE, content)
        if found is not None:
            self.api.delete("HTTPRoute", ROUTE)
        return None


def deployment(stable: Json, arm: str, release: str, capacity: int, buckets: int) -> Json:
    """An arm's Deployment: the pods of ``stable`` with another release and arm.

    Args:
        capacity: pods that bear all buckets.
    """
    template = copy.deepcopy(stable["spec"]["template"])
    labels = {**template["metadata"]["labels"], ARM: arm, RELEASE: release[:_SHORT]}
    for one in _told_containers(template["spec"]):
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
    env, names = [{"name": _RELEASE_ENV, "value": release}], {one["name"] for one in _told_containers(spec)}
    told = {
        key: [{"name": one["name"], "env": env} for one in spec.get(key) or [] if one["name"] in names]
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
    """The driver's HTTPRoute: the base route's rule, for buckets, to arms.

    At most 100 matches; rules of 64, as the Gateway API limits them.

    Raises:
        BadInput: the base route has several rules or matches, whose number would pass the limits.
    """
    given = base["spec"].get("rules") or [{}]
    if len(given) != 1 or len(given[0].get("matches") or []) > 1 or len(given[0].get("backendRefs") or []) != 1:
        raise BadInput(
            f"HTTPRoute {BASE_ROUTE}: expected one rule with one match and one backend, of which the arms' rules are "
            "made, found another shape; correct it"
        )
    match, backend = (given[0].get("matches") or [{}])[0], given[0]["backendRefs"][0]
    kept = {key: given[0][key] for key in ("filters", "timeouts", "retry", "sessionPersistence") if key in given[0]}
    rules = [
        {
            "matches": [
                {**match, "headers": [*match.get("headers", []), {"type": "Exact", "name": BUCKET, "value": str(one)}]}
                for one in its[first:last]
            ],
            "backendRefs": [{**backend, "name": name_of(arm)}],
            **kept,
        }
        for arm, its in sorted(buckets.items())
        for first, last in _pieces(len(its))
    ]
    spec = {key: base["spec"][key] for key in ("parentRefs", "hostnames") if base["spec"].get(key)}
    return {
        "metadata": {"labels": {"app.kubernetes.io/name": "understudy", **_OURS}, "ownerReferences": [_owner(base)]},
        "spec": {**spec, "rules": rules},
    }


def _told_containers(spec: Json) -> list[Json]:
    """The containers that are told the release."""
    found = [one for key in ("initContainers", "containers") for one in spec.get(key) or []]
    told = [one for one in found if one["name"] in _CONTAINERS]
    if "serve" not in {one["name"] for one in told}:
        names = ", ".join(one["name"] for one in found)
        raise BadInput(f"Deployment {name_of('stable')}: expected a container serve, found {names}; correct its name")
    return told


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


def _share(routed: dict[str, tuple[int, ...]]) -> int:
    """Buckets that ``stable`` bears."""
    return 100 - sum(map(len, routed.values()))


def _wanted(
    arms: Arms, releases: dict[str, str], stable: Json, canary: Json | None, routed: dict[str, tuple[int, ...]]
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Arm → buckets, of arms that need pods of their own; and their releases.

    Who is to see what ``stable`` serves needs none; but the baseline does, whose pods must be as fresh as the canary's.
    While ``stable`` takes over the canary's release, the canary keeps what it has.
    """
    rolled = release_of(stable) == releases["stable"]
    takes_over = release_of(canary) == releases["stable"] and "canary" in routed
    wanted = {arm: arms.buckets[arm] for arm in ARMS if arms.size(arm)}
    if releases.get("canary", releases["stable"]) == releases["stable"]:
        wanted.pop("canary", None)
    if rolled and (is_ready(stable) or not takes_over):
        return {a: its for a, its in wanted.items() if a == "baseline" or releases[a] != releases["stable"]}, releases
    if takes_over:
        wanted["canary"], releases = routed["canary"], {**releases, "canary": releases["stable"]}
    return wanted, releases


def _capacity(stable: Json, canary: Json | None, routed: dict[str, tuple[int, ...]]) -> int:
    """Pods that bear all buckets: what ``stable`` has had while it bore nearly all of them."""
    kept = str(((canary or {}).get("metadata", {}).get("annotations") or {}).get(_CAPACITY, "0"))
    share = _share(routed)
    now = _replicas_of(stable) * 100 // share if share >= _NEARLY_ALL else 0
    return max(int(kept) if kept.isdigit() else 0, now, 1)


def _refuse_foreign(found: Json | None, what: str) -> None:
    if found is not None and not _is_ours(found):
        raise BadInput(f"{what}: expected one that the rollout driver made, found another's; rename or delete that")


def _available(found: Json) -> int:
    return int((found.get("status") or {}).get("availableReplicas") or 0)


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
