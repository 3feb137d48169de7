"""A request's way: its form, its turn, its ranking, its answer; and what is counted and told of it."""

import re
import time
import traceback
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from understudy.errors import first_line
from understudy.experiments.header import BUCKET, NOW, bucket_of, now_of
from understudy.http_requests import Refusal, as_json, body_of, check_token, refused
from understudy.section import duration_s
from understudy.serving import protocol, tensors
from understudy.serving.config import Serving
from understudy.serving.desk import Busy, Desk
from understudy.serving.following import Following
from understudy.serving.log import say
from understudy.serving.metrics import Metrics
from understudy.serving.online import Kept
from understudy.serving.ranker import Scored, Stage, rank
from understudy.serving.reports import Reporter, Slate

__all__ = ["Answering"]

_REQUEST_ID = re.compile(protocol.REQUEST_ID)
_BODY_S = 5.0
_RANK = msgspec.json.Decoder(protocol.RankRequest)
_INFER = msgspec.json.Decoder(tensors.InferRequest)


class Answer(NamedTuple):
    """What one request is answered with.

    Args:
        items: those that people may see.
        json_bytes: how much of the body is JSON; None: all.
    """

    scored: Scored
    stage: Stage
    body: bytes
    items: list[str]
    json_bytes: int | None = None


class Times(NamedTuple):
    """When a request had come, by ``time.perf_counter``, and the time in seconds since 1970 that it is answered for."""

    came: float
    now_s: float


class Answering:
    """The routes that rank.

    Args:
        token: of the clients.
        clock: seconds since 1970.
        log_requests: a line for each request, not only for those that failed.
    """

    desk: Desk
    on_stage: tuple[Stage, Kept]  # exchanged as one
    reporter: Reporter | None = None
    arm: str | None = None
    is_replay = False  # a request may say its time
    is_ending = False  # clients are told to come back on another connection

    def __init__(
        self, following: Following, metrics: Metrics, token: str, clock: Callable[[], float], log_requests: bool
    ) -> None:
        self.following, self.metrics, self.clock, self.log_requests = following, metrics, clock, log_requests
        self.token = token

    @property
    def config(self) -> Serving:
        """Of the release on stage."""
        return self.on_stage[0].model.config

    async def rank(self, request: Request) -> Response:
        """Order candidates for a user."""
        return await self._answer(request, "rank", self._ranked)

    async def infer(self, request: Request) -> Response:
        """The same as tensors, in the order of the candidates."""
        return await self._answer(request, "infer", self._inferred)

    async def _answer(self, request: Request, route: str, answer: Callable[..., Any]) -> Response:
        given = request.headers.get("x-request-id", "")  # of a page, perhaps: several slates may come under it
        note: dict[str, Any] = {"request_id": uuid.uuid4().hex}
        if _REQUEST_ID.fullmatch(given):
            note["x_request_id"] = given
        came = time.perf_counter()
        try:
            check_token(request, self.token)
            if (other := self.another_version(request)) is not None:
                raise other
            body = await body_of(request, self.config.max_body_kb << 10, _BODY_S, "send fewer candidates")
            came = time.perf_counter()  # whole; how long a client takes to send is not the server's
            if (bucket := _bucket(request)) is not None:
                note["bucket"] = bucket
            found: Answer = await answer(request, body, note, Times(came, self._now_s(request)))
            response = as_json(found.body) if found.json_bytes is None else _in_bytes(found.body, found.json_bytes)
        except Refusal as error:
            note["reason"] = str(error)
            response = refused(error)
        except Exception as error:  # one request's fault is not another's
            note |= {"reason": first_line(error), "traceback": traceback.format_exc()}
            response = refused(Refusal(500, "internal error"))
        response.headers["x-request-id"] = note.get("x_request_id", note["request_id"])
        if self.is_ending:
            response.headers["connection"] = "close"
        took = time.perf_counter() - came
        self.metrics.requests.labels(route, str(response.status_code)).inc()
        if response.status_code == 200:  # a refusal is quicker than an answer
            self.metrics.latency.labels(route).observe(took)
        if self.log_requests or response.status_code not in (200, 503):
            say("request", route=route, status=response.status_code, ms=round(took * 1000, 3), **note)
        return response

    def another_version(self, request: Request) -> Refusal | None:
        """The refusal of a path that names another version of the model than the release on stage."""
        asked, digest = request.path_params.get("version"), self.on_stage[0].model.digest
        if asked in (None, digest):
            return None
        return Refusal(404, f"version: expected the release on stage, {digest}, found {str(asked)[:100]!r}")

    async def _ranked(self, request: Request, body: bytes, note: dict[str, Any], times: Times) -> Answer:
        asked = _decoded(_RANK, body)

        def answer(stage: Stage, scored: Scored) -> Answer:
            return _ranking(asked, note["request_id"], stage, scored)

        return await self._in_turn(asked, "candidates", note, times, answer)

    async def _inferred(self, request: Request, body: bytes, note: dict[str, Any], times: Times) -> Answer:
        try:
            text, behind = tensors.parted(body, request.headers.get(tensors.JSON_BYTES))
            given = _decoded(_INFER, text)
            asked = tensors.of_tensors(given, behind)
        except tensors.Invalid as error:
            raise Refusal(400, str(error)) from error

        def answer(stage: Stage, scored: Scored) -> Answer:
            return _scores(given, note["request_id"], stage, scored)

        return await self._in_turn(asked, "item_id", note, times, answer)

    def _now_s(self, request: Request) -> float:
        """The server's time; in a replay, the time that the request says."""
        given = request.headers.get(NOW) if self.is_replay else None
        try:
            return self.clock() if given is None else now_of(given)
        except ValueError as error:
            raise Refusal(400, str(error)) from error

    async def _in_turn(
        self,
        asked: protocol.RankRequest,
        name: str,
        note: dict[str, Any],
        times: Times,
        answer: Callable[[Stage, Scored], Answer],
    ) -> Answer:
        """The answer to a request, whose field ``name`` holds the candidates, when its turn has come."""
        if asked.request_id is not None and not _REQUEST_ID.fullmatch(asked.request_id):
            raise Refusal(400, "request_id: expected 1 to 200 printable ASCII characters, found others")
        note["request_id"] = request_id = asked.request_id or note["request_id"]
        _check_slate(name, asked, self.config.max_candidates)
        now_us, surface = int(times.now_s * 1e6), asked.context.surface

        def work() -> Answer:
            (stage, store), candidates = self.on_stage, asked.candidates
            scored = rank(
                stage, store, asked.user_id, candidates, request_id=request_id, surface=surface, now_us=now_us
            )
            return answer(stage, scored)

        try:
            found: Answer = await self.desk.serve(times.came, work)
        except Busy as busy:
            self.metrics.shed.labels(busy.cause).inc()
            raise Refusal(503, f"too busy ({busy.cause}): try again", {"Retry-After": "1"}) from busy
        self._count(found, times.came)
        note |= {"release": found.stage.model.digest[:12], "candidates": len(asked.candidates)}
        if self.reporter is not None and found.items:
            where = self.arm, note.get("bucket")
            self.reporter.put(Slate(asked, request_id, now_us, found.stage.model, found.scored, found.items, *where))
        return found

    def _count(self, answer: Answer, came: float) -> None:
        metrics, scored, model = self.metrics, answer.scored, answer.stage.model
        count = len(scored.order)
        metrics.slates.observe(count)
        for stage, seconds in {"queue": scored.started - came, **scored.seconds}.items():
            metrics.stages.labels(stage).observe(seconds)
        metrics.users.labels(scored.user).inc()
        if scored.unavailable:
            metrics.store_failures.labels(scored.unavailable).inc()
        metrics.candidates.labels("unknown").inc(scored.unknown_items)
        metrics.candidates.labels("known").inc(count - scored.unknown_items)
        for head, total in zip(model.heads, scored.probability.sum(axis=0).tolist(), strict=True):
            metrics.predicted.labels(head).inc(total)
        if self.following.age_s() > duration_s(model.config.stale_after):
            metrics.stale.inc()


def _decoded(decoder: "msgspec.json.Decoder[Any]", body: bytes) -> Any:
    """The body as its type; what is wrong is named by its place, such as ``$.candidates[3]``."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"expected another request: {str(error)[:300]}; see /openapi.json") from error


def _bucket(request: Request) -> int | None:
    """The user's bucket, where the caller computed it."""
    given = request.headers.get(BUCKET)
    try:
        return None if given is None else bucket_of(given)
    except ValueError as error:
        raise Refusal(400, str(error)) from error


def _check_slate(name: str, asked: protocol.RankRequest, most: int) -> None:
    count = len(asked.candidates)
    if count > most:
        raise Refusal(400, f"{name}: expected at most {most}, found {count}")
    if len(set(asked.candidates)) < count:
        raise Refusal(400, f"{name}: expected each id once, found one twice")


def _ranking(asked: protocol.RankRequest, request_id: str, stage: Stage, scored: Scored) -> Answer:
    order = scored.order[: asked.limit]
    items = [asked.candidates[place] for place in order.tolist()]
    probability = scored.probability[order].T.tolist()
    answer = protocol.Ranked(
        request_id=request_id,
        release=stage.model.digest,
        slice="random" if scored.random else "policy",
        items=items,
        utility=scored.utility[order].tolist(),
        probabilities=dict(zip(stage.model.heads, probability, strict=True)),
        user=scored.user,
        unknown_items=scored.unknown_items,
    )
    return Answer(scored, stage, msgspec.json.encode(answer), items)


def _scores(asked: tensors.InferRequest, request_id: str, stage: Stage, scored: Scored) -> Answer:
    digest = stage.model.digest
    body, json_bytes = tensors.infer_answer(asked, request_id, digest, scored.probability, scored.utility)
    return Answer(scored, stage, body, [], json_bytes)  # the order is the caller's: nobody has seen one yet


def _in_bytes(body: bytes, json_bytes: int) -> Response:
    return Response(body, 200, {tensors.JSON_BYTES: str(json_bytes)}, "application/octet-stream")
