"""The loop in containers: each step in its role's image, on a real engine. Needs one, and `make images`."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import CLI, ROOT, understudy
from waiting import eventually

from understudy import __version__

docker = pytest.importorskip("docker", reason="needs Python's package docker")

ROLES = ("spark", "tools", "train", "serve")
CONFIG = str(ROOT / "examples" / "generated.yaml")
WINDOW_END = "2022-04-30"
MOST_BYTES = {"serve": 400e6, "tools": 1.5e9, "spark": 1.6e9, "train": 1.5e9}
FINGERPRINT = """
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
files = sorted((root / "understudy").rglob("*.py"))
print(hashlib.sha256(b"".join(str(one.relative_to(root)).encode() + one.read_bytes() for one in files)).hexdigest())
"""
BARE = {"read_only": True, "tmpfs": {"/tmp": "exec"}, "cap_drop": ["ALL"], "network_mode": "none", "remove": True}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    """An engine that has the images of this code."""
    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        pytest.skip(f"needs a Docker engine: {error}")
    ours = subprocess.run([sys.executable, "-c", FINGERPRINT, ROOT], check=True, stdout=subprocess.PIPE).stdout
    with contextlib.closing(client):
        for role in ROLES:
            try:
                found = client.containers.run(name(role), ["python3", "-c", FINGERPRINT, "/app"], remove=True)
            except docker.errors.ImageNotFound:
                pytest.skip(f"needs the image {name(role)}: `make images`")
            if found != ours:
                pytest.skip(f"needs the image {name(role)} of this code: `make images`")
        yield client


def name(role: str) -> str:
    return f"understudy/{role}-python:{__version__}"


def run(lake: Path, *arguments: str) -> dict[str, Any]:
    command = ("run", "--config", CONFIG, "--lake", str(lake), "--window-end", WINDOW_END, "--json", *arguments)
    done: dict[str, Any] = json.loads(understudy(*command))
    return done


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory, engine: Any) -> tuple[Path, Path]:
    """The same logs twice."""
    folder = tmp_path_factory.mktemp("containers")
    understudy("generate", "--out", str(folder / "logs"), "--rows", "20000")
    understudy("ingest", "--config", CONFIG, "--source", str(folder / "logs"), "--lake", str(folder / "processes"))
    shutil.copytree(folder / "processes", folder / "containers")
    return folder / "processes", folder / "containers"


@pytest.fixture(scope="module")
def released(lakes: tuple[Path, Path]) -> dict[str, Any]:
    """What containers made."""
    return run(lakes[1], "--runner", "docker")


def test_containers_make_the_same_release(lakes: tuple[Path, Path], released: dict[str, Any], engine: Any) -> None:
    processes, containers = lakes
    assert released["digest"] == run(processes)["digest"]
    assert {path.stat().st_uid for path in containers.rglob("*")} == {os.getuid()}
    assert engine.containers.list(all=True, filters={"label": "dev.understudy.run"}) == []


def test_a_container_that_vanishes_is_no_success(
    lakes: tuple[Path, Path], released: dict[str, Any], engine: Any
) -> None:
    lake, steps = lakes[1], lakes[1] / "runs" / released["run"] / "steps"
    for step in ("train_ranker", "calibrate", "evaluate", "publish_release", "promote"):
        shutil.rmtree(steps / step)
    command = [*CLI, "run", "--config", CONFIG, "--lake", str(lake), "--window-end", WINDOW_END, "--runner", "docker"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while not (found := engine.containers.list(filters={"ancestor": name("train")})):
            assert process.poll() is None, "it ended before it trained"
            time.sleep(0.2)
        found[0].remove(force=True)
        _, said = process.communicate()
    assert process.returncode == 1
    assert "train_ranker: expected its process to commit the step, found that it " in said
    assert "vanished" in said or "was killed by SIGKILL" in said
    assert run(lake, "--runner", "docker")["digest"] == released["digest"]


@pytest.mark.parametrize("role", ROLES)
def test_an_image_holds_what_runs_and_no_more(role: str, engine: Any) -> None:
    assert engine.images.get(name(role)).attrs["Config"]["User"] == "10001:10001"
    script = "understudy --version && for one in gcc cc make pip pip3; do ! command -v $one || exit 9; done; id -u"
    said = engine.containers.run(name(role), ["sh", "-c", script], user="4321:4321", **BARE).decode()
    assert said.split() == ["understudy,", "version", __version__, "4321"]
    packages = engine.containers.run(name(role), ["sh", "-c", "cat /opt/venv/sbom.cdx.json; echo"], **BARE)
    listed = {one["name"].lower() for one in json.loads(packages)["components"]}
    lock = (ROOT / "requirements" / f"{role}.txt").read_text().split()
    assert {line.split("==")[0].replace("-", "_") for line in lock} <= {one.replace("-", "_") for one in listed}
    if role == "serve":
        assert not listed & {"torch", "pandas", "kfp", "pyspark", "feast"}
    assert engine.images.get(name(role)).attrs["Size"] < MOST_BYTES[role]


def test_the_rank_server_starts_from_its_image(lakes: tuple[Path, Path], released: dict[str, Any], engine: Any) -> None:
    """It checks the release and opens the features; the port stays within the container."""
    arguments = {**BARE, "remove": False, "detach": True, "user": f"{os.getuid()}:{os.getgid()}"}
    mount = docker.types.Mount("/lake", str(lakes[1]), type="bind")
    token = {"UNDERSTUDY_SERVE_TOKEN": "0123456789abcdef0123456789abcdef"}
    command = ["understudy", "serve", "--release", "production", "--lake", "/lake", "--port", "8800"]
    server = engine.containers.run(name("serve"), command, mounts=[mount], environment=token, **arguments)
    try:
        probe = (
            "import json, urllib.request as u\n"
            "head = {'Authorization': 'Bearer 0123456789abcdef0123456789abcdef'}\n"
            "body = json.dumps({'user_id': '1', 'candidates': ['3', '14'], 'context': {'surface': '1'}}).encode()\n"
            "print(u.urlopen(u.Request('http://localhost:8800/v1/rank', body, head)).read().decode())\n"
        )
        answers: list[Any] = []

        def is_answered() -> bool:
            answers.append(server.exec_run(["python3", "-c", probe]))
            return answers[-1].exit_code == 0

        eventually(is_answered, 120, told=lambda: server.logs().decode()[-2000:])
        assert json.loads(answers[-1].output)["release"] == released["digest"]
    finally:
        server.remove(force=True)
