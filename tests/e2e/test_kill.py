"""Killed at any moment, the same command ends with the same release, and repeats nothing that is committed."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import CLI, ROOT

from pipelines.retraining import STEPS

CONFIG = str(ROOT / "examples" / "generated.yaml")
Process = subprocess.Popen[bytes]


def run_command(lake: Path) -> list[str]:
    return [*CLI, "run", "--config", CONFIG, "--lake", str(lake), "--window-end", "2022-04-30", "--json"]


def result_of(lake: Path) -> dict[str, Any]:
    done = subprocess.run(run_command(lake), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill")
    logs, lake = str(folder / "logs"), folder / "lake"
    for command in (
        ["generate", "--out", logs, "--rows", "12000"],
        ["ingest", "--config", CONFIG, "--source", logs, "--lake", str(lake)],
    ):
        subprocess.run([*CLI, *command], cwd=ROOT, check=True, capture_output=True)
    return lake


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ingested: Path) -> str:
    """The release of a run that nobody killed."""
    lake = tmp_path_factory.mktemp("undisturbed") / "lake"
    shutil.copytree(ingested, lake)
    return str(result_of(lake)["digest"])


def everything(process: Process) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def the_run_alone(process: Process) -> None:
    """Its step lives on."""
    process.kill()


def the_step_alone(process: Process) -> None:
    for pid in descendants(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """The step's shell, its Python and its Spark."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    below = [int(one) for one in found.stdout.split()]
    return [*below, *(further for one in below for further in descendants(one))]


def begun(lake: Path, step: str) -> bool:
    """The step's attempt has appeared; of every second step, its manifest."""
    sign = ("attempt-*", "manifest.json")[list(STEPS).index(step) % 2]
    return any(lake.glob(f"runs/*/steps/{step}/{sign}"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kill", [everything, the_run_alone, the_step_alone])
def test_killed_in_every_step_it_ends_with_the_same_release(
    tmp_path: Path, ingested: Path, undisturbed: str, kill: Callable[[Process], None]
) -> None:
    lake = tmp_path / "lake"
    shutil.copytree(ingested, lake)
    killed = 0
    for step in STEPS:
        before = manifests(lake)
        with subprocess.Popen(
            run_command(lake), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        ) as process:
            while process.poll() is None and not begun(lake, step):
                time.sleep(0.01)
            if process.poll() is None:
                kill(process)
                killed += 1
            process.communicate()
        assert process.returncode in (0, 1, -signal.SIGKILL)
        assert_kept(lake, before)
    before = manifests(lake)
    assert result_of(lake)["digest"] == undisturbed
    assert_kept(lake, before)
    assert killed >= len(STEPS) // 2
    assert_whole(lake)


def manifests(lake: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in lake.glob("runs/*/steps/*/manifest.json")}


def assert_kept(lake: Path, before: dict[Path, bytes]) -> None:
    """What was committed is as it was."""
    after = manifests(lake)
    assert {path: after.get(path) for path in before} == before


def assert_whole(lake: Path) -> None:
    """Every table and file is what its manifest says, nothing else lies beside them, and the page is the last one."""
    (run,) = (lake / "runs").iterdir()
    assert {path.parent.name for path in manifests(lake)} == set(STEPS)
    for path in manifests(lake):
        manifest = json.loads(path.read_text())
        assert {one.name for one in path.parent.glob("attempt-*")} <= {Path(manifest["attempt"]).name}
        for file, digest in files_of(lake, manifest):
            assert hashlib.sha256(file.read_bytes()).hexdigest() == digest, file
    assert "is production" in (run / "report.html").read_text()


def files_of(lake: Path, manifest: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    for table in manifest["tables"].values():
        for file in table["files"]:
            yield lake / table["path"] / file["name"], file["sha256"]
    for file in manifest["files"].values():
        yield lake / file["path"], file["sha256"]
