"""An object store as the lake needs it: puts that never overwrite, listings that are never stale, errors in one line.

A put that must win only once is conditional (``If-None-Match: *``). When its answer is lost, whoever sends it again is
told that the name exists; so each such object carries who wrote it, and a writer knows its own. S3's protocol was
tried; others go through fsspec's interface, and no lake is written to in a store that overwrites all the same.
"""

import math
import os
import posixpath
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from understudy.errors import BadInput, Later, UnderstudyError

__all__ = ["ObjectStore", "file_system", "settled"]

_PROTOCOLS = ("s3", "s3a", "gs", "gcs", "az", "abfs")
_EXTRAS = {"s3": "pip install understudy[s3]", "s3a": "pip install understudy[s3]"}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_PART = 8 << 20  # bytes: of an upload's part, and of what is read ahead
_PARTS = 10_000  # S3's most
_STREAMS = 4
_WRITER = "understudy-writer"
_PAUSES_S = (0.1, 0.5, 2.0)  # before a put is sent again that another request stood in the way of
_REFUSED = ("PreconditionFailed", "412", "ConditionalRequestConflict", "OperationAborted", "409")
_NO_CREDENTIALS = (
    "CredentialRetrievalError", "NoAuthTokenError", "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound",
    "SSOError", "SSOTokenLoadError", "TokenRetrievalError", "UnauthorizedSSOTokenError",
)  # fmt: skip
_NO_ANSWER = (
    "ConnectTimeoutError", "ConnectionClosedError", "ConnectionError", "EndpointConnectionError", "FSTimeoutError",
    "HTTPClientError", "ProxyConnectionError", "ReadTimeoutError", "SSLError",
)  # fmt: skip
_NO_BUCKET = ("NoSuchBucket",)
_NO_NAME = ("InvalidBucketName", "ParamValidationError")
_ELSEWHERE = ("301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect")
_UNABLE = ("501", "NotImplemented")
_PROVEN: set[tuple[str, str]] = set()  # once in a process


def file_system(uri: str) -> tuple[Any, str]:
    """The file system of a folder or URI, and the path in it.

    Raises:
        BadInput: an unknown protocol, a URI without a bucket, or a package that is not installed.
    """
    protocol, found, rest = uri.partition("://")
    if not found or protocol in ("file", "local"):
        return LocalFileSystem(), str(LocalFileSystem._strip_protocol(uri))
    if protocol not in _PROTOCOLS or not rest.strip("/"):
        raise BadInput(f"lake {uri}: expected a folder, or a URI such as s3://bucket/lake, found neither; correct it")
    try:
        fs, path = fsspec.core.url_to_fs(f"{protocol}://{rest.strip('/')}", **_options(protocol))
    except ImportError as error:
        raise BadInput(
            f"lake {uri}: expected fsspec's package for {protocol}://, found none; install "
            f"{_EXTRAS.get(protocol, 'the one that fsspec names: ' + str(error))}"
        ) from error
    return fs, str(path)


def _options(protocol: str) -> dict[str, Any]:
    """How fsspec reaches the store. It keeps what it made by these options, so they name what may change."""
    if protocol not in ("s3", "s3a"):
        return {"use_listings_cache": False}
    options: dict[str, Any] = {"use_listings_cache": False, "default_block_size": _PART, "max_concurrency": _STREAMS}
    if endpoint := _first(_ENDPOINTS):
        options["endpoint_url"] = endpoint
    if region := _first(_REGIONS):
        options["client_kwargs"] = {"region_name": region}
    return options


def settled(fs: Any) -> Any:
    """A file system for readers of files that never change: what it has listed it does not ask for again.

    Without it each opening of a Parquet file is several requests before the first byte.
    """
    if "s3" not in fs.protocol:
        return fs
    options = {**fs.storage_options, "use_listings_cache": True, "session": fs.session}
    return type(fs)(**options, skip_instance_cache=True)


def _first(variables: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in variables if os.environ.get(name)), None)


class ObjectStore:
    """The objects below one URI. Paths are those of ``fs``, with the bucket.

    Args:
        uri: of the lake, for messages.
        marker: path of a small object that all lakes have: on it is tried whether the store refuses to overwrite.
    """

    def __init__(self, fs: Any, uri: str, marker: str) -> None:
        self.fs, self.uri, self.marker = fs, uri, marker
        self.is_s3 = uri.startswith("s3://")
        self.is_reached = False

    # Reading

    def check_bucket(self) -> None:
        """See whether the bucket is there.

        Raises:
            BadInput: it is not, or can't be looked at.
        """
        with self.told():
            try:
                if self.is_s3:
                    self.fs.call_s3("head_bucket", Bucket=self.fs.split_path(self.marker)[0])
            except FileNotFoundError as error:
                raise self._no_bucket() from error

    def exists(self, path: str) -> bool:
        with self.told():
            return bool(self.fs.exists(path))

    def is_file(self, path: str) -> bool:
        with self.told():
            return bool(self.fs.isfile(path))

    def names(self, path: str) -> list[str]:
        """Last parts of what lies directly below a path; an empty object that stands for the folder is none."""
        with self.told():
            found = [str(name).rstrip("/") for name in self.fs.ls(path, detail=False)]
        return [posixpath.basename(name) for name in found if name != path]

    def files(self, path: str) -> list[str]:
        """Every object below a path, relative to it, but for empty ones that stand for folders."""
        with self.told():
            return _below(self.fs, path)

    def table(self, path: str) -> tuple[Any, list[str]]:
        """``files`` as they are now, and the file system to read them with while they stay as they are."""
        with self.told():
            fs = settled(self.fs)
            return fs, _below(fs, path)

    def read_bytes(self, path: str) -> bytes:
        """An object as one request reads it: never half of one content and half of the next."""
        with self.told():
            return bytes(self.fs.cat_file(path, **({"max_concurrency": 1} if self.is_s3 else {})))

    def fetch(self, path: str, target: Path) -> None:
        """Copy an object into a file."""
        with self.told():
            self.fs.get_file(path, str(target))

    # Writing

    def create(self, path: str, data: bytes) -> bool:
        """Put an object. False where there is one already: then nothing has changed."""
        return self._once(path, lambda **how: self.fs.pipe_file(path, data, mode="create", **how))

    def put(self, source: str | os.PathLike[str], path: str) -> bool:
        """``create`` of a file's content, some parts of it in memory at a time."""
        source = os.fspath(source)
        part = max(_PART, math.ceil(os.path.getsize(source) / _PARTS))
        more = {"chunksize": part, "max_concurrency": _STREAMS} if self.is_s3 else {}
        return self._once(path, lambda **how: self.fs.put_file(source, path, mode="create", **more, **how))

    def replace(self, path: str, data: bytes) -> None:
        with self.told():
            self.fs.pipe_file(path, data)

    def swap(self, path: str, before: bytes | None, after: bytes) -> bool:
        """Replace an object if it still is ``before``; False where it is not.

        Args:
            before: None: where there is none.
        """
        if before is None:
            return self.create(path, after)
        with self.told():
            try:
                tag = str(self._head(path)["ETag"]) if self.is_s3 else None
                # Read after the tag was: what has changed since has another tag.
                if self.read_bytes(path) != before:
                    return False
                self.fs.pipe_file(path, after, **({"IfMatch": tag} if tag else {}))
            except FileNotFoundError:
                return False
            except OSError as error:
                if self.read_bytes(path) == after:  # only the answer was lost
                    return True
                if _code(error) in _REFUSED:
                    return False
                raise
        return True

    def remove(self, path: str) -> None:
        with self.told(), suppress(FileNotFoundError):  # another process may remove it at the same time
            self.fs.rm(path, recursive=True)

    @contextmanager
    def writing(self, path: str) -> Iterator[Any]:
        """A new object as an open file; when its writer fails, there is none."""
        with self.told():
            file = self.fs.open(path, "wb")
            try:
                yield file
            except BaseException:
                file.discard()
                file.closed = True  # or the rest would be written when it is forgotten
                raise
            file.close()

    def _once(self, path: str, write: Callable[..., Any]) -> bool:
        with self.told():
            self._prove()
            return self._create(path, write)

    def _create(self, path: str, write: Callable[..., Any]) -> bool:
        mine = uuid.uuid4().hex
        marked = {"Metadata": {_WRITER: mine}} if self.is_s3 else {}
        for pause_s in (*_PAUSES_S, None):
            try:
                write(**marked)
                return True
            except Exception as error:
                found = self._writer(path)
                if found is not None:
                    return found == mine
                if pause_s is None or _code(error) not in _REFUSED:
                    raise
            time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def _prove(self) -> None:
        """Put the marker over itself, which the store must refuse."""
        known = _endpoint(), self.uri
        if known in _PROVEN:
            return
        try:
            data = self.read_bytes(self.marker)
        except FileNotFoundError:
            return  # a lake in the making: what comes after its marker finds out
        if self._create(self.marker, lambda **how: self.fs.pipe_file(self.marker, data, mode="create", **how)):
            raise self._unable()
        _PROVEN.add(known)

    def _writer(self, path: str) -> str | None:
        """Who created an object; None where there is none."""
        if not self.is_s3:
            return "" if self.fs.exists(path) else None
        try:
            return str(self._head(path)["Metadata"].get(_WRITER, ""))
        except FileNotFoundError:
            return None

    def _head(self, path: str) -> dict[str, Any]:
        bucket, key, _ = self.fs.split_path(path)
        answer: dict[str, Any] = self.fs.call_s3("head_object", Bucket=bucket, Key=key)
        return answer

    # Errors

    @contextmanager
    def told(self) -> Iterator[None]:
        """What a user or an administrator can mend becomes one line that says so; it never holds a secret."""
        try:
            yield
        except UnderstudyError:
            raise
        except Exception as error:
            better = self._explained(error)
            if better is not None:
                raise better from error
            self.is_reached = True
            raise
        self.is_reached = True

    def _explained(self, error: Exception) -> UnderstudyError | None:
        code, names = _code(error), {kind.__name__ for kind in type(error).__mro__}
        if code in _NO_BUCKET:
            return self._no_bucket()
        if names & set(_NO_CREDENTIALS):
            return BadInput(
                f"lake {self.uri}: expected credentials for the object store, found none that are whole; set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or whatever else AWS' tools take"
            )
        if isinstance(error, PermissionError):
            return BadInput(
                f"lake {self.uri}: expected access to the object store, found it denied ({code or 'by the store'}); "
                "correct the credentials, or what they may do: list the bucket, get, put and delete objects"
            )
        if names & set(_NO_ANSWER) or (isinstance(error, ValueError) and "Invalid endpoint" in str(error)):
            kind = Later if self.is_reached else BadInput
            return kind(
                f"lake {self.uri}: expected an object store at {_endpoint()}, found no answer; "
                "see whether it runs, and whether AWS_ENDPOINT_URL names it"
            )
        if code in _ELSEWHERE:
            return BadInput(
                f"lake {self.uri}: expected the bucket's region, found another ({code}); set AWS_REGION to the bucket's"
            )
        if code in _NO_NAME or names & set(_NO_NAME):
            return BadInput(f"lake {self.uri}: expected a bucket's name, found one that can't be one; correct --lake")
        return self._unable() if code in _UNABLE else None

    def _no_bucket(self) -> BadInput:
        return BadInput(f"lake {self.uri}: expected its bucket, found none of that name; make it, or correct --lake")

    def _unable(self) -> BadInput:
        return BadInput(
            f"lake {self.uri}: expected a store that refuses to overwrite an object (If-None-Match: *), found one that "
            "does not know how; use a newer version of it, or another store"
        )


def _below(fs: Any, path: str) -> list[str]:
    return [posixpath.relpath(str(name), path) for name in fs.find(path) if not str(name).endswith("/")]


def _code(error: BaseException) -> str:
    """The store's own code of an error, or an empty text; s3fs keeps the error that it translates as its cause."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _endpoint() -> str:
    """Where the store is, without what else such a URL may hold."""
    found = _first(_ENDPOINTS)
    if found is None:
        return "its usual address"
    try:
        parts = urllib.parse.urlsplit(found)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the address in AWS_ENDPOINT_URL"
    return f"{parts.scheme}://{parts.hostname}{port}" if parts.hostname else "the address in AWS_ENDPOINT_URL"
