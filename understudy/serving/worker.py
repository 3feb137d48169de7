"""One worker process, and the supervisor of several."""

import gc
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

__all__ = ["Settings", "application", "serve"]

_SETTINGS = "UNDERSTUDY_SERVE_SETTINGS"
_METRICS = "PROMETHEUS_MULTIPROC_DIR"


class Settings(Struct):
    """What a worker process is told by its parent, in its environment; secrets have variables of their own.

    Args:
        token, collector_token: names of the variables that hold them.
        fetched: folder with a copy of the release.
        copies: folder for copies of item snapshots.
        threads: of one request.
    """

    lake: str
    release: str
    fetched: str | None
    copies: str
    token: str
    collector: str | None
    collector_token: str
    redis: str
    threads: int
    arm: str | None
    drain_s: float
    log_requests: bool
    replay: bool


def application() -> Any:
    """The ASGI application, as the environment describes it; uvicorn's worker processes call this."""
    from understudy.serving.app import Options, rank_server
    from understudy.serving.following import Following

    settings = msgspec.json.decode(os.environ[_SETTINGS], type=Settings)
    redis_url = os.environ.get(settings.redis)
    following = Following(
        settings.lake, settings.release, redis_url, settings.threads, settings.fetched, settings.copies
    )
    options = Options(
        token=os.environ[settings.token],
        collector=settings.collector,
        collector_token=os.environ.get(settings.collector_token, ""),
        log_requests=settings.log_requests,
        arm=settings.arm,
        drain_s=settings.drain_s,
        replay=settings.replay,
    )
    # The event loop takes its turn from the ranking thread sooner; what lives now lives to the end.
    sys.setswitchinterval(0.001)
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    return rank_server(following, options)


def serve(settings: Settings, listening: socket.socket, workers: int, begin: Callable[[], None]) -> None:
    """Serve until a signal says otherwise.

    Args:
        listening: a bound socket, which the workers share.
        begin: is called when nothing stands in the way any more.
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    os.environ.pop(_METRICS, None)  # one that was inherited belongs to another server; importing Feast sets it
    os.environ[_SETTINGS] = msgspec.json.encode(settings).decode()
    config = uvicorn.Config(
        application() if workers == 1 else f"{__name__}:application",
        factory=workers > 1,
        http="understudy.serving.protocol:Guarded",  # type: ignore[arg-type]  # a name, or it can't reach a worker
        ws="none",
        log_level="error",
        access_log=False,
        timeout_keep_alive=65,  # longer than balancers keep what they do not use
        timeout_graceful_shutdown=10,
        workers=workers,
    )
    begin()
    if workers == 1:
        uvicorn.Server(config).run(sockets=[listening])
        return

    class Workers(Multiprocess):
        """Its own copy of the socket would go on listening when no worker does."""

        def terminate_all(self) -> None:
            super().terminate_all()
            listening.close()

    with _shared_metrics():
        Workers(config, sockets=[listening]).run()


@contextmanager
def _shared_metrics() -> Iterator[None]:
    """A folder where the workers' counters lie, as long as this server lives."""
    folder = Path(tempfile.mkdtemp(prefix="understudy-metrics-"))
    os.environ[_METRICS] = str(folder)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
