"""One warm Spark for all steps of a run on this machine: a Spark Connect server that ends with its caller.

On small data a step's time is the start of a JVM and its first, cold queries. Behind one server that is
paid once per command. It listens on loopback only, and to those who know its token; on a cluster, each
step has a Spark of its own or the one that ``SPARK_REMOTE`` names.
"""

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator

from understudy.spark_settings import OURS

__all__ = ["serving"]

_REMOTE, _TOKEN = "SPARK_REMOTE", "SPARK_CONNECT_AUTHENTICATE_TOKEN"


@contextlib.contextmanager
def serving() -> Iterator[None]:
    """Have ``understudy.spark.session`` in this process's children use one server.

    Where the environment names a Spark already, or within another ``serving``, nothing changes.
    """
    if {_REMOTE, "SPARK_MASTER"} & set(os.environ):
        yield
        return
    token = secrets.token_hex(16)
    with subprocess.Popen(
        [sys.executable, "-m", "understudy.spark_server"],
        env={**os.environ, _TOKEN: token},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as server:
        assert server.stdin, "a pipe"
        assert server.stdout, "a pipe"
        try:
            port = server.stdout.readline().decode().strip()
            if port:  # else it could not start, and the step that needs Spark says why
                os.environ |= {_REMOTE: f"sc://localhost:{port}", _TOKEN: token, OURS: port}
            yield
        finally:
            if "understudy.spark" in sys.modules:  # this process was a client of its own server
                sys.modules["understudy.spark"].close()
            for name in (_REMOTE, _TOKEN, OURS):
                os.environ.pop(name, None)
            server.stdin.close()
            server.kill()


def _main() -> None:
    """Serve until standard input ends: a caller that is killed takes its server along."""
    from understudy import spark

    port = spark.connect_server()
    print(port, flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    _main()
