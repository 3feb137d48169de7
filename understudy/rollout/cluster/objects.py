"""Objects of a rollout as Kubernetes has them: what is made of an arm and of the route, and what is read from them."""

import copy
import math

from understudy.errors import BadInput
from understudy.experiments.arms import HOLDOUTS
from understudy.experiments.header import BUCKET
from understudy.kubernetes_api import Json

__all__ = [
    "ARMS",
    "BASE_ROUTE",
    "CAPACITY",
    "ROUTE",
    "available",
    "deployment",
    "is_ours",
    "is_ready",
    "name_of",
    "refuse_foreign",
    "release_of",
    "released",
    "replicas_of",
    "route",
    "routed_of",
    "selector",
]

ARM, RELEASE = "understudy.dev/arm", "understudy.dev/release"
BASE_ROUTE, ROUTE = "understudy", "understudy-arms"
ARMS = ("canary", "baseline", *HOLDOUTS)
_OURS = {"app.kubernetes.io/managed-by": "understudy-rollout"}
_CONTAINERS = ("fetch", "serve")  # that are told the release
_RELEASE_ENV, _ARM_ENV = "UNDERSTUDY_RELEASE", "UNDERSTUDY_ARM"
_MOST_MATCHES = 64  # of a rule (Gateway API)
CAPACITY = "understudy.dev/capacity"
_SHORT = 12  # of a digest, in a label


def name_of(arm: str) -> str:
    """The name of an arm's Deployment and Service."""
    return f"understudy-{arm}"


def selector(arm: str) -> str:
    """The labels of an arm's pods."""
    return f"app.kubernetes.io/name=understudy,app.kubernetes.io/component=serve,{ARM}={arm}"


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
            "annotations": {CAPACITY: str(capacity)},
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
    status, wanted = found.get("status") or {}, replicas_of(found)
    return bool(
        status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
        and status.get("updatedReplicas", 0) >= wanted
        and status.get("availableReplicas", 0) >= wanted
        and status.get("replicas", 0) <= status.get("updatedReplicas", 0)
    )


def routed_of(found: Json | None) -> dict[str, tuple[int, ...]]:
    """Arm → buckets, as the driver's route has them now."""
    arms: dict[str, list[int]] = {}
    for rule in ((found or {}).get("spec") or {}).get("rules") or []:
        for backend in rule.get("backendRefs") or []:
            arm = str(backend["name"]).removeprefix(name_of(""))
            values = [head["value"] for match in rule.get("matches") or [] for head in match.get("headers") or []]
            arms.setdefault(arm, []).extend(int(value) for value in values if str(value).isdigit())
    return {arm: tuple(sorted(its)) for arm, its in arms.items()}


def refuse_foreign(found: Json | None, what: str) -> None:
    if found is not None and not is_ours(found):
        raise BadInput(f"{what}: expected one that the rollout driver made, found another's; rename or delete that")


def available(found: Json) -> int:
    return int((found.get("status") or {}).get("availableReplicas") or 0)


def replicas_of(found: Json) -> int:
    replicas = found["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def is_ours(found: Json | None) -> bool:
    labels = (found or {}).get("metadata", {}).get("labels") or {}
    return all(labels.get(key) == value for key, value in _OURS.items())


def _owner(found: Json) -> Json:
    kept = {key: found[key] for key in ("apiVersion", "kind")}
    return {**kept, "name": found["metadata"]["name"], "uid": found["metadata"]["uid"]}


def _pieces(count: int) -> list[tuple[int, int]]:
    return [(first, first + _MOST_MATCHES) for first in range(0, count, _MOST_MATCHES)]
