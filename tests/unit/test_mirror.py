"""What of a release is shown in a registry, and where a registry may be."""

from pathlib import Path
from typing import Any

import pytest

from understudy.cli.main import main
from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.releases.mlflow_server import MODEL, URI, Place
from understudy.releases.shown import metrics, origin, params, standing

MANIFEST: dict[str, Any] = {
    "version": "0.1.0",
    "window": {"start": "2026-02-27", "end": "2026-03-02"},
    "time_zone": "UTC",
    "heads": ["click", "save"],
    "teacher": None,
    "parents": {"teacher": None, "production": "ab" * 32, "data": "cd" * 32, "ranked_by": ["e" * 64] * 100},
    "config": {"b": 1, "a": 2},
}


def test_figures_get_plain_names() -> None:
    figures = {
        "heads": {"click": {"auc": 0.7, "auc_interval": [0.6, 0.8], "ece": None, "rows": 9}},
        "difference": {"click": {"auc": -0.1}},
        "by": {"surface": {"home": {"click": {"auc": 0.5}}}},
        "out_of_time": {"by_day": {"2026-01-01": {"click": {"auc": 0.5}}}, "heads": {"étoile": {"auc": 0.4}}},
        "roc": {"click": [[0, 1], [1, 1]]},
        "primary_heads": ["click"],
        "against": "production",
        "fine": True,
        "lost": float("nan"),
    }
    assert metrics(figures) == {
        "click/auc": 0.7,
        "click/auc_interval/low": 0.6,
        "click/auc_interval/high": 0.8,
        "click/rows": 9.0,
        "difference/click/auc": -0.1,
        "out_of_time/heads/_toile/auc": 0.4,
    }


def test_a_release_says_where_it_comes_from() -> None:
    tags = origin("f" * 64, MANIFEST, None, "s3://lake/releases/f")
    assert tags["understudy.window"] == "2026-02-27 to 2026-03-02"
    assert (tags["understudy.teacher"], tags["understudy.parents.production"]) == ("none", "ab" * 32)
    assert "understudy.run" not in tags
    assert max(map(len, tags.values())) == 5000
    assert params(MANIFEST) | {"config_digest": ""} == {
        "config_digest": "",
        "version": "0.1.0",
        "heads": "click, save",
        "time_zone": "UTC",
        "window_start": "2026-02-27",
        "window_end": "2026-03-02",
        "window_days": "4",
    }
    assert params(MANIFEST) == params({**MANIFEST, "config": {"a": 2, "b": 1}}) != params({**MANIFEST, "config": {}})


@pytest.mark.parametrize(
    ("mark", "spread", "word", "expected"),
    [
        (None, False, None, {}),
        (None, False, {"word": "approved", "by": "ada", "note": ""}, {}),
        (None, False, {"word": "refused", "by": "ada", "note": ""}, {"understudy.rejected": "refused by ada"}),
        ({"reason": "other", "note": "slow"}, False, None, {"understudy.rejected": "other: slow"}),
        ({"reason": "data", "note": ""}, False, None, {"understudy.quarantine": "data"}),
    ],
)
def test_how_a_release_stands_is_a_tag(mark: Any, spread: bool, word: Any, expected: dict[str, str]) -> None:
    assert standing(mark, spread, word) == expected
    assert ("understudy.quarantine" in standing(mark, True, word)) is True


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000/", "https://mlflow.example.org/prefix", "http://[::1]:5000"])
def test_a_server_is_named_by_the_environment(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Place.from_environment() is None
    monkeypatch.setenv(URI, uri)
    assert Place.from_environment() == Place(uri.rstrip("/"), "understudy")
    monkeypatch.setenv(MODEL, "home feed v2.1")
    assert Place.from_environment() == Place(uri.rstrip("/"), "home feed v2.1")


@pytest.mark.parametrize(
    "uri",
    [
        "http://ada:s3cret@mlflow:5000",
        "https://s3cret@mlflow",
        "http://ada:s3/cret@mlflow",
        "https://mlflow/?token=s3cret",
        "https://mlflow/#s3cret",
        "postgresql://ada:s3cret@db/mlflow",
        "http://mlflow:s3cret",
        "http://[s3cret",
        "s3cret",
    ],
)
def test_a_uri_that_may_hold_a_secret_is_refused_and_not_repeated(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lake = Lake.open_or_create(str(tmp_path))
    monkeypatch.setenv(URI, uri)
    with pytest.raises(SystemExit) as ended:
        main(["--debug", "releases", "mirror", "--lake", lake.uri()])
    told = "".join(capfd.readouterr())
    assert ended.value.code == 2
    assert f"error: {URI}: expected http(s)://host[:port][/path] and no more" in told
    assert "s3" not in told.replace(str(tmp_path), "")


def test_credentials_travel_where_nobody_reads_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
    for uri in ("https://mlflow.example.org", "http://mlflow.tools.svc.cluster.local:5000"):
        monkeypatch.setenv(URI, uri)
        assert Place.from_environment() == Place(uri, "understudy")
    monkeypatch.setenv(URI, "http://mlflow.example.org")
    with pytest.raises(BadInput, match="since credentials go with every request") as refused:
        Place.from_environment()
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("name", ["a'b", "a/b", " ", "a:b", "-a"])
def test_a_model_s_name_is_plain(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URI, "http://mlflow:5000")
    monkeypatch.setenv(MODEL, name)
    if name.strip():
        with pytest.raises(BadInput, match=f"{MODEL}: expected letters"):
            Place.from_environment()
    else:
        assert Place.from_environment() == Place("http://mlflow:5000", "understudy")
