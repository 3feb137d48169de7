"""Bringing a pipeline to Kubeflow Pipelines: kfp's client against an emulated server, through every fault."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from http_server import nobody
from kfp import Client
from kubeflow_config import configured, written
from kubeflow_server import Call, Kubeflow, running

from pipelines import connection as connecting
from pipelines.compile import Compiled, compiled
from pipelines.connection import COOKIES, TOKEN, Connection, Lost, Refused, connect
from pipelines.upload import experiment_id, upload, version_names
from understudy.cli.main import main
from understudy.errors import BadInput, UnderstudyError

SECRET = "eyJhbGciOi.T0ken.x9secret"


@functools.cache
def made(window_days: int = 14, kind: str = "refresh") -> Compiled:
    return compiled(configured(window_days), kind)


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (TOKEN, COOKIES, "KF_PIPELINES_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))


@pytest.fixture
def kubeflow() -> Iterator[tuple[Kubeflow, Connection]]:
    server = Kubeflow()
    with running(server) as url:
        yield server, connect(configured().pipeline, url)


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_a_version_is_named_by_its_content(kubeflow: tuple[Kubeflow, Connection]) -> None:
    server, connection = kubeflow
    first = upload(connection, made())
    assert first.new
    assert list(server.named("pipelines")) == ["understudy-refresh"]
    (version,) = server.versions.values()
    assert (version["display_name"], version["pipeline_id"]) == (made().version, first.pipeline_id)
    assert version["pipeline_spec"]["pipelineInfo"]["name"] == "understudy-refresh"


def test_unchanged_content_uploads_nothing(kubeflow: tuple[Kubeflow, Connection]) -> None:
    server, connection = kubeflow
    first = upload(connection, made())
    server.calls.clear()
    again = upload(connection, made())
    assert (again.version_id, again.new) == (first.version_id, False)
    assert server.writes() == []


def test_new_content_is_a_version_of_the_same_pipeline(kubeflow: tuple[Kubeflow, Connection]) -> None:
    server, connection = kubeflow
    first, second = upload(connection, made()), upload(connection, made(7))
    assert first.pipeline_id == second.pipeline_id
    assert version_names(connection, "understudy-refresh") == {
        first.version_id: made().version,
        second.version_id: made(7).version,
    }
    assert len(server.tables["pipelines"]) == 1


def test_a_pipeline_that_is_there_is_found_on_any_page(kubeflow: tuple[Kubeflow, Connection]) -> None:
    server, connection = kubeflow
    server.most = 2
    for at in range(5):
        server._store("pipelines", {"display_name": f"other {at}"})
    first = upload(connection, made())
    for at in range(5):
        server.versions[f"x{at}"] = {
            **server.versions[first.version_id],
            "pipeline_version_id": f"x{at}",
            "display_name": f"v{at}",
        }
    assert upload(connection, made()).version_id == first.version_id
    assert len(version_names(connection, "understudy-refresh")) == 6


def lose(server: Kubeflow, method: str, path: str, fault: int | str) -> Callable[[Call], int | str | None]:
    """The fault at the first such request only."""
    left = [fault]

    def choose(call: Call) -> int | str | None:
        return left.pop() if left and (call.method, path) == (method, call.path.rpartition("/")[2]) else None

    return choose


@pytest.mark.parametrize("path", ["pipelines", "upload_version"])
@pytest.mark.parametrize("fault", ["after", "before", 502, 500])
def test_an_answer_that_is_lost_makes_nothing_twice(
    kubeflow: tuple[Kubeflow, Connection], path: str, fault: int | str
) -> None:
    server, connection = kubeflow
    server.fault = lose(server, "POST", path, fault)
    try:
        done = upload(connection, made())
    except Lost:
        assert fault != "after"
        done = upload(connection, made())
    assert len(server.tables["pipelines"]) == len(server.versions) == 1
    assert done.version_id in server.versions


def test_two_who_upload_at_once_share_one_version(kubeflow: tuple[Kubeflow, Connection]) -> None:
    """Another was faster between our look and our request: 409."""
    server, connection = kubeflow

    def overtake(call: Call) -> None:
        server.fault = lambda _: None
        if call.method == "POST":
            upload(connection, made())

    server.fault = lambda call: overtake(call) if call.method == "POST" else None
    upload(connection, made())
    assert len(server.tables["pipelines"]) == len(server.versions) == 1


def test_the_experiment_is_made_once(kubeflow: tuple[Kubeflow, Connection]) -> None:
    server, connection = kubeflow
    server.fault = lose(server, "POST", "experiments", "after")
    first = experiment_id(connection, configured().pipeline)
    assert experiment_id(connection, configured().pipeline) == first
    assert list(server.named("experiments")) == ["understudy"]


def test_of_several_users_each_has_a_namespace() -> None:
    server = Kubeflow(multi_user=True)
    with running(server) as url:
        for namespace in ("recs", "ads"):
            connection = connect(configured(namespace=namespace).pipeline, url)
            assert upload(connection, made()).new
            experiment_id(connection, configured().pipeline)
        assert {one["namespace"] for one in server.tables["pipelines"].values()} == {"recs", "ads"}
        assert {one["namespace"] for one in server.tables["experiments"].values()} == {"recs", "ads"}
        with pytest.raises(Refused, match="namespace is empty"):
            upload(connect(configured().pipeline, url), made())


def test_a_token_lets_in_and_never_shows(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    server = Kubeflow(token=SECRET)
    with running(server) as url:
        with pytest.raises(BadInput, match=f"expected to be let in, found status 401.*set {TOKEN}"):
            connect(configured().pipeline, url)
        monkeypatch.setenv(TOKEN, f"{SECRET}\n")
        upload(connect(configured().pipeline, url), made())
        assert server.versions
        monkeypatch.setenv(TOKEN, "an old one")
        with pytest.raises(BadInput) as error:
            connect(configured().pipeline, url)
    said = str(error.value) + "".join(capfd.readouterr())
    assert SECRET not in said
    assert "an old one" not in said


def test_a_refusal_of_the_cluster_behind_it_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Kubeflow()
    with running(server) as url:
        connection = connect(configured().pipeline, url)
        for status, words, advised in (
            (403, "pods is forbidden: exceeded quota: q, requested: pods=2", "pods=2); ask for less"),
            (500, 'admission webhook "w" denied the request: no digest', "no digest); change what the webhook names"),
        ):
            server.fault = lambda _, status=status: status  # type: ignore[misc]
            server.trouble = words
            with pytest.raises(Refused) as refused:
                upload(connection, made())
            assert advised in str(refused.value)
            assert TOKEN not in str(refused.value)


def test_a_token_of_the_cluster_is_read_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The kubelet renews a projected token in place."""
    server, file = Kubeflow(token="first"), tmp_path / "token"
    file.write_text("first")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
    with running(server) as url:
        connection = connect(configured().pipeline, url)
        file.write_text("second")
        server.token = "second"
        assert upload(connection, made()).new


def test_a_token_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "none"))
    with running(Kubeflow()) as url, pytest.raises(BadInput, match="expected a file of KF_PIPELINES_SA_TOKEN_PATH"):
        connect(configured().pipeline, url)


def test_cookies_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Kubeflow()
    monkeypatch.setenv(COOKIES, f"authservice_session={SECRET}")
    with running(server) as url:
        upload(connect(configured().pipeline, url), made())
    assert {one.headers["cookie"] for one in server.calls} == {f"authservice_session={SECRET}"}


def test_a_secret_does_not_travel_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, SECRET)
    with pytest.raises(BadInput, match="expected https for a token or a cookie, found http") as error:
        connect(configured(host="http://kubeflow.example.com").pipeline)
    assert SECRET not in str(error.value)


def test_a_login_page_is_no_answer(kubeflow: tuple[Kubeflow, Connection]) -> None:
    server, connection = kubeflow
    server.page = "<html>Log in</html>"
    with pytest.raises(BadInput, match="expected an answer of the API, found a page, perhaps a login"):
        upload(connection, made())
    server.page, server.fault = None, lambda _: 302
    server.calls.clear()
    with pytest.raises(BadInput, match="found a redirect, perhaps to a login"):
        upload(connection, made())
    assert [one.path for one in server.calls] == ["/apis/v2beta1/pipelines"]


def test_who_is_not_there_is_told_in_one_line() -> None:
    with pytest.raises(BadInput, match=r"pipeline\.host: expected the URL of Kubeflow Pipelines, found none"):
        connect(configured().pipeline)
    url = nobody()
    with pytest.raises(
        UnderstudyError, match=f"Kubeflow Pipelines at {url}: its state: expected an answer, found none"
    ):
        connect(configured().pipeline, url)
    with pytest.raises(BadInput, match="host: expected a URL"):
        connect(configured().pipeline, "localhost:8888")


def test_a_server_that_is_silent_is_left(
    kubeflow: tuple[Kubeflow, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    server, connection = kubeflow
    monkeypatch.setattr(connecting, "_LIMIT_S", (1, 0.1))
    server.fault = lambda _: time.sleep(0.3)
    with pytest.raises(Lost, match="expected an answer, found none"):
        connection.call("nothing", connection.client.create_experiment, "a")


def test_another_answer_than_the_api_s_is_told(kubeflow: tuple[Kubeflow, Connection]) -> None:
    server, connection = kubeflow
    server.page = None
    server._list = lambda *_: {"pipelines": [{"pipeline_id": "1", "created_at": "yesterday"}]}  # type: ignore[method-assign]
    with pytest.raises(UnderstudyError, match="expected an answer of API v2beta1, found another"):
        upload(connection, made())


def test_the_command_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = written(tmp_path, schedules=[{"name": "features", "kind": "refresh", "cron": "5 * * * *"}])
    server = Kubeflow()
    with running(server) as url:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", url)
        assert command("upload", "--config", config) == 0
        said = capsys.readouterr().out.splitlines()
        assert said == [
            f"understudy-retrain: {made(kind='retrain').version} uploaded",
            f"understudy-refresh: {made().version} uploaded",
        ]
        assert command("upload", "--config", config, "--json") == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        assert [(one["version"], one["new"]) for one in found] == [
            (made(kind="retrain").version, False),
            (made().version, False),
        ]
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", nobody())
        assert command("upload", "--config", config, "--host", url) == 0
        assert command("upload", "--config", config) == 1
    assert capsys.readouterr().err.count("\n") == 1
