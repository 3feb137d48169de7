"""moto's S3 server as a process on loopback, and what it does to requests on purpose.

Run as a script it is the server. moto looks for a name and writes it in two steps, so requests are let in one by one:
that makes its conditional puts as atomic as S3's. Names ask for trouble: the first put of a key with ``lost-answer`` in
it is done and answered with an error, the first of one with ``in-the-way`` meets S3's 409; the bucket ``careless``
overwrites whatever is asked of it, and ``closed`` grants nothing.
"""

import io
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

__all__ = ["S3"]

_ACCESS = {"AWS_ACCESS_KEY_ID": "a-key-for-tests", "AWS_SECRET_ACCESS_KEY": "a-secret-for-tests"}
_ALONE = {  # nothing else on this machine is asked for settings or credentials
    "AWS_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "2",
}


class S3:
    """A running server with some buckets: ``lakes``, ``careless``, ``closed``."""

    environment: dict[str, str]

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).resolve())]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.environment = {"AWS_ENDPOINT_URL": self.process.stdout.readline().strip(), **_ACCESS, **_ALONE}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


class _Troubled:
    """The server's application behind a door that lets one in at a time."""

    def __init__(self, application: Any) -> None:
        self.application, self.door, self.met = application, threading.Lock(), set[str]()

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        path = environ["PATH_INFO"]
        with self.door:
            if path.startswith("/closed"):
                return _refuse(environ, start, "403 Forbidden", "AccessDenied")
            if path.startswith("/careless/"):
                environ.pop("HTTP_IF_NONE_MATCH", None)
            trouble = re.search("lost-answer|in-the-way", path)
            if trouble and environ["REQUEST_METHOD"] == "PUT" and path not in self.met:
                self.met.add(path)
                if trouble[0] == "in-the-way":
                    return _refuse(environ, start, "409 Conflict", "ConditionalRequestConflict")
                list(self.application(environ, lambda *_: None))
                environ["wsgi.input"] = io.BytesIO()  # it is read
                return _refuse(environ, start, "500 Internal Server Error", "InternalError")
            return list(self.application(environ, start))


def _refuse(environ: dict[str, Any], start: Any, status: str, code: str) -> list[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start(status, [("Content-Type", "application/xml")])
    is_head = environ["REQUEST_METHOD"] == "HEAD"
    return [] if is_head else [f"<Error><Code>{code}</Code><Message>as asked</Message></Error>".encode()]


def _main() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import make_server

    for bucket in ("lakes", "careless", "closed"):
        s3_backends["123456789012"]["aws"].create_bucket(bucket, "us-east-1")
    server = make_server("127.0.0.1", 0, _Troubled(DomainDispatcherApplication(create_backend_app)), threaded=True)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _main()
