"""``understudy compare`` on real logs: one table, several configurations, resumable, nothing released."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from understudy import config as configuration
from understudy.cli.main import cli
from understudy.comparison import compare
from understudy.config import Config
from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.logs.ingest import ingest
from understudy.report import comparison as page

SMALL = {"epochs": 1, "ranker": {"hidden": [8], "cross_layers": 1, "cross_rank": 4}}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, logs: Path, config: Config, session: SparkSession) -> Path:
    folder = tmp_path_factory.mktemp("compare") / "lake"
    ingest(config, str(logs), str(folder))
    return folder


def variant(**changes: Any) -> Config:
    value = yaml.safe_load((Path(__file__).parents[2] / "examples" / "generated.yaml").read_text())
    value["training"] = {**SMALL, **changes.pop("training", {})}
    if outcomes := changes.pop("outcomes", None):
        value["source"]["outcomes"] = outcomes
    return configuration.parse({**value, **changes}, "test")


@pytest.fixture(scope="module")
def found(lake: Path) -> dict[str, Any]:
    configs = {
        "plain": variant(),
        "few": variant(sampling={"negative_rate": 0.2}),
        "two": variant(outcomes={"click": "is_click", "like": "is_like"}),
        "short": variant(features={"recent_events": 4}),
    }
    said: list[str] = []
    result = compare(str(lake), configs, "2022-04-30", 2, said.append)
    assert [text for text in said if text.startswith("few")] == ["few, seed 0", "few, seed 1"]
    return result


def test_all_are_compared_with_the_first_on_the_same_rows(found: dict[str, Any]) -> None:
    click = found["heads"]["click"]
    assert list(click) == ["plain", "few", "two", "short"]
    assert "difference" not in click["plain"]
    for name in ("few", "two", "short"):
        low, high = click[name]["difference"]["auc_interval"]
        assert low < high
    assert found["costs"]["few"]["rows"] < found["costs"]["plain"]["rows"]
    assert found["window"]["end"] == "2022-04-30"


def test_what_is_trained_is_not_trained_again_and_one_more_costs_only_itself(lake: Path, found: dict[str, Any]) -> None:
    said: list[str] = []
    configs = {
        "plain": variant(),
        "few": variant(sampling={"negative_rate": 0.2}),
        "more": variant(sampling={"seed": 7}),
    }
    again = compare(str(lake), configs, "2022-04-30", 2, said.append)
    assert [text for text in said if ", seed" in text] == ["more, seed 0", "more, seed 1"]
    assert again["heads"]["click"]["few"] == found["heads"]["click"]["few"]


def test_nothing_is_released_and_the_page_opens_without_a_network(lake: Path, found: dict[str, Any]) -> None:
    assert not (lake / "releases").exists()
    text = Path(page.write(Lake.open(str(lake)), found)).read_text()
    assert "4 configurations on one window" in text
    assert "<svg" in text
    assert "http://" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    json.dumps(found)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (variant(outcomes={"click": "is_click", "share": "is_forward"}), "expected heads of lake"),
        (variant(window={"days": 3}), "expected one time_zone, labels and window"),
    ],
)
def test_what_cannot_be_paired_is_one_clear_line(lake: Path, other: Config, expected: str) -> None:
    with pytest.raises(BadInput, match=expected):
        compare(str(lake), {"plain": variant(), "other": other}, "2022-04-30", 1, lambda _: None)


def test_one_configuration_is_nothing_to_compare(lake: Path) -> None:
    with pytest.raises(BadInput, match="expected two configurations or more, found 1"):
        cli.main(["compare", "examples/generated.yaml", "--lake", str(lake)], standalone_mode=False)
