"""What objects for a cluster must keep to beyond their schema: pods, roles, routes of the Gateway API, TrainJobs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

__all__ = [
    "GATEWAY",
    "HTTP_ROUTE",
    "INFERENCE_SERVICE",
    "granted",
    "pod_faults",
    "role_faults",
    "route_faults",
    "train_job_faults",
]

Json = dict[str, Any]

MANIFESTS = Path(__file__).resolve().parent.parent.parent / "manifests"
# What a pod may mount under the restricted profile.
_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def pod_faults(spec: Json, probes: bool = True) -> list[str]:
    """What a pod does that the restricted pod-security profile, or this project, does not allow.

    Args:
        probes: whether its containers must have some.
    """
    return [*_pod(spec), *_containers(spec, probes)]


def _pod(spec: Json) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        if not kinds <= _VOLUMES:
            yield f"volume {volume['name']}: {', '.join(sorted(kinds))}"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']}: no sizeLimit"
    if spec.get("securityContext", {}).get("sysctls"):
        yield "sysctls"
    if "automountServiceAccountToken" not in spec:
        yield "automountServiceAccountToken is not said"


def _containers(spec: Json, probes: bool) -> Iterator[str]:
    pod = spec.get("securityContext", {})
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for one in spec.get(key, []):
            for fault in (*_security(one, pod), *_needs(one, probes and key == "containers")):
                yield f"{one['name']}: {fault}"


def _security(container: Json, pod: Json) -> Iterator[str]:
    own = container.get("securityContext", {})
    both = {**pod, **own}
    if both.get("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if not isinstance(both.get("runAsUser"), int) or both["runAsUser"] == 0:
        yield "runAsUser"
    if both.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "seccompProfile"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if own.get("privileged"):
        yield "privileged"
    if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
        yield "capabilities"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "readOnlyRootFilesystem"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "hostPort"


def _needs(container: Json, probes: bool) -> Iterator[str]:
    resources = container.get("resources", {})
    for name in ("cpu", "memory"):
        if name not in resources.get("requests", {}):
            yield f"no request of {name}"
    if "memory" not in resources.get("limits", {}):
        yield "no limit of memory"
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        if probes and name not in container:
            yield f"no {name}"


def role_faults(role: Json) -> list[str]:
    """What a Role grants beyond objects that it names; no name can be given for create and list."""
    found = []
    for rule in role["rules"]:
        words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"], *rule.get("resourceNames", [])]
        if "*" in words:
            found.append(f"a wildcard: {rule}")
        if "secrets" in rule["resources"]:
            found.append(f"secrets: {rule}")
        if not rule.get("resourceNames") and not set(rule["verbs"]) <= {"create", "list"}:
            found.append(f"no names: {rule}")
        if {"escalate", "bind", "impersonate"} & set(rule["verbs"]):
            found.append(f"more than its own rights: {rule}")
    return found


def granted(name: str) -> set[tuple[str, str]]:
    """Verb and resource that a Role of the component ``jobs`` grants."""
    rules = yaml.safe_load((MANIFESTS / "components" / "jobs" / f"role-{name}.yaml").read_text())["rules"]
    return {(verb, resource) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}


def route_faults(route: Json) -> list[str]:
    """What the API server would refuse of an HTTPRoute."""
    faults = [error.message for error in jsonschema.Draft202012Validator(HTTP_ROUTE).iter_errors(route)]
    matches = sum(len(rule.get("matches", [None])) for rule in route["spec"].get("rules", []))
    return faults if matches <= 128 else [*faults, f"{matches} matches"]


# What the validating webhook of Kubeflow Trainer 2.3 (August 2026) refuses, and no schema says.
_DOMAIN_AND_PATH = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9/._~%!$&'()*+,;=:-]+")
_RFC_1035 = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_OF_TORCHRUN = {"PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"}
_RESERVED = {"dataset-initializer", "model-initializer", "node"}


def train_job_faults(job: Json) -> list[str]:
    """What Trainer's webhook would refuse of a TrainJob, in its own words."""
    faults = []
    if not _RFC_1035.fullmatch(job["metadata"]["name"]):
        faults.append(f'metadata.name: Invalid value: "{job["metadata"]["name"]}": must be a RFC 1035 label')
    for one in job["spec"].get("trainer", {}).get("env", []):
        if one["name"] in _OF_TORCHRUN:
            faults.append(f"spec.trainer.env: Invalid value: must not have reserved envs, found: {one['name']}")
    for at, patch in enumerate(job["spec"].get("runtimePatches", [])):
        faults += [f"spec.runtimePatches[{at}].{fault}" for fault in _patch_faults(patch)]
    return faults


def _patch_faults(patch: Json) -> Iterator[str]:
    manager = patch.get("manager", "")
    if not _DOMAIN_AND_PATH.fullmatch(manager):
        yield f'manager: Invalid value: "{manager}": must be a domain-prefixed path (such as "acme.io/foo")'
    for replicated in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]:
        for container in replicated["template"]["spec"]["template"]["spec"].get("containers", []):
            if container.get("env") and container["name"] in _RESERVED:
                yield f"trainingRuntimeSpec: Invalid value: must not have envs for the {container['name']} container"


def _object(properties: Json, *required: str) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: Json, most: int, least: int = 0) -> Json:
    return {"type": "array", "items": items, "maxItems": most, "minItems": least}


def _kind(api_version: str, kind: str, spec: Json) -> Json:
    metadata = {"type": "object", "required": ["name"]}
    properties = {"apiVersion": {"const": api_version}, "kind": {"const": kind}, "metadata": metadata, "spec": spec}
    return _object(properties, *properties)


# Gateway API v1, standard channel: the fields in use, with the limits of its definitions.
_GATEWAY_API = "gateway.networking.k8s.io/v1"
_NAME = {"type": "string", "minLength": 1, "maxLength": 253}
_NAMESPACE = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_HOST = {"type": "string", "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"}
_HEADER_NAME = {"type": "string", "pattern": r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$", "maxLength": 256}
_HEADER_VALUE = {"type": "string", "minLength": 1, "maxLength": 4096}
_MATCH = _object(
    {
        "path": _object(
            {
                "type": {"enum": ["Exact", "PathPrefix", "RegularExpression"]},
                "value": {"type": "string", "pattern": "^/", "maxLength": 1024},
            }
        ),
        "headers": _list(
            _object(
                {"type": {"enum": ["Exact", "RegularExpression"]}, "name": _HEADER_NAME, "value": _HEADER_VALUE},
                "name",
                "value",
            ),
            16,
        ),
        "method": {"enum": ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]},
    }
)
_HEADERS = _list(_object({"name": _HEADER_NAME, "value": _HEADER_VALUE}, "name", "value"), 16)
_FILTER = _object(
    {
        "type": {"const": "RequestHeaderModifier"},
        "requestHeaderModifier": _object({"set": _HEADERS, "add": _HEADERS, "remove": _list({"type": "string"}, 16)}),
    },
    "type",
    "requestHeaderModifier",
)
_BACKEND = _object(
    {"name": _NAME, "namespace": _NAMESPACE, "port": _PORT, "weight": {"type": "integer", "minimum": 0}}, "name", "port"
)
HTTP_ROUTE = _kind(
    _GATEWAY_API,
    "HTTPRoute",
    _object(
        {
            "parentRefs": _list(
                _object({"name": _NAME, "namespace": _NAMESPACE, "sectionName": _NAME, "port": _PORT}, "name"), 32
            ),
            "hostnames": _list(_HOST, 16),
            "rules": _list(
                _object(
                    {
                        "name": _NAME,
                        "matches": _list(_MATCH, 64),
                        "filters": _list(_FILTER, 16),
                        "backendRefs": _list(_BACKEND, 16),
                    }
                ),
                16,
                least=1,
            ),
        }
    ),
)
GATEWAY = _kind(
    _GATEWAY_API,
    "Gateway",
    _object(
        {
            "gatewayClassName": _NAME,
            "infrastructure": _object(
                {
                    "annotations": {"type": "object", "maxProperties": 16},
                    "labels": {"type": "object", "maxProperties": 8},
                }
            ),
            "listeners": _list(
                _object(
                    {
                        "name": _NAME,
                        "hostname": _HOST,
                        "protocol": {"enum": ["HTTP", "HTTPS"]},
                        "port": _PORT,
                        "allowedRoutes": _object(
                            {"namespaces": _object({"from": {"enum": ["All", "Selector", "Same", "None"]}})}
                        ),
                    },
                    "name",
                    "port",
                    "protocol",
                ),
                64,
                least=1,
            ),
        },
        "gatewayClassName",
        "listeners",
    ),
)
# KServe v1beta1: a custom predictor is a pod's spec with a few fields of KServe's own; the pod is checked as one.
INFERENCE_SERVICE = _kind(
    "serving.kserve.io/v1beta1",
    "InferenceService",
    _object(
        {
            "predictor": {
                "type": "object",
                "properties": {
                    "minReplicas": {"type": "integer", "minimum": 0},
                    "maxReplicas": {"type": "integer", "minimum": 0},
                    "labels": {"type": "object"},
                    "containers": {"contains": {"properties": {"name": {"const": "kserve-container"}}}},
                },
                "required": ["containers"],
            }
        },
        "predictor",
    ),
)
