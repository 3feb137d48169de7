"""Each step in a container of its role's image, on a Docker engine.

kfp's ``DockerRunner`` mounts only its own folder, runs as the image's user, fetches an image that is missing from
whoever offers one of that name, and has the engine remove a container that ends, whose exit code may be lost with it.
Here a step sees the lake at its own path, writes as the person who runs it, and has no more than on a cluster: a
read-only root, no capabilities, no network unless something that it needs lies there; and a container stays until its
last line and its exit code are read. Whether the step ended well stands in the run's record.
"""

import contextlib
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-not-found,import-untyped]
from docker.types import DeviceRequest, Mount  # type: ignore[import-not-found,import-untyped]
from kfp import local
from kfp.dsl.base_component import BaseComponent
from kfp.local import docker_task_handler

from pipelines.watching import End, watched
from understudy.errors import BadInput
from understudy.lake import Lake

__all__ = ["container_arguments", "docker_steps", "images_of", "run_container"]

_OURS = "understudy/"  # as `make images` names them; at a registry anybody may have taken that name
_LABEL = "dev.understudy.run"
# What steps read, and what decides the last bits of their sums.
_PASSED = (
    *("AWS_", "UNDERSTUDY_", "MKL_", "OMP_", "OPENBLAS_"),
    *("SPARK_CONNECT_AUTHENTICATE_TOKEN", "SPARK_DRIVER_MEMORY", "SPARK_MASTER", "SPARK_REMOTE"),
)
_NOT_PASSED = ("UNDERSTUDY_IMAGE_",)


@contextlib.contextmanager
def docker_steps(
    pipeline: BaseComponent, lake: Lake, root: Path, told: Callable[[End], None], *, gpu: bool = False
) -> Iterator[Any]:
    """The kfp runner for a pipeline's steps; whatever still runs at the end is removed.

    Args:
        root: an empty folder that the steps may write to, kfp's ``pipeline_root``.
        told: hears of each step whose container has not ended well.
        gpu: steps see the machine's GPUs.

    Raises:
        BadInput: no engine answers, an image is missing, or containers can't reach the lake.
    """
    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        raise BadInput(
            f"--runner docker: expected a Docker engine at {_engine()}, found: {_plain(error)}; "
            "start it, or name it in DOCKER_HOST"
        ) from error
    with contextlib.closing(client):
        images = images_of(pipeline)
        for image in images:
            _have(client, image)
        options = client.info().get("SecurityOptions") or ()
        arguments = container_arguments(lake, root, os.environ, security=tuple(options), gpu=gpu)
        _try_out(client, images[0], arguments, lake, root)
        try:
            with watched(docker_task_handler, "run_docker_container", run_container, told):
                yield local.DockerRunner(**arguments)
        finally:
            _remove(client, arguments["labels"])


def run_container(client: Any, image: str, command: list[str], volumes: dict[str, Any], **arguments: Any) -> int | None:
    """Run one, print what it writes, remove it; its exit code, or None where it vanished."""
    container = client.containers.run(image, command, detach=True, volumes=volumes, **arguments)
    try:
        for part in container.logs(stream=True):
            print(part.decode(errors="replace"), end="")
        return int(container.wait()["StatusCode"])
    except docker.errors.NotFound:
        return None
    finally:
        with contextlib.suppress(docker.errors.DockerException, OSError):
            container.remove(force=True)


def images_of(pipeline: BaseComponent) -> list[str]:
    """The images that a pipeline's steps name, each once."""
    executors = pipeline.pipeline_spec.deployment_spec["executors"]
    return sorted({executors[name]["container"]["image"] for name in executors})


def container_arguments(
    lake: Lake, root: Path, environment: Mapping[str, str], *, security: tuple[str, ...] = (), gpu: bool = False
) -> dict[str, Any]:
    """How every step's container is run, as the Docker SDK's ``containers.run`` takes it.

    Args:
        root: the folder that kfp mounts; scratch space and a list of users are put there.
        environment: this process's.
        security: the engine's ``SecurityOptions``.
    """
    # A rootless engine's user 0 is the person who runs it.
    rootless = any("rootless" in option for option in security)
    user, group = (0, 0) if rootless else (os.getuid(), os.getgid())
    scratch, users = root / "scratch", root / "passwd"
    scratch.mkdir()
    users.write_text(_users(user, group))
    mounts = [Mount("/etc/passwd", str(users), type="bind", read_only=True)]
    if lake.is_local:
        mounts.append(Mount(lake.root, lake.root, type="bind"))
    passed = {
        name: value
        for name, value in environment.items()
        if name.startswith(_PASSED) and not name.startswith(_NOT_PASSED)
    }
    arguments: dict[str, Any] = {
        "mounts": mounts,
        "user": f"{user}:{group}",
        "group_add": [] if rootless else [str(one) for one in os.getgroups() if one != group],
        "environment": {**passed, "TMPDIR": str(scratch), "SPARK_LOCAL_DIRS": str(scratch)},
        "read_only": True,
        # Java loads libraries from there; the default forbids it.
        "tmpfs": {"/tmp": "exec,mode=1777"},
        "shm_size": "1g",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges", *(["label=disable"] if any("selinux" in o for o in security) else [])],
        "labels": {_LABEL: uuid.uuid4().hex},
    }
    if not lake.is_local or any("://" in value for value in passed.values()):
        arguments["network_mode"] = "host"  # an address in the environment means what it means here
    else:
        arguments |= {"network_mode": "none", "hostname": "localhost"}  # Java looks its host's name up
    if gpu:
        arguments["device_requests"] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return arguments


def _users(user: int, group: int) -> str:
    """Java, and with it Spark, refuses to run as a user without a name."""
    lines = ["root:x:0:0::/tmp:/usr/sbin/nologin"]
    if user:
        lines.append(f"understudy:x:{user}:{group}::/tmp:/usr/sbin/nologin")
    return "\n".join(lines) + "\n"


def _have(client: Any, image: str) -> None:
    with contextlib.suppress(docker.errors.ImageNotFound):
        client.images.get(image)
        return
    advice = "build it with `make images`, or name another with UNDERSTUDY_IMAGE_SPARK, _TOOLS, _TRAIN"
    if image.startswith(_OURS):
        raise BadInput(f"image {image}: expected it in the engine at {_engine()}, found none; {advice}")
    print(f"pulling {image}", file=sys.stderr, flush=True)
    try:
        client.images.pull(image)
    except docker.errors.DockerException as error:
        raise BadInput(
            f"image {image}: expected it in the engine at {_engine()} or at its registry, found: {_plain(error)}; "
            f"{advice}"
        ) from error


def _try_out(client: Any, image: str, arguments: dict[str, Any], lake: Lake, root: Path) -> None:
    """Have a container copy a file from the lake to where this process looks."""
    copy = root / "tried"
    command = ["sh", "-c", "cat /etc/passwd > $1", "sh", str(copy)]
    if lake.is_local:
        command = ["sh", "-c", 'cat "$0/lake.json" > "$1" && test -w "$0"', lake.root, str(copy)]
    try:
        volumes = {str(root): {"bind": str(root), "mode": "rw"}}
        client.containers.run(image, command, remove=True, stderr=True, volumes=volumes, **arguments)
        why = None if copy.exists() else "another machine's folders"
    except docker.errors.ContainerError as error:
        why = _plain(error.stderr.decode(errors="replace")) or "that it may not write there"
    except docker.errors.DockerException as error:
        why = _plain(error)
    if why is not None:
        raise BadInput(
            f"lake {lake.root}: expected containers of the engine at {_engine()} to read and write it as user "
            f"{arguments['user']}, found: {why}; keep it on the engine's machine, in a folder that it shares"
        )


def _remove(client: Any, labels: dict[str, str]) -> None:
    with contextlib.suppress(docker.errors.DockerException, OSError):
        for one in client.containers.list(
            all=True, filters={"label": [f"{key}={value}" for key, value in labels.items()]}
        ):
            with contextlib.suppress(docker.errors.APIError):  # it has ended meanwhile
                one.remove(force=True)


def _engine() -> str:
    return os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")


def _plain(error: object) -> str:
    return " ".join(str(error).split())
