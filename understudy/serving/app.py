"""The rank server's HTTP service: its routes, its start, what it takes up while it runs, its end."""

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import FrameType

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from understudy import __version__
from understudy.errors import first_line
from understudy.http_requests import Refusal, as_json, refused
from understudy.serving import protocol, tensors
from understudy.serving.answering import Answering
from understudy.serving.config import Serving
from understudy.serving.desk import Desk
from understudy.serving.following import Following
from understudy.serving.log import say
from understudy.serving.metrics import Metrics
from understudy.serving.online import Kept
from understudy.serving.openapi import described
from understudy.serving.ranker import Stage
from understudy.serving.reports import Reporter

__all__ = ["Options", "rank_server"]


@dataclass(frozen=True)
class Options:
    """How one process serves.

    Args:
        token: of the clients; never logged.
        collector: URL that served slates are told to; None: nobody. Its token is ``collector_token``.
        look_s: between two looks for a newer release and newer features.
        log_requests: a line for each request, not only for those that failed.
        arm: of a rollout, that served slates are told to be of.
        drain_s: on SIGTERM, how long requests are still taken while the server says that it is not ready.
        replay: a request may say what time it is, in the header ``x-understudy-now``.
        clock: seconds since 1970.
    """

    token: str
    collector: str | None = None
    collector_token: str = ""
    look_s: float = 2.0
    log_requests: bool = True
    arm: str | None = None
    drain_s: float = 0.0
    replay: bool = False
    clock: Callable[[], float] = time.time


def rank_server(following: Following, options: Options) -> Starlette:
    """The ASGI application of one worker process."""
    server = _Server(following, options)
    model = f"/v2/models/{protocol.MODEL}"
    routes = [
        Route("/v1/rank", server.answering.rank, methods=["POST"]),
        Route("/v2", server.about),
        Route("/v2/health/live", server.live),
        Route("/v2/health/ready", server.ready),
        Route(model, server.about_model),
        Route(f"{model}/ready", server.ready_model),
        Route(f"{model}/infer", server.answering.infer, methods=["POST"]),
        Route(f"{model}/versions/{{version}}", server.about_model),
        Route(f"{model}/versions/{{version}}/ready", server.ready_model),
        Route(f"{model}/versions/{{version}}/infer", server.answering.infer, methods=["POST"]),
        Route("/metrics", server.report),
        Route("/openapi.json", server.openapi),
    ]
    app = Starlette(routes=routes, lifespan=server.lifespan, exception_handlers={HTTPException: _not_here})
    app.router.redirect_slashes = False
    return app


class _Server:
    def __init__(self, following: Following, options: Options) -> None:
        self.following, self.options = following, options
        self.metrics = Metrics()
        self.answering = Answering(following, self.metrics, options.token, options.clock, options.log_requests)
        self.answering.arm, self.answering.is_replay = options.arm, options.replay
        # Threads that ONNX Runtime starts there would give way too.
        self.give_way = _give_way if following.threads == 1 else None
        self.is_ready = False
        self.failed = ""  # why the last look failed
        self.description: tuple[Serving | None, bytes] = None, b""

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        answering = self.answering
        answering.on_stage = self.following.stage, self._store()
        self.looking = concurrent.futures.ThreadPoolExecutor(1, "look", initializer=self.give_way)
        answering.desk = Desk(*_budget(answering.on_stage[0]))
        if self.options.collector is not None:
            told, lost = (self.metrics.context.labels(outcome).inc for outcome in ("told", "lost"))
            answering.reporter = Reporter(self.options.collector, self.options.collector_token, told, lost)
        self._told()
        looking = asyncio.create_task(self._look_often())
        self.is_ready = True
        self._drain_at_the_end()
        yield
        self.is_ready = False
        looking.cancel()
        self.looking.shutdown(wait=False)
        await asyncio.to_thread(answering.desk.close)
        answering.on_stage[1].close()
        if answering.reporter is not None:
            await asyncio.to_thread(answering.reporter.close)
        self.metrics.end()

    async def _look_often(self) -> None:
        while True:
            await asyncio.sleep(self.options.look_s)
            try:
                await asyncio.get_running_loop().run_in_executor(self.looking, self.following.look)
                self.failed = ""
            except Exception as error:  # whatever it is, the stage that stands goes on
                self._look_failed(error)
            if self.following.stage is not self.answering.on_stage[0]:  # also where half of what is new failed
                self._exchange()
            self.metrics.staleness.set(self.following.age_s())

    def _drain_at_the_end(self) -> None:
        """Between the signal and uvicorn's end, balancers learn that this server is not ready."""
        end = signal.getsignal(signal.SIGTERM)
        if not callable(end) or threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()

        def drain(number: int, frame: FrameType | None) -> None:
            self.is_ready, self.answering.is_ending = False, True
            loop.call_soon_threadsafe(loop.call_later, self.options.drain_s, end, number, frame)

        signal.signal(signal.SIGTERM, drain)

    def _look_failed(self, error: Exception) -> None:
        self.metrics.reloads.labels("failed").inc()
        if str(error) != self.failed:
            say("reload_failed", reason=first_line(error))
        self.failed = str(error)

    def _exchange(self) -> None:
        """Requests whose turn comes from now on meet the new stage."""
        stage, (before, store) = self.following.stage, self.answering.on_stage
        self.answering.on_stage = stage, self._store()  # its file may be another one as well
        self.answering.desk.pool.submit(store.close)  # after what waits
        if before.model is not stage.model:
            self.metrics.release.labels(before.model.digest).set(0)
        self.answering.desk.budget_s, self.answering.desk.queue = _budget(stage)
        self.metrics.reloads.labels("done").inc()
        self._told()

    def _store(self) -> Kept:
        def count(outcome: str, rows: int) -> None:
            self.metrics.rows.labels(outcome).inc(rows)

        return Kept(self.following.store(), self.following.stage.model.config.kept_rows, count)

    def _told(self) -> None:
        stage, _ = self.answering.on_stage
        self.metrics.on_stage(stage.model.digest, stage.model.heads)
        self.metrics.staleness.set(self.following.age_s())
        say("on_stage", release=stage.model.digest, items=stage.items.name, known_items=len(stage.items.ids))

    async def live(self, _: Request) -> Response:
        return as_json(protocol.Live(True))

    async def ready(self, _: Request) -> Response:
        return as_json(protocol.Ready(self.is_ready), 200 if self.is_ready else 503)

    async def ready_model(self, request: Request) -> Response:
        if (other := self.answering.another_version(request)) is not None:
            return refused(other)
        return as_json(protocol.ReadyModel(protocol.MODEL, self.is_ready), 200 if self.is_ready else 503)

    async def about(self, _: Request) -> Response:
        return as_json(protocol.About("understudy", __version__, ["binary_tensor_data"]))

    async def about_model(self, request: Request) -> Response:
        if (other := self.answering.another_version(request)) is not None:
            return refused(other)
        model = self.answering.on_stage[0].model
        return as_json(tensors.described(model.digest, model.heads))

    async def report(self, _: Request) -> Response:
        return Response(await asyncio.to_thread(self.metrics.text), media_type="text/plain; version=0.0.4")

    async def openapi(self, _: Request) -> Response:
        config = self.answering.config
        if self.description[0] is not config:
            self.description = config, msgspec.json.encode(described(config))
        return as_json(self.description[1])


async def _not_here(request: Request, error: Exception) -> Response:
    """Another path, or another method than it has."""
    assert isinstance(error, HTTPException)
    reason = f"{request.method} {request.url.path}: expected a path and method of /openapi.json"
    return refused(Refusal(error.status_code, reason, dict(error.headers or {})))


def _give_way() -> None:
    """This thread loads while others answer."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def _budget(stage: Stage) -> tuple[float, int]:
    """Seconds that a request may take, and requests that may wait."""
    return stage.model.config.budget_ms / 1000, stage.model.config.queue
