"""A namespace of a Kubernetes cluster, as plain objects.

Changes are server-side applies under one field manager, so that fields that others own stay theirs. Nothing is assumed
of what the server keeps between two calls: who calls again, goes on.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from understudy.errors import BadInput, Later
from understudy.kubernetes_refusals import advice, is_of_rbac
from understudy.redaction import one_line

__all__ = ["Api", "Conflict", "Refused", "Unreachable", "connect"]

_PATHS = {
    "ConfigMap": ("v1", "/api/v1", "configmaps"),
    "Pod": ("v1", "/api/v1", "pods"),
    "Deployment": ("apps/v1", "/apis/apps/v1", "deployments"),
    "HTTPRoute": ("gateway.networking.k8s.io/v1", "/apis/gateway.networking.k8s.io/v1", "httproutes"),
    "SparkApplication": (
        "sparkoperator.k8s.io/v1beta2", "/apis/sparkoperator.k8s.io/v1beta2", "sparkapplications",
    ),
    "TrainJob": ("trainer.kubeflow.org/v1alpha1", "/apis/trainer.kubeflow.org/v1alpha1", "trainjobs"),
}  # fmt: skip
_BROUGHT_BY = {
    "HTTPRoute": "the Gateway API's CRDs",
    "SparkApplication": "the Spark operator",
    "TrainJob": "Kubeflow Trainer",
}
_TIMEOUT_S = (5, 20)
_TRIES = 3
_AGAIN = (429, 500, 502, 503, 504)
_MOST_ITEMS = 500
_MOST_LOG_BYTES, _MOST_LOG_LINES = 1_000_000, 1000
_MOST_CHARACTERS = 500  # of the server's own words

Json = dict[str, Any]


class Conflict(Later):
    """The object is not, or no longer, what the caller has read."""


class Unreachable(Later):
    """The cluster gave no answer that can be used."""


class Refused(BadInput):
    """The server said no, in its own words.

    Args:
        status: of HTTP.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Api:
    """Objects of one namespace.

    Args:
        manager: of the fields that are applied.
        role: manifest of the Role that allows what is asked here, for whoever is refused.

    Raises:
        Unreachable: no answer, or a server's error, after several tries.
        Refused: the server refuses: no permission, a webhook, a quota, an invalid object, no such kind.
    """

    client: client.ApiClient
    namespace: str
    manager: str = "understudy-rollout"
    role: str = "manifests/base/rollout"

    def get(self, kind: str, name: str) -> Json | None:
        """An object; None where there is none."""
        found: Json | None = self._call("GET", kind, name)
        return found

    def list(self, kind: str, selector: str) -> list[Json]:
        """Objects with these labels."""
        items: list[Json] = []
        query: Json = {"labelSelector": selector, "limit": _MOST_ITEMS}
        while True:
            found = self._call("GET", kind, "", query) or {}
            items += found.get("items") or []
            query["continue"] = found.get("metadata", {}).get("continue")
            if not query["continue"]:
                return items

    def apply(self, kind: str, name: str, content: Json) -> Json:
        """Own these fields of an object, and nothing else; the object is made where there is none.

        Raises:
            Conflict: the content names a ``resourceVersion`` that is not the object's any more.
        """
        metadata = {**content.get("metadata", {}), "name": name, "namespace": self.namespace}
        body = {**content, "apiVersion": _PATHS[kind][0], "kind": kind, "metadata": metadata}
        more = {"fieldManager": self.manager, "force": "true"}
        found: Json | None = self._call("PATCH", kind, name, more, body, "application/apply-patch+yaml")
        assert found is not None, "an apply makes what is not there"
        return found

    def merge(self, kind: str, name: str, content: Json) -> Json | None:
        """Change fields that stay another's; None where there is no such object."""
        more = {"fieldManager": f"{self.manager}-once"}
        found: Json | None = self._call("PATCH", kind, name, more, content, "application/merge-patch+json")
        return found

    def create(self, kind: str, content: Json) -> Json:
        """Make an object.

        Raises:
            Conflict: it is there.
        """
        body = {**content, "apiVersion": _PATHS[kind][0], "kind": kind}
        found: Json | None = self._call("POST", kind, "", {"fieldManager": self.manager}, body)
        assert found is not None, "creation answers with the object"
        return found

    def replace(self, kind: str, content: Json) -> Json:
        """Write an object that was read.

        Raises:
            Conflict: it was changed since, or removed.
        """
        assert content["metadata"].get("resourceVersion"), "without it the server overwrites"
        body = {**content, "apiVersion": _PATHS[kind][0], "kind": kind}
        found: Json | None = self._call("PUT", kind, content["metadata"]["name"], {"fieldManager": self.manager}, body)
        if found is None:
            raise Conflict(f"{kind} {content['metadata']['name']} is gone")
        return found

    def delete(self, kind: str, name: str) -> None:
        """Remove an object, and what it owns after it; nothing where there is none."""
        self._call("DELETE", kind, name, {"propagationPolicy": "Background"})

    def log(self, pod: str, since: str = "") -> str:
        """Lines of a pod's main container, each after its time; empty where there is none, or it has not begun.

        Args:
            since: a time such as the lines begin with; lines of that second come, too.
        """
        query: Json = {"timestamps": "true", "limitBytes": _MOST_LOG_BYTES}
        query |= {"sinceTime": f"{since[:19]}Z"} if since else {"tailLines": _MOST_LOG_LINES}
        try:
            found = self._call("GET", "Pod", f"{pod}/log", query, parse=lambda data: data.decode(errors="replace"))
        except Refused as error:
            if error.status != 400:
                raise
            return ""  # its container waits to begin
        return found or ""

    def _call(
        self,
        method: str,
        kind: str,
        name: str,
        query: Json | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
        parse: Callable[[bytes], Any] = json.loads,
    ) -> Any:
        _, base, plural = _PATHS[kind]
        path = f"{base}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")
        what = f"{kind} {name}".strip()
        for left in reversed(range(_TRIES)):
            try:
                answer, *_ = self.client.call_api(
                    path,
                    method,
                    query_params=list((query or {}).items()),
                    header_params={"Content-Type": content_type, "Accept": "application/json, */*"},
                    body=body,
                    auth_settings=["BearerToken"],
                    _preload_content=False,
                    _request_timeout=_TIMEOUT_S,
                )
                return parse(answer.data)
            except ApiException as error:
                if error.status == 404 and not _no_such_kind(error):
                    return None
                if error.status == 409:
                    raise Conflict(f"{what}: {self._reason(error)}") from error
                if error.status and error.status not in _AGAIN:
                    raise Refused(self._refused(method, kind, what, error), error.status) from error
                if not left:
                    where = f"{method} {what} in namespace {self.namespace}"
                    raise Unreachable(f"{where}: {self._reason(error)}") from error
            except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                if not left:
                    why = f"{type(error).__name__}: no answer that can be used"
                    raise Unreachable(f"{method} {what} in namespace {self.namespace}: {why}") from error
            time.sleep(0.2 * (_TRIES - left))
        raise AssertionError("the last try returns or raises")

    def _refused(self, method: str, kind: str, what: str, error: ApiException) -> str:
        words = _words(error)
        hint = {
            401: "log in again, or mend the service account's token",
            404: f"install {_BROUGHT_BY.get(kind, 'what brings this kind')}, or correct the namespace",
        }.get(error.status) or advice(words)
        if error.status == 403 and is_of_rbac(words):
            hint = f"give the Role of {self.role} to who runs this"
        expected = f"{method} {what} in namespace {self.namespace}: expected the server's consent"
        return (
            f"{expected}, found {self._reason(error)}; {hint or 'correct what it names, or ask who has set that rule'}"
        )

    def _reason(self, error: ApiException) -> str:
        """What the server says, as one line."""
        tokens = [str(one).removeprefix("Bearer ") for one in self.client.configuration.api_key.values()]
        return one_line(_words(error), _MOST_CHARACTERS, more=tokens)


def connect(namespace: str | None, context: str | None = None) -> Api:
    """The cluster of this pod, or of a kubeconfig's context.

    Args:
        namespace: None: this pod's, or the context's.

    Raises:
        BadInput: there is no cluster that is known here.
    """
    settings = client.Configuration()
    is_pod = context is None and not _has_kubeconfig() and os.environ.get("KUBERNETES_SERVICE_HOST")
    try:
        if is_pod:
            config.load_incluster_config(settings)
            own = _pod_namespace()
        else:
            config.load_kube_config(context=context, client_configuration=settings)
            own = _context_namespace(context)
    except Exception as error:  # a kubeconfig may be anything, and so is what reading it raises
        lines = str(error).splitlines() or [type(error).__name__]
        raise BadInput(
            "cluster: expected a kubeconfig (KUBECONFIG, ~/.kube/config) or a pod's service account, found none that "
            f"can be used: {lines[0][:200]}"
        ) from error
    settings.retries = 0
    return Api(client.ApiClient(settings), namespace or own)


def _has_kubeconfig() -> bool:
    return "KUBECONFIG" in os.environ or Path("~/.kube/config").expanduser().is_file()


def _pod_namespace() -> str:
    if "POD_NAMESPACE" in os.environ:
        return os.environ["POD_NAMESPACE"]
    with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace") as file:
        return file.read().strip()


def _context_namespace(context: str | None) -> str:
    contexts, active = config.list_kube_config_contexts()
    chosen = next((one for one in contexts if one["name"] == context), active)
    return str(chosen.get("context", {}).get("namespace") or "default")


def _no_such_kind(error: ApiException) -> bool:
    """A 404 of the path, not of an object: the kind is not installed, or the namespace is gone."""
    details = _status(error).get("details") or {}
    return not details.get("name") and "page not found" in str(error.body)


def _words(error: ApiException) -> str:
    return str(_status(error).get("message") or f"status {error.status} {error.reason or ''}".strip())


def _status(error: ApiException) -> Json:
    try:
        found = json.loads(error.body or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
