"""Kubeflow Pipelines' API v2beta1 on loopback, as its published client and server have it: the part that we use.

Names that must be unique answer 409, unknown fields and filters 400; lists come page by page and leave out what is
empty; a cron is read by robfig's rules; deleting a recurring run ends what it has in flight, unless it is told to leave
it. Uploads are read as YAML.
"""

import contextlib
import datetime
import json
import re
import socket
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

import kfp_server_api
import yaml
from http_server import listening

__all__ = ["Call", "Kubeflow", "running"]

Json = dict[str, Any]
_PREFIX = "/apis/v2beta1"
_TABLES = {
    "pipelines": "pipeline_id",
    "experiments": "experiment_id",
    "recurringruns": "recurring_run_id",
    "runs": "run_id",
}
_MODELS = {
    "pipelines": kfp_server_api.V2beta1Pipeline,
    "experiments": kfp_server_api.V2beta1Experiment,
    "recurringruns": kfp_server_api.V2beta1RecurringRun,
    "runs": kfp_server_api.V2beta1Run,
}
_FILTERS = {
    "pipelines": {"display_name", "name", "pipeline_id", "created_at", "description", "namespace"},
    "experiments": {"display_name", "name", "experiment_id", "created_at", "storage_state"},
    "recurringruns": {"display_name", "name", "recurring_run_id", "created_at", "updated_at", "description"},
    "runs": {
        "display_name",
        "name",
        "run_id",
        "created_at",
        "state",
        "recurring_run_id",
        "experiment_id",
        "pipeline_id",
    },
    "versions": {"display_name", "name", "pipeline_version_id", "created_at", "description"},
}
_ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
_RANGES = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


class Call(NamedTuple):
    """A request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]


class Fault(Exception):
    """An answer of the API that is none."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Kubeflow:
    """The server's state.

    ``fault`` is asked before each request: None, an HTTP status, ``before`` or ``after``: the connection is cut before
    or after the server has acted. ``page``: answers with a page for people. ``most``: rows of a page.

    Args:
        token: that must be sent; None: anybody may come.
        multi_user: whether everything has a namespace.
        orphans: whether it is new enough to know `propagation_policy`.
    """

    most = 200

    def __init__(self, *, token: str | None = None, multi_user: bool = False, orphans: bool = True) -> None:
        self.token, self.multi_user, self.orphans = token, multi_user, orphans
        self.tables: dict[str, dict[str, Json]] = {name: {} for name in _TABLES}
        self.versions: dict[str, Json] = {}
        self.calls: list[Call] = []
        self.fault: Callable[[Call], int | str | None] = lambda _: None
        self.trouble = "trouble"  # the words of a fault
        self.page: str | None = None
        self.terminated: list[str] = []
        self.clock = datetime.datetime(2026, 11, 27, 12, tzinfo=datetime.UTC)

    def writes(self) -> list[str]:
        """What was asked that is no question: method and path."""
        return [f"{one.method} {one.path}" for one in self.calls if one.method != "GET"]

    def named(self, table: str) -> dict[str, Json]:
        """Display name → object."""
        return {one["display_name"]: one for one in self.tables[table].values()}

    def start(self, recurring_run: str, state: str = "RUNNING", **more: Any) -> str:
        """What the schedule controller does when it is time."""
        job = self.tables["recurringruns"][recurring_run]
        value = {"display_name": "scheduled", "state": state, "recurring_run_id": recurring_run}
        return self._store("runs", {**value, "experiment_id": job["experiment_id"], **more})["run_id"]

    def steps(self, run_id: str, state: str, **steps: str) -> None:
        """How far a run is: step → state, with all that the server runs around them."""
        details = [{"display_name": name, "state": "SUCCEEDED", "task_id": name} for name in ("root", "root-driver")]
        for at, (step, its_state) in enumerate(steps.items()):
            name = step.replace("_", "-")
            times = {
                "create_time": self._time(10 * at),
                "start_time": self._time(10 * at),
                "end_time": self._time(10 * at + 7),
            }
            if its_state == "RUNNING":
                times["end_time"] = "0001-01-01T00:00:00Z"
            details += [{"display_name": f"{name}-driver", "state": "SUCCEEDED", "task_id": f"{name}-driver"}]
            details += [{"display_name": name, "state": its_state, "task_id": name, **times}]
        self.tables["runs"][run_id] |= {"state": state, "run_details": {"task_details": details}}

    def _time(self, seconds: float = 0) -> str:
        return (self.clock + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def answer(self, call: Call, body: bytes) -> Json:
        """Act, and say what came of it."""
        if self.token is not None and call.headers.get("authorization") != f"Bearer {self.token}":
            raise Fault(401, "Unauthenticated")
        path = call.path.removeprefix(_PREFIX)
        if path == "/healthz":
            return {"multi_user": self.multi_user, "pipeline_store": "database"}
        if path == "/pipelines/upload_version":
            return self._upload(call, body)
        if match := re.fullmatch(r"/pipelines/([^/]+)/versions", path):
            found = [one for one in self.versions.values() if one["pipeline_id"] == match[1]]
            return self._list("versions", "pipeline_versions", found, call)
        match = re.fullmatch(r"/(\w+)(?:/([^/:]+))?(?::(\w+))?", path)
        if match is None or match[1] not in self.tables:
            raise Fault(404, "Not Found")
        table, key, verb = match.groups()
        if key is None:
            return self._create(table, json.loads(body)) if call.method == "POST" else self._listed(table, call)
        found = self.tables[table].get(key)
        if found is None:
            raise Fault(404, f"{table} {key} not found")
        if call.method == "DELETE":
            return self._delete(table, key, call.query)
        if table == "recurringruns" and verb in ("enable", "disable"):
            found |= {"mode": verb.upper(), "status": f"{verb.upper()}D"}
            return {}
        return found

    def _create(self, table: str, value: Json) -> Json:
        unknown = set(value) - set(_MODELS[table].attribute_map.values())
        if unknown or not value.get("display_name"):
            raise Fault(400, f"Invalid input error: {sorted(unknown) or 'display_name is empty'}")
        if table in ("pipelines", "experiments"):
            if self.multi_user and not value.get("namespace"):
                raise Fault(400, "Invalid input error: Invalid resource references: namespace is empty")
            for one in self.tables[table].values():
                if (one["display_name"], one.get("namespace")) == (value["display_name"], value.get("namespace")):
                    raise Fault(409, f"Already exist error: {value['display_name']} already exists")
            return self._store(table, value)
        return self._store(table, {**value, **self._checked(table, value)})

    def _checked(self, table: str, value: Json) -> Json:
        """What the server fills in for runs and recurring runs."""
        if value.get("experiment_id") not in self.tables["experiments"]:
            raise Fault(404, f"Experiment {value.get('experiment_id')} not found")
        version = (value.get("pipeline_version_reference") or {}).get("pipeline_version_id")
        if version not in self.versions:
            raise Fault(404, f"PipelineVersion {version} not found")
        known = self.versions[version]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
        given = (value.get("runtime_config") or {}).get("parameters") or {}
        if set(given) - set(known) or any(
            "defaultValue" not in one for name, one in known.items() if name not in given
        ):
            raise Fault(400, f"Invalid input error: parameters {sorted(given)} are not those of the pipeline")
        filled = {"service_account": value.get("service_account") or "pipeline-runner"}
        if table == "runs":
            return {**filled, "state": "PENDING"}
        _check_cron(value["trigger"]["cron_schedule"]["cron"])
        if not 1 <= int(value["max_concurrency"]) <= 10:
            raise Fault(
                400, "Invalid input error: The max concurrency of the recurring run is out of range. Support 1-10"
            )
        on = value.get("mode") == "ENABLE"
        return {**filled, "max_concurrency": str(value["max_concurrency"]), "status": "ENABLED" if on else "DISABLED"}

    def _store(self, table: str, value: Json) -> Json:
        key = str(uuid.uuid4())
        self.clock += datetime.timedelta(seconds=1)
        stored = {**{name: one for name, one in value.items() if one is not None}, _TABLES[table]: key}
        self.tables[table][key] = {**stored, "created_at": self._time()}
        return self.tables[table][key]

    def _delete(self, table: str, key: str, query: dict[str, str]) -> Json:
        del self.tables[table][key]
        orphan = self.orphans and query.get("propagation_policy") == "ORPHAN"
        for one in self.tables["runs"].values() if table == "recurringruns" and not orphan else ():
            if one.get("recurring_run_id") == key and one["state"] not in _ENDED:
                one["state"] = "FAILED"  # the workflow goes with its owner
                self.terminated.append(one["run_id"])
        return {}

    def _upload(self, call: Call, body: bytes) -> Json:
        pipeline_id, name = call.query.get("pipelineid", ""), call.query.get("name", "")
        if pipeline_id not in self.tables["pipelines"]:
            raise Fault(400, "Failed to create a pipeline version")
        if any((one["pipeline_id"], one["display_name"]) == (pipeline_id, name) for one in self.versions.values()):
            raise Fault(409, "Failed to create a pipeline version")
        text = re.split(rb"\r\n\r\n", body, maxsplit=1)[1].rpartition(b"\r\n--")[0]
        spec, *platform = yaml.load_all(text, yaml.CSafeLoader)
        if "pipelineInfo" not in spec or len(platform) > 1:
            raise Fault(400, "Failed to create a pipeline version: not a pipeline")
        key = str(uuid.uuid4())
        value = {"pipeline_id": pipeline_id, "pipeline_version_id": key, "display_name": name, "name": name}
        self.versions[key] = {**value, "pipeline_spec": spec, "created_at": self._time()}
        return self.versions[key]

    def _listed(self, table: str, call: Call) -> Json:
        found = list(self.tables[table].values())
        for key in ("experiment_id", "namespace"):
            if call.query.get(key):
                found = [one for one in found if one.get(key) == call.query[key]]
        if self.multi_user and not (call.query.get("namespace") or call.query.get("experiment_id")):
            raise Fault(400, "Invalid input error: namespace is empty in multi-user mode")
        return self._list(table, "recurringRuns" if table == "recurringruns" else table, found, call)

    def _list(self, table: str, key: str, found: list[Json], call: Call) -> Json:
        for one in json.loads(call.query.get("filter") or "{}").get("predicates", []):
            if one["key"] not in _FILTERS[table] or one["operation"] not in (1, 2):
                raise Fault(400, f"Invalid input error: no filter on {one['key']}")
            alike = one["operation"] == 1
            found = [row for row in found if (row.get(one["key"]) == one["stringValue"]) is alike]
        field, _, way = (call.query.get("sort_by") or "created_at").partition(" ")
        found.sort(key=lambda row: row[field], reverse=way == "desc")
        size, start = int(call.query.get("page_size") or 20), int(call.query.get("page_token") or 0)
        rows, more = found[start : start + min(size, self.most)], len(found) > start + min(size, self.most)
        return {
            **({key: rows} if rows else {}),
            **({"total_size": len(found)} if found else {}),
            **({"next_page_token": str(start + len(rows))} if more else {}),
        }


def _check_cron(text: str) -> None:
    fields = text.split()
    if not 5 <= len(fields) <= 6 or "=" in text:
        raise Fault(
            400, f"Invalid input error: Schedule cron is not a supported format: Expected 5 to 6 fields: {text}"
        )
    for field, (low, high) in zip(fields, _RANGES, strict=False):
        for number in re.findall(r"\d+", field.partition("/")[0]):
            if not low <= int(number) <= high:
                raise Fault(400, f"Invalid input error: Schedule cron: {number} beyond range: {text}")


@contextlib.contextmanager
def running(kubeflow: Kubeflow) -> Iterator[str]:
    """The server's URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            call = Call(self.command, path, dict(urllib.parse.parse_qsl(query)), headers)
            kubeflow.calls.append(call)
            fault = kubeflow.fault(call)
            if fault == "before":
                return self._cut()
            status, value = self._act(fault, call, body)
            if fault == "after":
                return self._cut()
            return self._say(status, value)

        do_POST = do_DELETE = do_GET

        def _act(self, fault: int | str | None, call: Call, body: bytes) -> tuple[int, Json]:
            if isinstance(fault, int):
                return fault, {"code": 13, "message": kubeflow.trouble, "details": []}
            try:
                return 200, kubeflow.answer(call, body)
            except Fault as error:
                return error.status, {"error": str(error), "code": 3, "message": str(error), "details": []}

        def _cut(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def _say(self, status: int, value: Json) -> None:
            data = (kubeflow.page or json.dumps(value)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if kubeflow.page else "application/json")
            self.send_header("Content-Length", str(len(data)))
            if 300 <= status < 400:
                self.send_header("Location", "/dex/auth")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as url:
        yield url
