"""Kubeflow Pipelines' API: kfp's client with limits, one-line errors, and whole lists.

Who we are is told as kfp tells it: in the cluster the service account's token, else a token or a cookie of the
environment, or what the kubeconfig has. None of them is ever printed, or sent in the clear to another network.
"""

import contextlib
import io
import json
import logging
import os
import urllib.parse
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from kfp import Client
from kfp.client import KF_PIPELINES_SA_TOKEN_ENV
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
from kfp_server_api import ApiException

from understudy.errors import BadInput, UnderstudyError, first_line
from understudy.http_calls import stays_inside
from understudy.kubeflow.config import Pipeline
from understudy.kubernetes_refusals import advice
from understudy.redaction import one_line

__all__ = ["CA", "COOKIES", "TOKEN", "Connection", "Lost", "Refused", "connect", "equals", "none_of"]

TOKEN = "UNDERSTUDY_KFP_TOKEN"
COOKIES = "UNDERSTUDY_KFP_COOKIES"
CA = "UNDERSTUDY_KFP_CA"
_LIMIT_S = (10, 60)  # to connect, and for an answer
_PAGE = 100
_EQUALS, _NOT_EQUALS = 1, 2
_MOST_CHARACTERS = 500
_LETTING_IN = (
    f"set {TOKEN} or {COOKIES}, or run it in the cluster with a projected service account token "
    f"({KF_PIPELINES_SA_TOKEN_ENV})"
)

T = TypeVar("T")


class Lost(UnderstudyError):
    """No answer came, or the server has failed: whether it has acted is not known."""


class Refused(BadInput):
    """It said no, and has not acted.

    Args:
        status: of HTTP.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Page(Exception):
    """An answer for people, where one of the API was asked for."""


class _Client(Client):
    """kfp's client, which asks within limits, follows no redirect, and leaves nothing in the home folder."""

    def _load_config(self, *given: Any) -> Any:
        config = super()._load_config(*given)
        config.retries = urllib3.Retry(total=2, connect=2, read=2, redirect=False, backoff_factor=0.2)
        return config

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        return self._healthz_api.healthz_service_get_healthz(_request_timeout=_LIMIT_S)

    def set_user_namespace(self, namespace: str) -> None:
        self._context_setting["namespace"] = namespace


class Connection:
    """An installation, as one user sees it.

    Args:
        client: kfp's.
        host: for people, without what may be secret.
        namespace: of the user; None: the installation has but one.
    """

    def __init__(self, client: Client, host: str, namespace: str | None) -> None:
        self.client = client
        self.host = host
        self.namespace = namespace

    def call(self, what: str, function: Callable[..., T], *given: Any, **named: Any) -> T:
        """Ask; kfp's own prints are left out.

        Args:
            what: in words, for the error.

        Raises:
            Lost: no answer.
            BadInput: it said no. UnderstudyError: it failed.
        """
        with _told(self.host, what), contextlib.redirect_stdout(io.StringIO()):
            return function(*given, **named)

    def all(self, what: str, function: Callable[..., Any], key: str, **named: Any) -> Iterator[Any]:
        """Every item of a list, page by page."""
        token = ""
        while True:
            page = self.call(what, function, page_token=token, page_size=_PAGE, **named)
            yield from getattr(page, key) or []
            token = page.next_page_token
            if not token:
                return

    def named(self, what: str, function: Callable[..., Any], key: str, name: str, **named: Any) -> Any:
        """The item of that display name, or None."""
        found = self.all(what, function, key, filter=equals("display_name", name), **named)
        return next((one for one in found if name in (one.display_name, getattr(one, "name", None))), None)


def equals(key: str, value: str) -> str:
    """A filter of the API."""
    return _filter(_EQUALS, key, (value,))


def none_of(key: str, values: Iterable[str]) -> str:
    """A filter of the API: the field has none of the values."""
    return _filter(_NOT_EQUALS, key, values)


def _filter(operation: int, key: str, values: Iterable[str]) -> str:
    return json.dumps({"predicates": [{"operation": operation, "key": key, "stringValue": one} for one in values]})


def connect(pipeline: Pipeline, host: str | None = None, namespace: str | None = None) -> Connection:
    """Find the installation.

    Args:
        host, namespace: win over the configuration's.

    Raises:
        BadInput: no address, no permission, or a secret would travel in the clear.
        UnderstudyError: nobody answers there.
    """
    address = host or pipeline.host or os.environ.get("KF_PIPELINES_ENDPOINT", "")
    token, cookies = os.environ.get(TOKEN, "").strip(), os.environ.get(COOKIES, "").strip()
    token_file = os.environ.get(KF_PIPELINES_SA_TOKEN_ENV, "")
    _check_address(address, bool(token or cookies or token_file))
    logging.getLogger("kfp_server_api").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _told(_shown(address), "its state"):
        warnings.simplefilter("ignore")
        client = _Client(
            host=address or None,
            existing_token=token or None,
            cookies=cookies or None,
            ssl_ca_cert=os.environ.get(CA) or None,
            credentials=ServiceAccountTokenVolumeCredentials(token_file) if token_file and address else None,
        )
    _limit(client)
    own = namespace or pipeline.namespace or client.get_user_namespace() or None
    return Connection(client, _shown(client._existing_config.host), own)


def _limit(client: Client) -> None:
    """The generated client waits for ever unless each call says otherwise."""
    rest = client._run_api.api_client.rest_client
    request = rest.request

    def within(method: str, url: str, **named: Any) -> Any:
        named["_request_timeout"] = named.get("_request_timeout") or _LIMIT_S
        answer = request(method, url, **named)
        if answer.data and "json" not in (answer.urllib3_response.headers.get("Content-Type") or ""):
            raise _Page
        return answer

    rest.request = within


def _check_address(address: str, secret: bool) -> None:
    if not address:
        if "KUBERNETES_SERVICE_HOST" in os.environ or _kubeconfig().exists():
            return
        raise BadInput(
            "pipeline.host: expected the URL of Kubeflow Pipelines, found none; set it, --host or "
            "KF_PIPELINES_ENDPOINT (`kubectl port-forward -n kubeflow svc/ml-pipeline 8888` gives http://localhost:8888)"
        )
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise BadInput("host: expected a URL such as http://localhost:8888, without a user, found another; correct it")
    if secret and not stays_inside(address):
        raise BadInput(
            f"host {_shown(address)}: expected https for a token or a cookie, found http; "
            "use https, or a port-forward to localhost"
        )


def _kubeconfig() -> Path:
    return Path(os.environ.get("KUBECONFIG", "").split(os.pathsep)[0] or Path.home() / ".kube" / "config")


def _shown(address: str) -> str:
    parts = urllib.parse.urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/") if parts.netloc else address


@contextlib.contextmanager
def _told(host: str, what: str) -> Iterator[None]:
    where = f"Kubeflow Pipelines at {host or 'the cluster'}: {what}"
    try:
        yield
    except _Page:
        told = f"{where}: expected an answer of the API, found a page, perhaps a login; {_LETTING_IN}"
        raise Refused(told, 0) from None
    except ApiException as error:
        raise _said(where, error) from None
    except urllib3.exceptions.HTTPError as error:
        kind = type(getattr(error, "reason", None) or error).__name__
        raise Lost(f"{where}: expected an answer, found none ({kind}); see that it is there, then try again") from None
    except OSError as error:
        files = f"{KF_PIPELINES_SA_TOKEN_ENV} or {CA}"
        raise BadInput(f"{where}: expected a file of {files} that can be read, found none ({error.strerror})") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise _other(where, first_line(error)) from error


def _other(where: str, found: str) -> UnderstudyError:
    found = " ".join(found.split())[:_MOST_CHARACTERS]
    return UnderstudyError(f"{where}: expected an answer of API v2beta1, found another ({found}); is it version 2?")


def _said(where: str, error: ApiException) -> UnderstudyError:
    status, text = int(error.status or 0), _text(error.body)
    if other := advice(text):  # of Kubernetes behind it, whatever the status
        return Refused(f"{where}: expected it to be done, found status {status}{text}; {other}", status)
    if status in (401, 403):
        return Refused(f"{where}: expected to be let in, found status {status}{text}; {_LETTING_IN}", status)
    if 300 <= status < 400:
        return Refused(f"{where}: expected an answer, found a redirect, perhaps to a login; {_LETTING_IN}", status)
    if status == 0 and "SSL" in str(error.reason):
        return Lost(f"{where}: expected a trusted TLS connection, found none; {CA} may name a file of certificates")
    if status == 0:
        return _other(where, str(error.reason))
    if status >= 500:
        return Lost(f"{where}: expected an answer, found status {status}{text}; try again")
    return Refused(f"{where}: expected it to be done, found status {status}{text}", status)


def _text(body: Any) -> str:
    """What the server says, in brackets: one line, and none of our secrets in it."""
    try:
        value = json.loads(body or "{}")
        text = str(value.get("message") or value.get("error") or value.get("error_message") or "")
    except (ValueError, AttributeError):
        text = ""
    secrets = [os.environ.get(name, "").strip() for name in (TOKEN, COOKIES)]
    line = one_line(text, _MOST_CHARACTERS, more=secrets)
    return f" ({line})" if line else ""
