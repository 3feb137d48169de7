"""How `understudy run --runner docker` asks for a step's container, and what it says when it can't have one."""

import inspect
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.retraining import retraining
from pipelines.watching import End, watched
from understudy.config import Config
from understudy.errors import BadInput
from understudy.lake import Lake

docker = pytest.importorskip("docker", reason="needs Python's package docker")
from pipelines.docker_runner import container_arguments, docker_steps, images_of, run_container  # noqa: E402


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open_or_create(str(tmp_path / "lake"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def test_a_step_sees_the_lake_where_it_lies_and_writes_as_its_user(lake: Lake, root: Path) -> None:
    arguments = container_arguments(lake, root, {})
    mounts = {mount["Target"]: mount for mount in arguments["mounts"]}
    assert mounts[lake.root]["Source"] == lake.root
    assert not mounts[lake.root]["ReadOnly"]
    assert arguments["user"] == f"{os.getuid()}:{os.getgid()}"
    assert arguments["environment"] == {"TMPDIR": str(root / "scratch"), "SPARK_LOCAL_DIRS": str(root / "scratch")}


def test_its_user_has_a_name(lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    monkeypatch.setattr(os, "getgid", lambda: 1234)
    (users,) = [m["Source"] for m in container_arguments(lake, root, {})["mounts"] if m["Target"] == "/etc/passwd"]
    assert [line.split(":")[2] for line in Path(users).read_text().splitlines()] == ["0", "1234"]


def test_it_has_no_more_than_it_needs(lake: Lake, root: Path) -> None:
    arguments = container_arguments(lake, root, {})
    assert arguments["read_only"]
    assert arguments["cap_drop"] == ["ALL"]
    assert arguments["security_opt"] == ["no-new-privileges"]
    assert arguments["network_mode"] == "none"
    assert "device_requests" not in arguments
    assert "privileged" not in arguments


def test_the_engine_decides_who_a_step_is_and_how_folders_are_labelled(lake: Lake, root: Path) -> None:
    arguments = container_arguments(lake, root, {}, security=("name=rootless", "name=selinux"))
    assert arguments["user"] == "0:0"
    assert arguments["group_add"] == []
    assert "label=disable" in arguments["security_opt"]


def test_it_gets_a_gpu_where_the_configuration_asks_for_one(lake: Lake, root: Path) -> None:
    (request,) = container_arguments(lake, root, {}, gpu=True)["device_requests"]
    assert request["Capabilities"] == [["gpu"]]


def test_of_the_environment_it_gets_what_steps_read(lake: Lake, root: Path) -> None:
    passed = {"UNDERSTUDY_WORD": "1", "OMP_NUM_THREADS": "2", "SPARK_DRIVER_MEMORY": "1g", "AWS_REGION": "x"}
    kept = {"PATH": "/mine", "PYTHONPATH": "/mine", "SPARK_HOME": "/mine", "UNDERSTUDY_IMAGE_TRAIN": "i", "SECRET": "s"}
    environment = container_arguments(lake, root, {**passed, **kept})["environment"]
    assert environment.items() >= passed.items()
    assert not environment.keys() & kept.keys()


def test_it_has_a_network_only_where_something_lies_there(lake: Lake, root: Path) -> None:
    arguments = container_arguments(lake, root, {"UNDERSTUDY_REDIS_URL": "redis://localhost"})
    assert arguments["network_mode"] == "host"
    assert "hostname" not in arguments


def test_a_lake_in_an_object_store_is_not_mounted(root: Path) -> None:
    arguments = container_arguments(Lake("s3://bucket/lake"), root, {})
    assert [mount["Target"] for mount in arguments["mounts"]] == ["/etc/passwd"]
    assert arguments["network_mode"] == "host"


def test_the_pipeline_names_the_image_of_each_role_that_has_steps(config: Config) -> None:
    assert [name.split(":")[0] for name in images_of(retraining(config))] == [
        f"understudy/{role}-python" for role in ("spark", "tools", "train")
    ]


def said(config: Config, lake: Lake, root: Path) -> str:
    with pytest.raises(BadInput) as raised, docker_steps(retraining(config), lake, root, lambda _: None):
        pytest.fail("it began")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_no_engine(config: Config, lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    text = said(config, lake, root)
    assert text.startswith(f"--runner docker: expected a Docker engine at unix://{tmp_path}/nothing.sock, found: ")
    assert "DOCKER_HOST" in text


class Engine:
    """An engine with some images, whose containers end as they are told."""

    def __init__(self, images: set[str], ends: Any = None) -> None:
        self.known, self.ends, self.pulled = images, ends, list[str]()
        self.images = self.containers = self

    def get(self, image: str) -> None:
        if image not in self.known:
            raise docker.errors.ImageNotFound(image)

    def pull(self, image: str) -> None:
        self.pulled.append(image)
        raise docker.errors.APIError("denied")

    def info(self) -> dict[str, Any]:
        return {}

    def run(self, *_: Any, **__: Any) -> None:
        if self.ends:
            raise self.ends

    def close(self) -> None:
        pass


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, config: Config) -> Engine:
    monkeypatch.setenv("DOCKER_HOST", "unix:///engine.sock")
    known = Engine(set(images_of(retraining(config))))
    monkeypatch.setattr(docker, "from_env", lambda: known)
    return known


def test_an_image_of_ours_that_was_not_built_is_never_fetched(
    config: Config, lake: Lake, root: Path, engine: Engine
) -> None:
    engine.known = {name for name in engine.known if "train" not in name}
    text = said(config, lake, root)
    assert "train-python:" in text
    assert "expected it in the engine at unix:///engine.sock, found none; build it with `make images`" in text
    assert engine.pulled == []


def test_an_image_that_somebody_named_is_fetched(
    config: Config, lake: Lake, root: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.docker_runner.images_of", lambda _: ["registry.example/tools@sha256:1"])
    assert "or at its registry, found: denied" in said(config, lake, root)
    assert engine.pulled == ["registry.example/tools@sha256:1"]


def test_a_lake_that_containers_cannot_write(config: Config, lake: Lake, root: Path, engine: Engine) -> None:
    engine.ends = docker.errors.ContainerError(None, 1, "sh", "image", b"sh: cannot create: Permission denied\n")
    text = said(config, lake, root)
    assert text.startswith(f"lake {lake.root}: expected containers of the engine at unix:///engine.sock to read and")
    assert "found: sh: cannot create: Permission denied; keep it on the engine's machine" in text


def test_an_engine_on_another_machine(config: Config, lake: Lake, root: Path, engine: Engine) -> None:
    assert "found: another machine's folders" in said(config, lake, root)


class Container:
    """A container that writes, and then ends with a code; None: it is gone by then."""

    def __init__(self, code: int | None) -> None:
        self.code, self.removed = code, 0

    def logs(self, stream: bool) -> list[bytes]:
        assert stream
        return [b"reading\n", "caf\u00e9".encode()[:-1], b"\n"]

    def wait(self) -> dict[str, int]:
        if self.code is None:
            raise docker.errors.NotFound("gone")
        return {"StatusCode": self.code}

    def remove(self, force: bool) -> None:
        assert force
        self.removed += 1


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, None),
        (1, "ended with exit code 1; its last line: caf\ufffd"),
        (137, "was killed by SIGKILL (exit code 137), as it is where memory runs out; its last line: caf\ufffd"),
        (None, "vanished, with its exit code; its last line: caf\ufffd"),
    ],
)
def test_a_container_that_does_not_end_well_is_told_and_removed(code: int | None, said: str | None) -> None:
    container = Container(code)
    client = SimpleNamespace(containers=SimpleNamespace(run=lambda *_, **__: container))
    kfp = SimpleNamespace(run=None)
    ends: list[End] = []
    command = ["sh", "-c", "…", "--function_to_execute", "train_ranker"]
    with watched(kfp, "run", run_container, ends.append):
        ended = kfp.run(client=client, image="i", command=command, volumes={}, user="1")
    assert (ended == 0, container.removed) == (code == 0, 1)
    assert [(one.step, said in one.said()) for one in ends] == ([] if said is None else [("train_ranker", True)])
    assert kfp.run is None


def test_kfp_has_what_is_watched() -> None:
    """They are no part of kfp's public API: another version may name them otherwise."""
    from kfp.local import docker_task_handler, subprocess_task_handler

    asked = inspect.signature(docker_task_handler.run_docker_container).parameters
    assert list(asked)[:4] == ["client", "image", "command", "volumes"]
    assert "full_command" in inspect.signature(subprocess_task_handler.run_local_subprocess).parameters
