"""A command ends when it is asked to, also as process 1 of a container, and a driver that hangs is found."""

import contextlib
import functools
import itertools
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import NAMESPACE, running
from plain_releases import produce, release
from waiting import eventually

from understudy.cli.ending import ASKED
from understudy.kubernetes_api import _TIMEOUT_S, _TRIES, Unreachable
from understudy.lake import Lake
from understudy.rollout.cluster.operator import Operator
from understudy.rollout.config import Rollout
from understudy.rollout.driver import Driver
from understudy.rollout.record import Rollouts
from understudy.rollout.state import State

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = str(ROOT / "examples" / "generated.yaml")
DRIVER = ROOT / "manifests" / "base" / "rollout" / "deployment.yaml"
SOON_S = 2.0
Process = subprocess.Popen[str]


@functools.cache
def as_process_1() -> list[str] | None:
    """What makes a command process 1 of a PID namespace; None where this machine does not allow it."""
    for more in ([], ["--user", "--map-root-user"]):
        command = ["unshare", *more, "--pid", "--fork", "--kill-child"]
        with contextlib.suppress(OSError):
            if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
                return command
    return None


@pytest.fixture(params=["any process", "process 1"])
def begin(request: pytest.FixtureRequest) -> Iterator[Callable[..., Process]]:
    """Begin a command of Python, as an ordinary process and as process 1."""
    before = as_process_1() if request.param == "process 1" else []
    if before is None:
        pytest.skip("needs a PID namespace of its own")
    with contextlib.ExitStack() as stack:

        def begun(*arguments: str, **environment: str) -> Process:
            process = subprocess.Popen(
                [*before, sys.executable, *arguments],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield begun


def python_of(process: Process) -> int:
    """The id of the Python process, which is the child of `unshare` where there is one."""
    if "unshare" not in str(process.args):
        return process.pid
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    eventually(children.read_text, process=process)
    return int(children.read_text().split()[0])


def ended(process: Process, by: int = signal.SIGTERM) -> tuple[int, str, float]:
    """Ask it to end; its exit code, the rest of what it said, and the seconds that it took."""
    started = time.monotonic()
    os.kill(python_of(process), by)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said, time.monotonic() - started


def line_of(process: Process, text: str) -> None:
    """Wait until it says so."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    raise AssertionError("".join(lines))


@contextlib.contextmanager
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """A server that takes requests and never answers; whether one has come."""
    asked, taken = threading.Event(), []
    listening = socket.create_server(("127.0.0.1", 0))

    def take() -> None:
        with contextlib.suppress(OSError):
            while True:
                taken.append(listening.accept()[0])
                taken[-1].recv(1)
                asked.set()

    threading.Thread(target=take, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
    finally:
        for one in (listening, *taken):
            one.close()


def kubeconfig(folder: Path, url: str) -> str:
    path = folder / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "one", "cluster": {"server": url}}],
                "users": [{"name": "one", "user": {"token": "none"}}],
                "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one", "namespace": NAMESPACE}}],
                "current-context": "one",
            }
        )
    )
    return str(path)


def operate(folder: Path) -> list[str]:
    """The driver's command, with the heartbeat of its manifest in a folder."""
    given = ["--config", CONFIG, "--lake", str(folder / "lake"), "--heartbeat", str(folder / "heartbeat")]
    return ["-m", "understudy.cli", "rollout", "operate", *given]


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_the_driver_ends_in_the_middle_of_a_tick(tmp_path: Path, begin: Callable[..., Process], by: int) -> None:
    with silent_server() as (url, asked):
        process = begin(*operate(tmp_path), KUBECONFIG=kubeconfig(tmp_path, url))
        line_of(process, f"driver: namespace {NAMESPACE}")
        assert asked.wait(20)
        code, said, took_s = ended(process, by)
    assert (code, said) == (0, f"driver: asked to end by {signal.Signals(by).name}\n")
    assert took_s < SOON_S


BUSY = {
    "asleep": "time.sleep(60)",
    "in Python": "while True: pass",
    "in a query": "duckdb.sql('select sum(a.range * b.range % 7) from range(1000000) a, range(1000000) b').fetchall()",
    "in a call of C": "hashlib.pbkdf2_hmac('sha256', b'', b'', 100_000_000)",
    "where nothing may be raised": "weakref.finalize(Short(), lambda: time.sleep(60))",
}


@pytest.mark.parametrize("busy", BUSY)
def test_a_process_that_may_be_cut_ends_whatever_it_does(begin: Callable[..., Process], busy: str) -> None:
    code = (
        "import duckdb, hashlib, sys, time, weakref\n"
        "from understudy.cli.ending import end_at_once\n"
        "class Short: pass\n"
        "end_at_once('it')\n"
        "print('begun', file=sys.stderr, flush=True)\n"
    )
    process = begin("-c", code + BUSY[busy])
    line_of(process, "begun")
    time.sleep(0.5)
    code_, said, took_s = ended(process)
    assert (code_, said) == (0, "it: asked to end by SIGTERM\n")
    assert took_s < SOON_S


def on(lake: Path) -> None:
    """A rollout that is on."""
    Rollouts(Lake.open_or_create(str(lake))).begin(State.begin("r", "candidate", "stable", time.time()), "it begins")


def test_another_command_stops_as_by_ctrl_c(tmp_path: Path, begin: Callable[..., Process]) -> None:
    on(tmp_path)
    process = begin("-m", "understudy.cli", "rollout", "watch", "--lake", str(tmp_path), "--every", "3600")
    line_of(process, "it begins")
    code, said, took_s = ended(process)
    assert code == ASKED == 143
    assert said.split() == ["stopped;", "give", "the", "same", "command", "again", "to", "go", "on"]
    assert took_s < SOON_S


def test_what_a_command_has_begun_is_closed(begin: Callable[..., Process]) -> None:
    """Also where a second signal comes while it is closed."""
    code = (
        "import os, signal, sys, time\n"
        "import click\n"
        "from understudy.cli import main as module\n"
        "from understudy.cli.main import cli, main\n"
        "@click.command()\n"
        "def waits():\n"
        "    try:\n"
        "        print('begun', file=sys.stderr, flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        print('closed', file=sys.stderr, flush=True)\n"
        "cli.get_command = lambda *_: waits\n"
        "main(['waits'])\n"
    )
    process = begin("-c", code)
    line_of(process, "begun")
    returned, said, took_s = ended(process)
    assert returned == ASKED
    assert said.split("\n")[0] == "closed"
    assert took_s < SOON_S


SERVERS = """
import contextlib, pathlib, sys, time
import click
from understudy.cli.main import cli, main
from understudy.experiments import ramp
from understudy.lake import Lake
from understudy.rollout import local

folder = pathlib.Path(sys.argv[1])
local.sys.executable = str(folder / "server")

@click.command()
def waits():
    with contextlib.closing(local.LocalServers(Lake.open_or_create(str(folder / "lake")))) as servers:
        servers.apply(ramp("", 0, 0), {"stable": "0123456789ab"})
        click.echo("serves")
        time.sleep(60)

cli.get_command = lambda *_: waits
main(["waits"])
"""


@pytest.mark.parametrize("serves", [True, False], ids=["serving", "beginning"])
def test_a_driver_on_this_machine_takes_its_servers_with_it(
    tmp_path: Path, begin: Callable[..., Process], serves: bool
) -> None:
    server, life = tmp_path / "server", tmp_path / "life"
    os.mkfifo(life)
    said = """http://127.0.0.1:1 {"event":"on_stage"}""" if serves else "begins"
    server.write_text(f"#!/bin/sh\necho '{said}' >&2\nexec sleep 3600 >{life}\n")
    server.chmod(0o755)
    process = begin("-c", SERVERS, str(tmp_path))
    if serves:
        line_of(process, "serves")
    with life.open() as reading:  # the server has begun
        time.sleep(0.5)
        code, _, took_s = ended(process)
        assert select.select([reading], [], [], 5)[0], "the server lives on"
        assert reading.read() == ""
    assert code == ASKED
    assert took_s < SOON_S


# The probe


def container() -> dict[str, Any]:
    spec = yaml.safe_load(DRIVER.read_text())["spec"]["template"]["spec"]
    found: dict[str, Any] = spec["containers"][0]
    return found


def passes(heartbeat: Path) -> bool:
    """Whether the manifest's liveness probe passes on a file in place of the pod's."""
    (named,) = [one.partition("=")[2] for one in container()["args"] if one.startswith("--heartbeat=")]
    command = container()["livenessProbe"]["exec"]["command"]
    assert named in command[-1]
    told = [one.replace(named, shlex.quote(str(heartbeat))) for one in command]
    return subprocess.run(told, capture_output=True, check=False).returncode == 0


def backdate(heartbeat: Path) -> None:
    then = time.time() - 301
    os.utime(heartbeat, (then, then))


def until(found: Callable[[], bool], limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while not found():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def test_a_loop_that_turns_passes_the_probe_and_one_that_hangs_fails_it(tmp_path: Path) -> None:
    lake, heartbeat = Lake.open_or_create(str(tmp_path / "lake")), tmp_path / "heartbeat"
    produce(lake, release(lake, "first"))
    assert not passes(heartbeat)
    with running() as (cluster, url):
        cluster.put("configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "understudy-rollout"}})
        environment = {**os.environ, "KUBECONFIG": kubeconfig(tmp_path, url)}
        with subprocess.Popen([sys.executable, *operate(tmp_path)], cwd=ROOT, env=environment) as process:
            try:
                assert until(lambda: passes(heartbeat), 30)
                for _ in range(2):
                    backdate(heartbeat)
                    assert not passes(heartbeat)
                    assert until(lambda: passes(heartbeat), 30)
                hanging = tmp_path / "lake" / "releases" / "aliases" / "99999999.json"
                os.mkfifo(hanging)  # whoever opens it waits for a writer that never comes
                calls = -1
                while calls != len(cluster.calls):
                    calls = len(cluster.calls)
                    time.sleep(8)
                assert process.poll() is None
                backdate(heartbeat)
                assert not until(lambda: passes(heartbeat), 8)
            finally:
                process.terminate()
            assert process.wait(SOON_S) == 0  # as the kubelet asks for it


def old_s() -> float:
    """The age at which the probe calls a heartbeat old."""
    words = container()["livenessProbe"]["exec"]["command"][-1].split()
    return 60 * -float(words[words.index("-mmin") + 1].rstrip(')"'))


class Away:
    """A record behind an API server that is away: each call takes all its tries, and fails."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*_: Any) -> Any:
            self.now_s += _TRIES * sum(_TIMEOUT_S)
            raise Unreachable(f"{name}: no answer")

        return call


@pytest.mark.parametrize("is_on", [False, True], ids=["between rollouts", "in a rollout"])
def test_a_driver_whose_api_server_is_away_is_left_alone(tmp_path: Path, is_on: bool) -> None:
    record: Any = Away()
    if is_on:
        record.last = lambda: State.begin("r", "candidate", "stable", 0.0)
    beats: list[float] = []
    lake = Lake.open_or_create(str(tmp_path))
    driver = Driver(
        lake, record, Rollout(), ("click",), record, record, lambda _: None,
        clock=lambda: record.now_s, sleep=record.sleep, beat=lambda: beats.append(record.now_s),
    )  # fmt: skip
    Operator(driver, record).run(until=lambda: record.now_s > 7200, sleep=record.sleep)
    assert len(beats) > 20
    assert max(after - before for before, after in itertools.pairwise(beats)) < old_s() / 2


def test_a_loop_that_hangs_is_ended_within_minutes() -> None:
    probe = container()["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] + old_s() <= 400


def test_a_heartbeat_that_cannot_be_written_is_said_before_it_begins(tmp_path: Path) -> None:
    given = [*operate(tmp_path)[:-1], str(tmp_path / "none" / "heartbeat")]
    done = subprocess.run([sys.executable, *given], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --heartbeat {given[-1]}: expected a file to write, found: No such file")
    assert len(done.stderr.splitlines()) == 1
