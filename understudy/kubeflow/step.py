"""Settings of the pods of steps: only what Kubeflow Pipelines takes at compile time."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from understudy.section import duration_s, number, section

__all__ = ["Gpu", "Secret", "StepSettings", "Toleration", "Volume", "joined"]

_CPU = re.compile(r"(\d+(\.\d+)?|\d+m)")
_BYTES = re.compile(r"\d+(E|Ei|P|Pi|T|Ti|G|Gi|M|Mi|K|Ki)?")
_ENV = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_DNS = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", re.ASCII)


@section
class Gpu:
    """Accelerators of a pod.

    Args:
        type: the resource's name in the cluster.
        count: of them.
    """

    type: str = "nvidia.com/gpu"
    count: int = number(1, low=1, high=64)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9.-]+/[\w.-]+", self.type):
            raise ValueError(f"type: expected a resource such as nvidia.com/gpu, found {self.type!r}")


@section
class Toleration:
    """A taint of nodes that a pod bears.

    Args:
        key: of the taint; empty: any, with operator ``Exists``.
        operator: ``Equal`` or ``Exists``.
        value: of the taint, with ``Equal``.
        effect: ``NoSchedule``, ``PreferNoSchedule`` or ``NoExecute``; empty: any.
        seconds: that it is borne, with ``NoExecute``; None: for ever.
    """

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    seconds: int | None = number(None, low=0)

    def __post_init__(self) -> None:
        if self.operator not in ("Equal", "Exists"):
            raise ValueError(f"operator: expected Equal or Exists, found {self.operator!r}")
        if self.effect not in ("", "NoSchedule", "PreferNoSchedule", "NoExecute"):
            raise ValueError(f"effect: expected NoSchedule, PreferNoSchedule or NoExecute, found {self.effect!r}")
        if self.value and self.operator == "Exists":
            raise ValueError(f"value: expected none with operator Exists, found {self.value!r}")
        if not self.key and self.operator != "Exists":
            raise ValueError("key: expected a taint's key, or operator Exists for any, found neither")


@section
class Secret:
    """A Secret of the namespace, as environment variables.

    Args:
        name: of the Secret.
        env: variable → key of the Secret.
        optional: whether the pod starts without it.
    """

    name: str
    env: dict[str, str]
    optional: bool = False

    def __post_init__(self) -> None:
        if not _DNS.fullmatch(self.name):
            raise ValueError(f"name: expected the name of a Secret such as lake-keys, found {self.name!r}")
        if not self.env:
            raise ValueError("env: expected variables as in {AWS_ACCESS_KEY_ID: access-key}, found none")
        _check_env(self.env)


@section
class Volume:
    """A PersistentVolumeClaim of the namespace, mounted: for a lake that is a folder.

    Args:
        claim: its name.
        path: where in the container.
        sub_path: within the volume; empty: its root.
    """

    claim: str
    path: str
    sub_path: str = ""

    def __post_init__(self) -> None:
        if not _DNS.fullmatch(self.claim):
            raise ValueError(f"claim: expected the name of a claim such as understudy-lake, found {self.claim!r}")
        if not re.fullmatch(r"(/[^/\s:]+)+", self.path):
            raise ValueError(f"path: expected an absolute path such as /lake, found {self.path!r}")


@section
class StepSettings:
    """One step's pod. What is left out is as the installation has it.

    Args:
        cpu: cores that are reserved, such as 2 or 500m. cpu_limit: that it may use; empty: more, where there are.
        memory: that is reserved, and that it may use, such as 8Gi.
        gpu: accelerators.
        shared_memory: size of /dev/shm, such as 8Gi: for data loaders; it counts as memory.
        node_selector: labels of nodes. tolerations: of their taints.
        env: plain variables. secrets: variables from Secrets. volumes: claims to mount.
        labels, annotations: of the pod.
        run_as_user, run_as_group: numeric, and not root; None: the image's own user.
        pull_policy: ``Always``, ``IfNotPresent`` or ``Never``. pull_secrets: names of Secrets of the registry.
        timeout: of a pod; then it is ended and has failed.
        retries: of a step that has failed, whatever its exit code was: a gate's no is given again as often, at once,
            from the record. A lost pod is no failure to Kubeflow Pipelines; its Argo may be set to try that again.
        retry_wait: before the first retry; it doubles.
    """

    cpu: str = ""
    cpu_limit: str = ""
    memory: str = ""
    gpu: Gpu | None = None
    shared_memory: str = ""
    node_selector: dict[str, str] = dataclasses.field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    secrets: tuple[Secret, ...] = ()
    volumes: tuple[Volume, ...] = ()
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    annotations: dict[str, str] = dataclasses.field(default_factory=dict)
    run_as_user: int | None = number(None, low=1, high=2**31 - 1)
    run_as_group: int | None = number(None, low=1, high=2**31 - 1)
    pull_policy: str = ""
    pull_secrets: tuple[str, ...] = ()
    timeout: str = ""
    retries: int | None = number(None, low=0, high=5)
    retry_wait: str = ""

    def __post_init__(self) -> None:
        for key in ("cpu", "cpu_limit"):
            _check(key, getattr(self, key), _CPU, "cores such as 2 or 500m")
        for key in ("memory", "shared_memory"):
            _check(key, getattr(self, key), _BYTES, "a size such as 8Gi")
        for key in ("node_selector", "labels", "annotations"):
            for name in getattr(self, key):
                _check(key, name, _LABEL_KEY, "names such as example.com/pool")
        _check_env(self.env)
        for name in self.pull_secrets:
            _check("pull_secrets", name, _DNS, "names of Secrets")
        if self.pull_policy not in ("", "Always", "IfNotPresent", "Never"):
            raise ValueError(f"pull_policy: expected Always, IfNotPresent or Never, found {self.pull_policy!r}")
        for text in filter(None, (self.timeout, self.retry_wait)):
            duration_s(text)

    def without(self, *keys: str) -> "StepSettings":
        """The same, but for these, which are as the installation has them."""
        plain = StepSettings()
        return dataclasses.replace(self, **{key: getattr(plain, key) for key in keys})


def joined(settings: Sequence[StepSettings]) -> StepSettings:
    """Several as one: the last that says something counts; mappings are joined key by key, lists one after another."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(StepSettings):
        said = [value for one in settings if (value := getattr(one, field.name)) not in (None, "", (), {})]
        if not said:
            continue
        if isinstance(said[0], dict):
            found[field.name] = {key: value for one in said for key, value in one.items()}
        elif isinstance(said[0], tuple):
            found[field.name] = tuple(value for one in said for value in one)
        else:
            found[field.name] = said[-1]
    return StepSettings(**found)


def _check(key: str, value: str, pattern: re.Pattern[str], expected: str) -> None:
    if value and not pattern.fullmatch(value):
        raise ValueError(f"{key}: expected {expected}, found {value!r}")


def _check_env(env: dict[str, str]) -> None:
    for name in env:
        _check("env", name, _ENV, "names of letters, digits and _")
