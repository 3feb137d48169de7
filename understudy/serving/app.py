"""The rank server's HTTP service."""

import asyncio
import contextlib
import hmac
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from understudy import __version__
from understudy.errors import first_line
from understudy.section import duration_s
from understudy.serving import protocol
from understudy.serving.desk import Busy, Desk
from understudy.serving.following import Following
from understudy.serving.log import say
from understudy.serving.metrics import Metrics
from understudy.serving.online import OnlineStore
from understudy.serving.openapi import described
from understudy.serving.protocol import Invalid
from understudy.serving.ranker import Scored, Stage, rank
from understudy.serving.reports import Reporter, Slate

__all__ = ["Options", "rank_server"]

_REQUEST_ID = re.compile(protocol.REQUEST_ID)
_BODY_S = 5.0
_JSON = "application/json"
_RANK = msgspec.json.Decoder(protocol.RankRequest)
_INFER = msgspec.json.Decoder(protocol.InferRequest)


@dataclass(frozen=True)
class Options:
    """How one process serves.

    Args:
        token: of the clients; never logged.
        collector: URL that served slates are told to; None: nobody. Its token is ``collector_token``.
        look_s: between two looks for a newer release and newer features.
        log_requests: a line for each request, not only for those that failed.
        clock: seconds since 1970.
    """

    token: str
    collector: str | None = None
    collector_token: str = ""
    look_s: float = 2.0
    log_requests: bool = True
    clock: Callable[[], float] = time.time


class _Served(NamedTuple):
    """What one request was answered with."""

    scored: Scored
    stage: Stage
    body: bytes
    items: list[str]


class _Refusal(Exception):
    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.headers = status, headers


def rank_server(following: Following, options: Options) -> Starlette:
    """The ASGI application of one worker process."""
    server = _Server(following, options)
    model = f"/v2/models/{protocol.MODEL}"
    routes = [
        Route("/v1/rank", server.rank, methods=["POST"]),
        Route("/v2", server.about),
        Route("/v2/health/live", server.live),
        Route("/v2/health/ready", server.ready),
        Route(model, server.about_model),
        Route(f"{model}/ready", server.ready),
        Route(f"{model}/infer", server.infer, methods=["POST"]),
        Route("/metrics", server.report),
        Route("/openapi.json", server.openapi),
    ]
    return Starlette(routes=routes, lifespan=server.lifespan, exception_handlers={HTTPException: _not_here})


class _Server:
    store: OnlineStore
    desk: Desk
    reporter: Reporter | None = None

    def __init__(self, following: Following, options: Options) -> None:
        self.following, self.options = following, options
        self.expected = f"Bearer {options.token}".encode()
        self.metrics = Metrics()
        self.is_ready = False
        self.failed = ""  # why the last look failed

    # Start, reload, end

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        config = self.following.stage.model.config
        self.desk = Desk(config.budget_ms / 1000, config.queue)
        self.store = self.following.store()
        if self.options.collector is not None:
            told, lost = (self.metrics.context.labels(outcome).inc for outcome in ("told", "lost"))
            self.reporter = Reporter(self.options.collector, self.options.collector_token, told, lost)
        self._on_stage(None)
        looking = asyncio.create_task(self._look_often())
        self.is_ready = True
        yield
        self.is_ready = False
        looking.cancel()
        await asyncio.to_thread(self.desk.close)
        self.store.close()
        if self.reporter is not None:
            await asyncio.to_thread(self.reporter.close)
        self.metrics.end()

    async def _look_often(self) -> None:
        while True:
            await asyncio.sleep(self.options.look_s)
            before = self.following.stage
            try:
                changed = await asyncio.to_thread(self.following.look)
            except Exception as error:  # whatever it is, the stage that stands goes on
                self._look_failed(error)
                continue
            self.failed = ""
            self.metrics.staleness.set(self.following.age_s())
            if changed:
                self._on_stage(before)

    def _look_failed(self, error: Exception) -> None:
        self.metrics.reloads.labels("failed").inc()
        if str(error) != self.failed:
            say("reload_failed", reason=first_line(error))
        self.failed = str(error)

    def _on_stage(self, before: Stage | None) -> None:
        """Requests that come from now on meet the new stage; those under way end on the old one."""
        stage = self.following.stage
        config = stage.model.config
        self.desk.budget_s, self.desk.queue = config.budget_ms / 1000, config.queue
        if before is not None:
            self.metrics.reloads.labels("done").inc()
            if before.model is not stage.model:
                old, self.store = self.store, self.following.store()
                self.desk.pool.submit(old.close)  # after what waits
                self.metrics.release.labels(before.model.digest).set(0)
        self.metrics.on_stage(stage.model.digest, stage.model.heads)
        self.metrics.staleness.set(self.following.age_s())
        say("on_stage", release=stage.model.digest, items=stage.items.name, known_items=len(stage.items.ids))

    # Ranking

    async def rank(self, request: Request) -> Response:
        """Order candidates for a user."""
        return await self._answered(request, "rank", self._ranked)

    async def infer(self, request: Request) -> Response:
        """The same as tensors, in the order of the candidates."""
        return await self._answered(request, "infer", self._inferred)

    async def _answered(self, request: Request, route: str, answer: Callable[..., Any]) -> Response:
        arrived = time.perf_counter()
        given = request.headers.get("x-request-id", "")
        note: dict[str, Any] = {"request_id": given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex}
        status, reason = 500, "internal error"
        try:
            self._check_token(request)
            body = await self._body(request)
            found = await answer(body, arrived, note)
            status, reason = 200, ""
            return self._response(found, note["request_id"])
        except _Refusal as error:
            status, reason = error.status, str(error)
            return _refused(status, reason, note["request_id"], error.headers)
        except Exception as error:  # one request's fault is not another's
            say("error", request_id=note["request_id"], reason=first_line(error))
            return _refused(500, reason, note["request_id"])
        finally:
            took = time.perf_counter() - arrived
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.latency.labels(route).observe(took)
            if self.options.log_requests or (status != 200 and status != 503):
                say("request", route=route, status=status, ms=round(took * 1000, 3), **note, reason=reason)

    def _response(self, served: _Served, request_id: str) -> Response:
        return Response(served.body, media_type=_JSON, headers={"x-request-id": request_id})

    async def _ranked(self, body: bytes, arrived: float, note: dict[str, Any]) -> _Served:
        asked = _decoded(_RANK, body)
        return await self._serve(asked, arrived, note, lambda *scored: _ranking(asked, note["request_id"], *scored))

    async def _inferred(self, body: bytes, arrived: float, note: dict[str, Any]) -> _Served:
        tensors = _decoded(_INFER, body)
        try:
            asked = protocol.of_tensors(tensors)
        except Invalid as error:
            raise _Refusal(400, str(error)) from error
        return await self._serve(asked, arrived, note, lambda *scored: _tensors(tensors, asked, note, *scored))

    async def _serve(
        self, asked: protocol.RankRequest, arrived: float, note: dict[str, Any], answer: Callable[..., _Served]
    ) -> _Served:
        note["request_id"] = request_id = asked.request_id or note["request_id"]
        self._check_slate(asked)
        now_us = int(self.options.clock() * 1e6)

        def work() -> _Served:
            stage = self.following.stage
            scored = rank(
                stage,
                self.store,
                asked.user_id,
                asked.candidates,
                request_id=request_id,
                surface=asked.context.surface,
                now_us=now_us,
            )
            return answer(stage, scored)

        try:
            served: _Served = await self.desk.serve(arrived, work)
        except Busy as busy:
            self.metrics.shed.labels(busy.cause).inc()
            raise _Refusal(503, f"too busy ({busy.cause}): try again", {"Retry-After": "1"}) from busy
        self._count(served, arrived)
        note |= {"release": served.stage.model.digest[:12], "candidates": len(asked.candidates)}
        if self.reporter is not None and served.items:
            self.reporter.put(Slate(asked, request_id, now_us, served.stage.model, served.scored, served.items))
        return served

    def _check_slate(self, asked: protocol.RankRequest) -> None:
        most, count = self.following.stage.model.config.max_candidates, len(asked.candidates)
        if count > most:
            raise _Refusal(400, f"candidates: expected at most {most}, found {count}")
        if len(set(asked.candidates)) < count:
            raise _Refusal(400, "candidates: expected each id once, found one twice")

    def _count(self, served: _Served, arrived: float) -> None:
        scored, count = served.scored, len(served.scored.order)
        self.metrics.slates.observe(count)
        for stage, seconds in scored.seconds.items():
            self.metrics.stages.labels(stage).observe(seconds)
        self.metrics.stages.labels("queue").observe(scored.started - arrived)
        known = "known" if scored.known_user else "unknown"
        self.metrics.users.labels("unavailable" if scored.unavailable else known).inc()
        if scored.unavailable:
            self.metrics.store_failures.labels(scored.unavailable).inc()
        self.metrics.candidates.labels("unknown").inc(scored.unknown_items)
        self.metrics.candidates.labels("known").inc(count - scored.unknown_items)
        for head, total in zip(served.stage.model.heads, scored.probability.sum(axis=0).tolist(), strict=True):
            self.metrics.predicted.labels(head).inc(total)
        if self.following.age_s() > duration_s(served.stage.model.config.stale_after):
            self.metrics.stale.inc()

    # What comes in

    def _check_token(self, request: Request) -> None:
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, self.expected):
            raise _Refusal(
                401, "expected the header Authorization: Bearer <token>, found another token or none",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

    async def _body(self, request: Request) -> bytes:
        most = self.following.stage.model.config.max_body_kb << 10
        length = request.headers.get("content-length", "")
        parts, size = [], int(length) if length.isdecimal() else 0
        if size <= most:
            size = 0
            try:
                async with asyncio.timeout(_BODY_S):
                    async for part in request.stream():
                        size += len(part)
                        if size > most:
                            break
                        parts.append(part)
            except (TimeoutError, ClientDisconnect) as error:
                reason = f"expected the whole body within {_BODY_S:g} s, found a part; send it again"
                raise _Refusal(408, reason, {"Connection": "close"}) from error
        if size > most:
            raise _Refusal(413, f"body: expected at most {most} bytes; send fewer candidates", {"Connection": "close"})
        return b"".join(parts)

    # What people and machines look at

    async def live(self, _: Request) -> Response:
        return _json(protocol.Live(True))

    async def ready(self, _: Request) -> Response:
        return _json(protocol.Ready(self.is_ready), 200 if self.is_ready else 503)

    async def about(self, _: Request) -> Response:
        return _json(protocol.About("understudy", __version__, []))

    async def about_model(self, _: Request) -> Response:
        model = self.following.stage.model
        return _json(protocol.described(model.digest, model.heads))

    async def report(self, _: Request) -> Response:
        return Response(await asyncio.to_thread(self.metrics.text), media_type="text/plain; version=0.0.4")

    async def openapi(self, _: Request) -> Response:
        return _json(described(self.following.stage.model.config))


def _decoded(decoder: "msgspec.json.Decoder[Any]", body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Refusal(400, f"expected another request: {str(error)[:300]}; see /openapi.json") from error


def _ranking(asked: protocol.RankRequest, request_id: str, stage: Stage, scored: Scored) -> _Served:
    order = scored.order[: asked.limit].tolist()
    items = [asked.candidates[place] for place in order]
    probability = scored.probability[order].T.tolist()
    known = "known" if scored.known_user else "unknown"
    answer = protocol.Ranked(
        request_id=request_id,
        release=stage.model.digest,
        slice="random" if scored.random else "policy",
        items=items,
        utility=scored.utility[order].tolist(),
        probabilities=dict(zip(stage.model.heads, probability, strict=True)),
        user="unavailable" if scored.unavailable else known,
        unknown_items=scored.unknown_items,
    )
    return _Served(scored, stage, msgspec.json.encode(answer), items)


def _tensors(
    tensors: protocol.InferRequest, asked: protocol.RankRequest, note: dict[str, Any], stage: Stage, scored: Scored
) -> _Served:
    answer = protocol.infer_answer(
        tensors, note["request_id"], stage.model.digest, scored.probability.tolist(), scored.utility.tolist()
    )
    return _Served(scored, stage, msgspec.json.encode(answer), [])  # the order is the caller's: nothing was served


async def _not_here(request: Request, error: Exception) -> Response:
    """Another path, or another method than it has."""
    assert isinstance(error, HTTPException)
    reason = f"{request.method} {request.url.path}: expected a path and method of /openapi.json"
    return _refused(error.status_code, reason, "", dict(error.headers or {}))


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type=_JSON)


def _refused(status: int, reason: str, request_id: str, headers: dict[str, str] | None = None) -> Response:
    own = {"x-request-id": request_id} if request_id else {}
    return Response(msgspec.json.encode(protocol.Failure(reason)), status, {**own, **(headers or {})}, _JSON)
