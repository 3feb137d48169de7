"""kmock's Kubernetes API, with what the API documents beyond it.

Server-side apply with field managers and keyed lists, creation by apply, resource versions and conflicts, generations,
required fields; a controller that rolls Deployments out; and connections that are cut.
"""

import asyncio
import copy
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp.web
from kmock import KubernetesEmulator, Server
from kubernetes_rules import train_job_faults

__all__ = ["DENIED", "NAMESPACE", "RBAC", "TRAINER_DENIES", "Cluster", "running"]

NAMESPACE = "recs"
# How a server says no, as Kubernetes 1.34 words it.
RBAC = (
    403,
    'trainjobs.trainer.kubeflow.org is forbidden: User "system:serviceaccount:recs:runs" cannot create resource '
    '"trainjobs" in API group "trainer.kubeflow.org" in the namespace "recs"',
)
DENIED = (403, 'admission webhook "policy.example.com" denied the request: no changes on Fridays')
TRAINER_DENIES = 'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request'
_KEYS = {"containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "ports": "containerPort"}
_KEYS |= {"volumeMounts": "mountPath"}
Json = dict[str, Any]


class Cluster(KubernetesEmulator):
    """The emulated API server; ``calls`` says what was asked of it.

    ``fault`` is asked before each request, with its number: None, an HTTP status, ``before`` or ``after``: the
    connection is cut before or after the server has acted.
    """

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.versions = 0
        self.owned: dict[tuple[Any, str], Json] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.asked: set[tuple[str, str]] = set()  # verb and resource, as a Role grants them
        self.stuck: set[str] = set()  # Deployments whose pods do not become ready
        self.refused: dict[str, tuple[int, str]] = {}  # kind → how its changes are refused: status, and in which words
        self.unread: tuple[int, str] | None = None  # how reading a pod's log is refused
        self.missing: set[str] = set()  # kinds that nobody has installed
        self.logs: dict[str, list[tuple[str, str]]] = {}  # pod → time and text of its lines
        self.heard: dict[str, int] = {}  # pod → how many of them there were when its log was last read
        self.fault: Callable[[int], int | str | None] = lambda _: None

    def put(self, plural: str, value: Json) -> None:
        """An object that somebody else has made."""
        self._store(self._key(plural, value["metadata"]["name"]), copy.deepcopy(value))

    def drop(self, plural: str, name: str) -> None:
        """An object that somebody else has removed."""
        self.objects[self._key(plural, name)].delete()

    def find(self, plural: str, name: str) -> Json | None:
        key = self._key(plural, name)
        if key not in self.objects or self.objects[key].deleted:
            return None
        return copy.deepcopy(self.objects[key].raw)

    def names(self, plural: str) -> list[str]:
        return sorted(name for res, _, name in self.objects if res.plural == plural and self.find(plural, name))

    def _key(self, plural: str, name: str) -> Any:
        return (self.resource(f"{_type_of(plural)[0]}/{plural}"), NAMESPACE, name)

    async def _handle(self, request: Any) -> aiohttp.web.StreamResponse:
        number = len(self.calls)
        plural = request.resource.plural if request.resource else ""
        self.calls.append((str(request.method.value), plural, request.name or ""))
        self.asked.add((_verb(request), plural + (f"/{request.subresource}" if request.subresource else "")))
        fault = self.fault(number)
        if fault == "before":
            return self._cut(request)
        if plural in self.missing:
            return aiohttp.web.Response(status=404, text="404 page not found\n", content_type="text/plain")
        if isinstance(fault, int):
            return _status(fault, "trouble")
        if request.headers.get("Upgrade"):
            return _status(503, "no WebSockets here; a client that watches goes on over HTTP")
        if request.params.get("watch") == "true":
            return await super()._handle(request)
        if request.subresource == "log":
            return self._log(request)
        answer = self._write(request) if request.method.value in ("PUT", "PATCH", "POST", "DELETE") else None
        if answer is None:
            if request.name and self.find(plural, request.name) is None:
                return _status(404, f'{plural} "{request.name}" not found', {"name": request.name})
            answer = _selected(await super()._handle(request), request)
        return self._cut(request) if fault == "after" else answer

    def _log(self, request: Any) -> aiohttp.web.StreamResponse:
        """The lines of a pod since a second, each after its time; refused before its container has begun."""
        if self.unread is not None:
            return _status(*self.unread)
        if request.name not in self.logs:
            return _status(400, f'container "main" in pod "{request.name}" is waiting to start')
        since = request.params.get("sinceTime", "")
        self.heard[request.name] = len(self.logs[request.name])
        lines = [f"{at} {text}\n" for at, text in self.logs[request.name] if at >= since[:19]]
        return aiohttp.web.Response(text="".join(lines), content_type="text/plain")

    def _cut(self, request: Any) -> aiohttp.web.StreamResponse:
        request._raw_request.transport.abort()
        return aiohttp.web.Response()

    def _write(self, request: Any) -> aiohttp.web.StreamResponse | None:
        plural, method = request.resource.plural, request.method.value
        if method == "DELETE" and not request.name:
            return self._drop_all(request)
        name = request.name or request.data["metadata"]["name"]
        key = self._key(plural, name)
        old = self.find(plural, name)
        body = copy.deepcopy(request.data) or {}
        kind = request.headers.get("Content-Type", "")
        if plural in self.refused:
            return _status(*self.refused[plural])
        if method == "POST":
            if old is not None:
                return _status(409, f'{plural} "{name}" already exists')
            new: Json = body
        elif method == "PATCH" and "apply-patch" in kind:
            assert request.params.get("fieldManager"), "the API wants a field manager"
            assert (body["apiVersion"], body["kind"], body["metadata"]["name"]) == (*_type_of(plural), name)
            manager = request.params["fieldManager"]
            given = body["metadata"].pop("resourceVersion", None)
            if given and given != (old or {}).get("metadata", {}).get("resourceVersion"):
                return _status(409, f'Operation cannot be fulfilled on {plural} "{name}": the object has been modified')
            new = _merged(old or {}, _without(self.owned.get((key, manager), {}), body), body)
            self.owned[(key, manager)] = body
        elif old is None:
            return _status(404, f'{plural} "{name}" not found', {"name": name})
        elif method == "DELETE":
            self.objects[key].delete()
            for owner, manager in [one for one in self.owned if one[0] == key]:
                del self.owned[(owner, manager)]
            return aiohttp.web.json_response(old)
        elif method == "PUT":
            given = body["metadata"].get("resourceVersion")
            if given and given != old["metadata"]["resourceVersion"]:
                return _status(409, f'Operation cannot be fulfilled on {plural} "{name}": the object has been modified')
            new = body
        else:
            new = _patched(old, body)
        if refused := _invalid(plural, new):
            return _status(422, f'{plural} "{name}" is invalid: {refused}')
        if denied := train_job_faults(new) if plural == "trainjobs" else []:
            return _status(403, f"{TRAINER_DENIES}: {denied[0]}")
        return aiohttp.web.json_response(self._store(key, new, old))

    def _drop_all(self, request: Any) -> aiohttp.web.StreamResponse:
        """Delete a collection."""
        plural = request.resource.plural
        for name in self.names(plural):
            found = self.find(plural, name)
            if found is not None and _is_selected(found, request):
                self.drop(plural, name)
        return aiohttp.web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _store(self, key: Any, new: Json, old: Json | None = None) -> Json:
        metadata = new.setdefault("metadata", {})
        before = (old or {}).get("metadata", {})
        same = old is not None and {**new, "metadata": {**metadata, "resourceVersion": None}} == {
            **old,
            "metadata": {**before, "resourceVersion": None},
        }
        if not same:
            self.versions += 1
            metadata["resourceVersion"] = str(self.versions)
            metadata["uid"] = before.get("uid") or str(uuid.uuid4())
            metadata["namespace"] = NAMESPACE
            metadata["generation"] = before.get("generation", 0) + (old is None or old.get("spec") != new.get("spec"))
        if key[0].plural == "pods":
            new.setdefault("status", {"phase": "Pending"})
        if key[0].plural in ("deployments",):
            new["spec"].setdefault("replicas", 1)
            self._roll_out(key[2], new)
        if key in self.objects and not self.objects[key].deleted:
            self.objects[key].clear()
            self.objects[key].update(new)
        elif key in self.objects:
            self.objects[key].create(new)
        else:
            self.objects[key] = new
        return new

    def _roll_out(self, name: str, deployment: Json) -> None:
        if name not in self.stuck:
            count = deployment["spec"]["replicas"]
            status = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas", "readyReplicas"), count)
            deployment["status"] = {"observedGeneration": deployment["metadata"]["generation"], **status}

    def unstick(self, name: str) -> None:
        """Its pods become ready now."""
        self.stuck.discard(name)
        found = self.find("deployments", name)
        assert found is not None
        self._store(self._key("deployments", name), found, found)


@contextmanager
def running() -> Iterator[tuple[Cluster, str]]:
    """The server on loopback, in a thread; and its URL."""
    loop, ready, made = asyncio.new_event_loop(), threading.Event(), []
    stop = asyncio.Event()

    async def serve() -> None:
        async with Cluster() as cluster, Server(cluster) as server:
            made.append((cluster, str(server.url).rstrip("/")))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()], daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield made[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)


def _verb(request: Any) -> str:
    """What a Role must grant for a request."""
    method = str(request.method.value)
    if method == "GET":
        return "watch" if request.params.get("watch") == "true" else "get" if request.name else "list"
    if method == "DELETE":
        return "delete" if request.name else "deletecollection"
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}[method]


def _type_of(plural: str) -> tuple[str, str]:
    return {
        "configmaps": ("v1", "ConfigMap"),
        "pods": ("v1", "Pod"),
        "persistentvolumeclaims": ("v1", "PersistentVolumeClaim"),
        "services": ("v1", "Service"),
        "networkpolicies": ("networking.k8s.io/v1", "NetworkPolicy"),
        "deployments": ("apps/v1", "Deployment"),
        "httproutes": ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        "sparkapplications": ("sparkoperator.k8s.io/v1beta2", "SparkApplication"),
        "trainjobs": ("trainer.kubeflow.org/v1alpha1", "TrainJob"),
    }[plural]


def _status(code: int, message: str, details: Json | None = None) -> aiohttp.web.StreamResponse:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
    return aiohttp.web.json_response({**body, "details": details or {}}, status=code)


def _is_selected(value: Json, request: Any) -> bool:
    """Whether an object has the labels that a request wants, and none that it does not want."""
    labels = value["metadata"].get("labels", {})
    for one in filter(None, request.params.get("labelSelector", "").split(",")):
        name, is_equal, wanted = re.fullmatch(r"([^=!]+)(!?=)=?(.*)", one).groups()  # type: ignore[union-attr]
        if (labels.get(name) == wanted) != (is_equal == "="):
            return False
    return True


def _selected(answer: Any, request: Any) -> aiohttp.web.StreamResponse:
    """A list, cut down to the labels that were asked for."""
    if request.name or not request.params.get("labelSelector"):
        return answer
    items = [one for one in json.loads(answer.body)["items"] if _is_selected(one, request)]
    return aiohttp.web.json_response({"kind": "List", "metadata": {}, "items": items})


def _invalid(plural: str, value: Json) -> str:
    if plural == "deployments":
        spec = value["spec"]["template"]["spec"]
        labels = value["spec"]["template"]["metadata"]["labels"]
        if not value["spec"]["selector"]["matchLabels"].items() <= labels.items():
            return "selector does not match template labels"
        for one in [*spec.get("initContainers", []), *spec["containers"]]:
            if "image" not in one:
                return f"container {one['name']}: image is required"
    if plural == "httproutes":
        rules = value["spec"]["rules"]
        matches = [len(rule.get("matches", [])) for rule in rules]
        if not 0 < len(rules) <= 16 or max(matches) > 64 or sum(matches) > 128:
            return "too many rules or matches"
    return ""


def _merged(old: Any, gone: Any, new: Any, key: str = "") -> Any:
    """What an apply makes of an object.

    Args:
        gone: what the manager had applied, and applies no more.
    """
    if isinstance(new, dict):
        kept = {name: value for name, value in (old or {}).items() if name in new or not _is_gone(gone, name)}
        inner = gone if isinstance(gone, dict) else {}
        return kept | {
            name: _merged((old or {}).get(name), inner.get(name), value, name) for name, value in new.items()
        }
    if isinstance(new, list) and key in _KEYS:
        by = _KEYS[key] if all(_KEYS[key] in one for one in new) else "port"  # of a Service
        before = {one[by]: one for one in old or []}
        dropped = {one[by] for one in gone or []} - {one[by] for one in new}
        mine = {one[by]: _merged(before.get(one[by], {}), None, one) for one in new}
        return [mine.pop(name, one) for name, one in before.items() if name not in dropped] + list(mine.values())
    return new


def _is_gone(gone: Any, name: str) -> bool:
    return isinstance(gone, dict) and name in gone


def _without(before: Any, now: Any) -> Any:
    """What ``before`` has and ``now`` lacks."""
    if isinstance(before, dict):
        lacks = {name: value for name, value in before.items() if name not in now}
        both = {name: _without(value, now[name]) for name, value in before.items() if name in now}
        return lacks | {name: value for name, value in both.items() if isinstance(value, dict | list)}
    return before if isinstance(before, list) else None


def _patched(old: Json, patch: Json) -> Json:
    """RFC 7386."""
    new = dict(old)
    for name, value in patch.items():
        if value is None:
            new.pop(name, None)
        elif isinstance(value, dict):
            new[name] = _patched(new[name] if isinstance(new.get(name), dict) else {}, value)
        else:
            new[name] = value
    return new
