"""The demo as a newcomer runs it: a simulated feed that keeps its ranker fresh, through the whole pipeline."""

import html
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import ROOT, understudy

EXAMPLES = ROOT / "examples"
NAMES = {"random", "popularity", "oracle", "refreshed", "frozen", "ceiling"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's world with fewer people, and bounds for what so few show."""
    value = yaml.safe_load((EXAMPLES / "simulated.yaml").read_text())
    value["world"] |= {"users": 300, "new_items_per_day": 20, "requests_per_day": 700, "candidates": 80}
    value["evaluation"] |= {"auc_margin": 0.1, "max_calibration_error": 0.5, "max_ece": 0.1}
    value["rollout"] |= {"min_users": 20, "max_duration": "2d"}
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, small: Path) -> tuple[list[str], dict[str, Any]]:
    """The command and what it printed."""
    lake = str(tmp_path_factory.mktemp("demo") / "lake")
    command = ["demo", "--config", str(small), "--weeks", "1", "--lake", lake, "--json"]
    return command, json.loads(understudy(*command))


@pytest.mark.slow
def test_the_table_compares_every_ranker_on_the_same_requests(shown: tuple[list[str], dict[str, Any]]) -> None:
    _, found = shown
    assert [week["number"] for week in found["weeks"]] == [0, 1]
    first, last = (week["figures"] for week in found["weeks"])
    assert set(first) == {"random", "popularity", "oracle"}
    assert set(last) == NAMES
    assert last["random"]["lift"] == 0.0
    assert last["oracle"]["lift"] == 1.0
    for name in ("refreshed", "ceiling"):  # of so few people's week the two can't be told apart
        assert 0.0 < last["popularity"]["lift"] < last[name]["lift"] < 1.0
    assert last["refreshed"] == last["frozen"]
    assert 0.5 < last["refreshed"]["auc"] < last["oracle"]["auc"]
    assert 0.5 < last["refreshed"]["calibration_ratio"] < 2.0


@pytest.mark.slow
def test_the_page_opens_without_a_network(shown: tuple[list[str], dict[str, Any]]) -> None:
    _, found = shown
    page = html.unescape(Path(found["page"]).read_text())
    assert found["headline"] in page
    assert "<svg" in page
    assert "<script" not in page
    assert 'src="http' not in page


@pytest.mark.slow
def test_the_same_command_finds_what_is_done(shown: tuple[list[str], dict[str, Any]]) -> None:
    command, found = shown
    again = json.loads(understudy(*command))
    assert again["weeks"] == found["weeks"]
    assert again["on_stage"] == found["on_stage"]


@pytest.mark.slow
def test_two_releases_go_on_stage_and_the_spoiled_one_is_taken_back(shown: tuple[list[str], dict[str, Any]]) -> None:
    """Whether so few people's days promote the first one is left open; every end is one that the judge can give."""
    _, found = shown
    first, second = found["on_stage"]
    assert first["phase"] in ("promoted", "rejected", "aborted")
    assert first["said"][-1].startswith(first["phase"])
    assert (second["phase"], second["reason"]) == ("aborted", "scoring")
    assert "click is predicted +" in second["said"][-1]
    assert second["said"][-1] in html.unescape(Path(found["page"]).read_text())


@pytest.mark.slow
def test_a_lake_of_another_world_is_refused(shown: tuple[list[str], dict[str, Any]]) -> None:
    command, _ = shown
    said = understudy(*command, "--seed", "5", code=2)
    assert "expected the configuration of its first week, found another" in said
    assert said.count("\n") == 1


def test_a_configuration_without_a_world_is_one_clear_line(tmp_path: Path) -> None:
    said = understudy("demo", "--config", str(EXAMPLES / "collector.yaml"), "--lake", str(tmp_path / "lake"), code=2)
    assert "expected the keys world and logging" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "lake").exists()


VARIATIONS = sorted(path.name for path in EXAMPLES.glob("*.yaml") if "\nbase: simulated.yaml" in path.read_text())


def test_every_variation_is_small_and_says_why() -> None:
    assert len(VARIATIONS) == 7
    for name in VARIATIONS:
        text = (EXAMPLES / name).read_text()
        assert text.startswith("# ")
        assert text.count("\n") <= 16


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIATIONS)
def test_a_variation_makes_a_release(tmp_path: Path, name: str) -> None:
    config, lake = str(EXAMPLES / name), str(tmp_path / "lake")
    understudy("simulate", "--config", config, "--days", "8", "--ranker", "popularity", "--lake", lake)
    run = json.loads(understudy("run", "--config", config, "--lake", lake, "--window-end", "2026-01-11", "--json"))
    assert run["promoted"]
    check(name, json.loads(understudy("runs", "show", run["run"], "--lake", lake, "--json")), config, lake)


def check(name: str, record: dict[str, Any], config: str, lake: str) -> None:
    """What this variation is for."""
    steps = record["figures"]
    if name == "importance.yaml":
        rules = {row["rule"] for row in steps["sample_examples"]["rules"]}
        assert rules == {"default", "newcomers", "live items"}
        assert {"user_profile__cohort", "item_profile__content_type"} <= set(steps["evaluate"]["by"])
    elif name == "two_heads.yaml":
        assert set(steps["evaluate"]["heads"]) == {"click", "save"}
    elif name == "more_random.yaml":
        slices = steps["evaluate"]["by"]["slice"]
        assert slices["random"]["click"]["rows"] > 300
    elif name == "ensemble.yaml":
        found = steps["evaluate"]["teaching"]
        assert found["ensemble"]["click"]["ensemble"] > found["ensemble"]["click"]["mean"]
        assert found["control"]["click"]["auc_interval"]
    elif name == "loader.yaml":
        assert steps["train_ranker"]["rows"] == steps["train_ranker"]["considered"]
        assert steps["sample_examples"]["rules"][0]["rule"] == "default"
    elif name == "daily.yaml":
        again = understudy("run", "--config", config, "--lake", lake, "--window-end", "2026-01-12", "--json")
        assert json.loads(again)["promoted"]
    else:
        understudy("run", "--config", config, "--lake", lake, "--window-end", "2026-01-12")
        releases = json.loads(understudy("releases", "list", "--lake", lake, "--json"))
        assert [one["teacher"] for one in releases] == [None, None]
