"""An MLflow server, as far as releases need it: one registered model, and one experiment of the same name.

MLflow's client is imported when it is used. It would repeat a request whose answer was lost, and so do twice what the
server has done already; here each request is sent once, and who wants to repeat looks first at what there is.
"""

import functools
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from understudy.errors import BadInput, Later, UnderstudyError
from understudy.http_calls import stays_inside

__all__ = ["MODEL", "REPEATS", "URI", "MlflowServer", "Place", "ShownRun", "Version", "connected"]

URI = "UNDERSTUDY_MLFLOW"
MODEL = "UNDERSTUDY_MLFLOW_MODEL"
REPEATS = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"

_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_SECRETS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")
_UNLESS_SET = {_TIMEOUT: "10"}
_ALWAYS = {
    REPEATS: "0",
    "DO_NOT_TRACK": "1",
    "FEAST_USAGE": "False",  # the client loads Feast, where it is installed: it may add a header
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_PAGE = 1000
_TOGETHER = 500  # metrics in a request; MLflow takes 1000, and 1 MB
_BUSY = (408, 429)
_EXISTS, _ABSENT = "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"


@dataclass(frozen=True)
class Place:
    """Where releases are shown.

    Args:
        uri: of the tracking server, without credentials.
        model: the registered model's name, and the experiment's.
    """

    uri: str
    model: str

    @classmethod
    def from_environment(cls) -> "Place | None":
        """None where the environment names none.

        Raises:
            BadInput: what it names can't be used. A URI is not repeated, it may hold a secret.
        """
        uri = os.environ.get(URI, "").strip().rstrip("/")
        if not uri:
            return None
        if not _is_plain(uri):
            raise BadInput(
                f"{URI}: expected http(s)://host[:port][/path] and no more, found something else; credentials go into "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        if any(os.environ.get(name) for name in _SECRETS) and not stays_inside(uri):
            raise BadInput(
                f"{URI}: expected https, or http to loopback, a Service or a private address, since credentials go "
                f"with every request, found {uri}; correct it"
            )
        model = os.environ.get(MODEL, "").strip() or "understudy"
        if not re.fullmatch(r"\w[\w .-]{0,199}", model):
            raise BadInput(f"{MODEL}: expected letters, digits, spaces, and any of _.-, found {model!r}; correct it")
        return cls(uri, model)


def _is_plain(uri: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(uri)
        _ = parts.port  # a ValueError where it is none
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not set("@?#") & set(uri)
    except ValueError:
        return False


@dataclass(frozen=True)
class Version:
    """A version of the registered model, by whomever."""

    number: int
    run_id: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class ShownRun:
    """A run of the experiment, by whomever, that nobody has deleted.

    Args:
        started_ms: since 1970. finished: whether all that belongs to it was logged.
        artifacts: URI of its artifacts.
    """

    id: str
    started_ms: int
    finished: bool
    artifacts: str
    tags: Mapping[str, str]


class MlflowServer:
    """What is read and written there; every method may raise what ``_translated`` says.

    Args:
        until_s: of ``time.monotonic``; later nothing more is asked.
    """

    def __init__(self, place: Place, client: Any, until_s: float) -> None:
        self.place, self._client, self._until_s = place, client, until_s

    # What there is

    def versions(self) -> list[Version]:
        """All versions of the model, by number; none where there is no such model."""
        found = self._pages(self._client.search_model_versions, f"name = '{self.place.model}'", max_results=_PAGE)
        known = [Version(int(one.version), one.run_id or "", dict(one.tags)) for one in found]
        return sorted(known, key=lambda one: one.number)

    def aliases(self) -> dict[str, int]:
        """Alias → number of a version."""
        model = self._ask(self._client.get_registered_model, self.place.model, but=_ABSENT)
        return {} if model is None else {name: int(number) for name, number in model.aliases.items()}

    def runs(self) -> list[ShownRun]:
        """All runs of the experiment, oldest first; none where there is no such experiment."""
        experiment = self._ask(self._client.get_experiment_by_name, self.place.model)
        if experiment is None:
            return []
        found = self._pages(self._client.search_runs, [experiment.experiment_id], max_results=_PAGE)
        return sorted((_shown(run) for run in found), key=lambda one: (one.started_ms, one.id))

    # What is made

    def create_model(self, description: str) -> None:
        """One that there is stays as it is."""
        self._ask(self._client.create_registered_model, self.place.model, description=description, but=_EXISTS)

    def create_run(self, name: str, tags: Mapping[str, str]) -> ShownRun:
        run = self._ask(self._client.create_run, self._experiment_id, tags=dict(tags), run_name=name)
        return _shown(run)

    def create_version(self, run: ShownRun, source: str, tags: Mapping[str, str]) -> int:
        """Its number."""
        made = self._ask(
            self._client.create_model_version,
            self.place.model, source, run.id, tags=dict(tags), await_creation_for=0,
        )  # fmt: skip
        return int(made.version)

    def log(self, run: ShownRun, metrics: Mapping[str, float], params: Mapping[str, str]) -> None:
        """Logged again, they are the same."""
        from mlflow.entities import Metric, Param

        logged = [Metric(name, value, run.started_ms, 0) for name, value in sorted(metrics.items())]
        for first in range(0, len(logged), _TOGETHER):
            self._ask(self._client.log_batch, run.id, metrics=logged[first : first + _TOGETHER], synchronous=True)
        given = [Param(name, value) for name, value in sorted(params.items())]
        self._ask(self._client.log_batch, run.id, params=given, synchronous=True)

    def upload(self, run: ShownRun, name: str, text: str) -> None:
        self._ask(self._client.log_text, run.id, text, name)

    def finish(self, run: ShownRun) -> None:
        self._ask(self._client.set_terminated, run.id)

    # What is changed

    def tag_run(self, run: ShownRun, name: str, value: str) -> None:
        self._ask(self._client.set_tag, run.id, name, value)

    def tag_version(self, number: int, name: str, value: str | None) -> None:
        """None removes it."""
        if value is None:
            self._ask(self._client.delete_model_version_tag, self.place.model, str(number), name, but=_ABSENT)
        else:
            self._ask(self._client.set_model_version_tag, self.place.model, str(number), name, value)

    def move_alias(self, name: str, number: int | None) -> None:
        """None removes it."""
        if number is None:
            self._ask(self._client.delete_registered_model_alias, self.place.model, name, but=_ABSENT)
        else:
            self._ask(self._client.set_registered_model_alias, self.place.model, name, str(number))

    def delete_version(self, number: int) -> None:
        self._ask(self._client.delete_model_version, self.place.model, str(number), but=_ABSENT)

    def delete_run(self, run: ShownRun) -> None:
        self._ask(self._client.delete_run, run.id, but=_ABSENT)

    # How it is asked

    @functools.cached_property
    def _experiment_id(self) -> str:
        name = self.place.model
        experiment = self._ask(self._client.get_experiment_by_name, name)
        if experiment is None:
            made = self._ask(self._client.create_experiment, name, but=_EXISTS)
            if made is not None:
                return str(made)
            experiment = self._ask(self._client.get_experiment_by_name, name)
        if experiment is None or experiment.lifecycle_stage != "active":
            raise BadInput(
                f"MLflow at {self.place.uri}: expected experiment {name!r} to be there or free, found it deleted; "
                f"restore it, or name another in {MODEL}"
            )
        return str(experiment.experiment_id)

    def _pages(self, search: Callable[..., Any], *what: Any, **how: Any) -> Iterator[Any]:
        token = None
        while True:
            page = self._ask(search, *what, page_token=token, **how)
            yield from page
            token = page.token
            if not token:
                return

    def _ask(self, call: Callable[..., Any], *what: Any, but: str = "", **how: Any) -> Any:
        """What the client's call returns; None where it fails as ``but`` says."""
        from mlflow.exceptions import MlflowException

        if time.monotonic() > self._until_s:
            raise Later(f"MLflow at {self.place.uri}: expected to be done by now, found it slow")
        try:
            return call(*what, **how)
        except (OSError, MlflowException) as error:
            if but and getattr(error, "error_code", "") == but:
                return None
            raise self._translated(error) from None  # what the client says may hold what a server has answered

    def _translated(self, error: Exception) -> UnderstudyError:
        where = f"MLflow at {self.place.uri}"
        status = _status(error)
        if status == 401:
            return BadInput(
                f"{where}: expected to be let in, found status 401; set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        if status == 403:  # let in, or stopped by what lies before it
            return BadInput(
                f"{where}: expected the permission to do what was asked, found status 403; have it given to the user "
                "whom MLFLOW_TRACKING_USERNAME or MLFLOW_TRACKING_TOKEN names"
            )
        if status is None or status >= 500 or status in _BUSY:
            limit = os.environ.get(_TIMEOUT, "")
            return Later(f"{where}: expected an answer within {limit} s, found {_why(error)}; is MLflow up there?")
        said = str(getattr(error, "message", "")).split("Response body")[0]
        return UnderstudyError(
            f"{where}: expected it to do what was asked, found status {status}: {' '.join(said.split())[:300]}; "
            f"{URI} is right where that is an MLflow server"
        )


@contextmanager
def connected(place: Place, until_s: float) -> Iterator[MlflowServer]:
    """MLflow's client, bounded and silent; the environment is as before afterwards.

    Raises:
        BadInput: it is not installed.
    """
    given = {name: os.environ.get(name) or value for name, value in _UNLESS_SET.items()}
    with _environment({**given, **_ALWAYS}):
        yield MlflowServer(place, _client(place), until_s)


def _client(place: Place) -> Any:
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError as error:
        raise BadInput(
            f"{URI}: expected Python's package mlflow-skinny, found none ({error}); `pip install mlflow-skinny`"
        ) from error
    return MlflowClient(tracking_uri=place.uri, registry_uri=place.uri)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _shown(run: Any) -> ShownRun:
    info = run.info
    return ShownRun(info.run_id, info.start_time, info.status == "FINISHED", info.artifact_uri, dict(run.data.tags))


def _status(error: BaseException) -> int | None:
    """Of the answer, as far as the client tells it; None where there was none."""
    answer = getattr(error, "response", None)
    if answer is not None:
        return int(answer.status_code)
    told = getattr(error, "get_http_status_code", None)
    return int(told()) if told else None


def _why(error: BaseException) -> str:
    """In words of our own: the client's may hold what a server has answered."""
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    names = " ".join(type(one).__name__ for one in chain)
    for word, meaning in (
        ("Timeout", "none in time"),
        ("SSLError", "no trusted TLS connection"),
        ("Connection", "no connection"),
        ("RetryError", "an error of the server"),
    ):
        if word in names:
            return meaning
    return f"status {_status(error)}" if _status(error) else type(error).__name__
