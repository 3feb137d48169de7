"""Whether what the server says of itself is true: schemathesis makes requests from the description, good and bad."""

import shutil
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from ranking import HEADERS, TOKEN
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from starlette.applications import Starlette

from understudy.serving.app import Options, rank_server
from understudy.serving.following import Following

PATHS = [
    "/v1/rank",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/ranker",
    "/v2/models/ranker/ready",
    "/v2/models/ranker/infer",
    "/v2/models/ranker/versions/{version}",
    "/v2/models/ranker/versions/{version}/ready",
    "/v2/models/ranker/versions/{version}/infer",
    "/metrics",
    "/openapi.json",
]
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]


@pytest.fixture(scope="module")
def app(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Starlette:
    lake = tmp_path_factory.mktemp("openapi") / "lake"
    shutil.copytree(released, lake)
    return rank_server(Following(str(lake), "production"), Options(TOKEN, look_s=3600, log_requests=False))


@pytest.fixture(scope="module")
def description(app: Starlette) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def test_every_route_is_described(app: Starlette, description: Any) -> None:
    assert set(description.raw_schema["paths"]) == {route.path for route in app.routes} == set(PATHS)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("path", PATHS)
def test_the_description_is_true(description: Any, path: str, mode: GenerationMode) -> None:
    (method,) = description[path].keys()
    checks = list(CHECKS)
    if not path.endswith("/infer"):  # that a tensor's shape is that of its data can't be said in a schema
        checks.append(positive_data_acceptance)

    @hypothesis.settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @hypothesis.given(case=description[path][method].as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        limit = case.body.get("limit") if isinstance(case.body, dict) else None
        hypothesis.assume(not isinstance(limit, float))  # to JSON Schema 3.0 is an integer, to us it is not
        case.call_and_validate(headers=HEADERS, checks=checks)

    try:
        ask()
    except hypothesis.errors.Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # nothing is given that could be wrong
        assert method == "get"
