"""The Spark that the steps of a run share: reachable with its token alone, and gone with its caller."""

import os
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from waiting import eventually

from understudy.spark_server import serving

COUNT = "from understudy import spark; print(spark.session().range(7).count())"


def _count(**environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", COUNT]
    environment = {**os.environ, **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def _gone(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_children_share_one_spark_that_wants_its_token_and_ends_with_the_caller(monkeypatch: pytest.MonkeyPatch):
    for name in ("SPARK_REMOTE", "SPARK_MASTER"):
        monkeypatch.delenv(name, raising=False)
    with serving():
        first = _count()
        assert first.stdout.strip() == "7", first.stderr
        remote = os.environ["SPARK_REMOTE"]
        with serving():
            assert os.environ["SPARK_REMOTE"] == remote, "one within another is the same one"
        assert os.environ["SPARK_REMOTE"] == remote
        refused = _count(SPARK_CONNECT_AUTHENTICATE_TOKEN="another")
        assert refused.returncode != 0
        assert "UNAUTHENTICATED" in refused.stderr.upper()
        port = urlsplit(remote).port
        assert port is not None
    assert "SPARK_REMOTE" not in os.environ
    eventually(lambda: _gone(port))


def test_a_caller_that_uses_its_own_server_ends_at_once():
    code = f"from understudy.spark_server import serving\nwith serving():\n    {COUNT}"
    environment = {name: value for name, value in os.environ.items() if name not in ("SPARK_REMOTE", "SPARK_MASTER")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=180, check=True
    )
    assert done.stdout.strip() == "7"
    assert "RETRIES" not in done.stderr


def test_a_spark_that_is_named_already_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPARK_MASTER", "local[1]")
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    with serving():
        assert "SPARK_REMOTE" not in os.environ


def test_the_server_goes_with_a_caller_that_is_killed():
    code = (
        "import os, time\n"
        "from understudy.spark_server import serving\n"
        "with serving():\n    print(os.environ['SPARK_REMOTE'], flush=True); time.sleep(600)"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("SPARK_REMOTE", "SPARK_MASTER")}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        port = urlsplit(caller.stdout.readline().strip()).port
        caller.kill()
    assert port is not None
    eventually(lambda: _gone(port))


def _server_of(caller: int) -> int:
    command = ["pgrep", "-P", str(caller), "-f", "understudy.spark_server"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0])


@pytest.mark.slow
def test_a_killed_server_ends_the_step_that_uses_it_and_the_next_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
):
    for name in ("SPARK_REMOTE", "SPARK_MASTER"):
        monkeypatch.delenv(name, raising=False)
    under_way = (
        "import sys\nfrom understudy import spark\nsession = spark.session()\n"
        "print(session.range(7).count(), flush=True)\nsys.stdin.readline()\nsession.range(7).count()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with serving(), subprocess.Popen([sys.executable, "-c", under_way], **pipes) as step:  # type: ignore[call-overload]
        assert step.stdout.readline().strip() == "7"
        server = _server_of(os.getpid())
        subprocess.run(["pkill", "-KILL", "-P", str(server)], check=False)  # its JVM
        os.kill(server, signal.SIGKILL)
        _, said = step.communicate("go\n", timeout=120)  # Spark's own patience would be ten minutes
        assert step.returncode != 0
        assert "UNAVAILABLE" in said.upper() or "RETRIES" in said.upper()
        done = _count()
        assert done.stdout.strip() == "7", done.stderr
        assert "the server of this command is gone" in done.stderr
