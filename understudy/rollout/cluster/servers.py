"""Arms as Deployments, and the route to them.

The Deployment of ``stable`` comes from a manifest; of it the driver owns the release alone. The other arms' Deployments
are copies of its pods with another release and arm, so that arms differ in nothing else; they are the driver's, and go
with ``stable``. The manifest's HTTPRoute leads everybody to ``stable``; the driver's own one names buckets, which takes
precedence (Gateway API: a match of more headers).
"""

import math
from dataclasses import dataclass

from understudy.errors import BadInput
from understudy.experiments import Arms
from understudy.experiments.arms import HOLDOUTS
from understudy.kubernetes_api import Api, Json
from understudy.renames import names
from understudy.rollout.cluster.objects import (
    ARMS,
    BASE_ROUTE,
    CAPACITY,
    ROUTE,
    available,
    deployment,
    is_ours,
    is_ready,
    name_of,
    refuse_foreign,
    release_of,
    released,
    replicas_of,
    route,
    routed_of,
)

__all__ = ["ClusterServers"]

_NEARLY_ALL = 80  # of the buckets


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
        routed = routed_of(found)
        wanted, releases = _wanted(arms, releases, stable, deployed["canary"], routed)
        capacity = _capacity(stable, deployed["canary"], routed)
        buckets = _some({arm: tuple(one for one in its if one in wanted.get(arm, ())) for arm, its in routed.items()})
        if buckets != routed:
            found = self._route(base, found, buckets)
        self._stable(stable, releases["stable"], capacity, _share(buckets) if _share(buckets) > _share(routed) else 0)
        is_settled = release_of(stable) == releases["stable"] and is_ready(stable)
        for arm, its in wanted.items():
            refuse_foreign(deployed[arm], f"Deployment {name_of(arm)}")
            now = self.api.apply("Deployment", name_of(arm), deployment(stable, arm, releases[arm], capacity, len(its)))
            is_settled = is_settled and (is_ready(now) or arm in HOLDOUTS)
            if is_ready(now) or not available(now):
                buckets[arm] = its if is_ready(now) else ()
        self._route(base, found, _some(buckets))
        for arm in ARMS:
            if arm not in wanted and is_ours(deployed[arm]):
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
        if needed > replicas_of(stable):
            self.api.merge("Deployment", name_of("stable"), {"spec": {"replicas": needed}})
        if is_new:
            self.api.apply("Deployment", name_of("stable"), released(stable, release))

    def _route(self, base: Json, found: Json | None, buckets: dict[str, tuple[int, ...]]) -> Json | None:
        """Write the driver's route; one that was changed since it was read is another driver's."""
        if found is not None:
            refuse_foreign(found, f"HTTPRoute {ROUTE}")
        if buckets:
            content = route(base, buckets)
            if found is not None:
                content["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
            return self.api.apply("HTTPRoute", ROUTE, content)
        if found is not None:
            self.api.delete("HTTPRoute", ROUTE)
        return None


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
    annotations = (canary or {}).get("metadata", {}).get("annotations") or {}
    kept = str(next((annotations[name] for name in names("annotation", CAPACITY) if name in annotations), "0"))
    share = _share(routed)
    now = replicas_of(stable) * 100 // share if share >= _NEARLY_ALL else 0
    return max(int(kept) if kept.isdigit() else 0, now, 1)
