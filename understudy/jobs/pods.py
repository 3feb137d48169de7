"""A pod's settings as Kubernetes' own objects, under the restricted pod security standard."""

import re
from typing import Any

from understudy.kubeflow.step import StepSettings

__all__ = [
    "Json",
    "cores",
    "env_of",
    "mebibytes",
    "mounts_of",
    "pod_security",
    "pod_template",
    "security",
    "volumes_of",
]

Json = dict[str, Any]

_SCRATCH = "scratch"
_SHARED = "shared-memory"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}


def mebibytes(size: str) -> int:
    """MiB of a size such as 8Gi, rounded down."""
    match = re.fullmatch(r"(\d+)([EPTGMK]i?)?", size)
    assert match, "the configuration has checked it"
    return int(match[1]) * _UNITS[match[2] or ""] // 2**20


def cores(cpu: str) -> int:
    """Whole cores of such as 2 or 500m, at least one."""
    return max(1, int(cpu[:-1]) // 1000 if cpu.endswith("m") else int(float(cpu)))


def pod_template(settings: StepSettings, container: str, command: list[str] | None = None) -> Json:
    """Labels, places, volumes and environment of a pod; image and resources are left to who runs it.

    Args:
        container: name of the main one.
    """
    main: Json = {
        "name": container,
        "env": env_of(settings),
        "volumeMounts": mounts_of(settings),
        "securityContext": security(),
    }
    if command:
        main["command"] = command
    spec: Json = {
        "securityContext": pod_security(settings),
        "volumes": volumes_of(settings),
        "containers": [main],
        **places_of(settings),
    }
    return {"metadata": {"labels": settings.labels, "annotations": settings.annotations}, "spec": spec}


def places_of(settings: StepSettings) -> Json:
    """Which nodes a pod may run on, and how its image is had."""
    found: Json = {}
    if settings.node_selector:
        found["nodeSelector"] = settings.node_selector
    if settings.tolerations:
        found["tolerations"] = [
            {
                name: value
                for name, value in (
                    ("key", one.key),
                    ("operator", one.operator),
                    ("value", one.value),
                    ("effect", one.effect),
                    ("tolerationSeconds", one.seconds),
                )
                if value not in ("", None)
            }
            for one in settings.tolerations
        ]
    if settings.pull_secrets:
        found["imagePullSecrets"] = [{"name": name} for name in settings.pull_secrets]
    return found


def env_of(settings: StepSettings) -> list[Json]:
    """Variables, plain and from Secrets."""
    plain: list[Json] = [{"name": name, "value": value} for name, value in settings.env.items()]
    for secret in settings.secrets:
        for name, key in secret.env.items():
            reference = {"name": secret.name, "key": key, "optional": secret.optional}
            plain.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    return plain


def volumes_of(settings: StepSettings) -> list[Json]:
    """Claims, room to write in, and shared memory where it is asked for."""
    found: list[Json] = [{"name": _SCRATCH, "emptyDir": {}}]
    if settings.shared_memory:
        found.append({"name": _SHARED, "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}})
    for claim in dict.fromkeys(one.claim for one in settings.volumes):
        found.append({"name": claim, "persistentVolumeClaim": {"claimName": claim}})
    return found


def mounts_of(settings: StepSettings) -> list[Json]:
    found: list[Json] = [{"name": _SCRATCH, "mountPath": "/tmp"}]
    if settings.shared_memory:
        found.append({"name": _SHARED, "mountPath": "/dev/shm"})
    for one in settings.volumes:
        within = {"subPath": one.sub_path} if one.sub_path else {}
        found.append({"name": one.claim, "mountPath": one.path, **within})
    return found


def pod_security(settings: StepSettings) -> Json:
    user = {"runAsUser": settings.run_as_user, "runAsGroup": settings.run_as_group, "fsGroup": settings.run_as_group}
    stated = {name: value for name, value in user.items() if value is not None}
    return {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, **stated}


def security() -> Json:
    """Of a container: what the restricted profile asks for, and a root that can't be written."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
