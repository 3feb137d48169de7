"""What rankers are worth under the truth, and the loop over weeks with a pipeline that is a plain function."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from understudy import config as configuration
from understudy.config import Config
from understudy.inputs import Feeds
from understudy.lake import Lake
from understudy.simulator import closed_loop, feed
from understudy.simulator.closed_loop import Settings, Week, run_weeks
from understudy.simulator.config import World
from understudy.simulator.contest import Contest, expected_worth, soft_auc
from understudy.simulator.rankers import WORTH, Chance, Oracle, Popularity
from understudy.simulator.traffic import requests_of, respond
from understudy.simulator.world import new_state
from understudy.snapshot import Snapshot

ROOT = Path(__file__).resolve().parent.parent.parent
WORLD = World(users=200, creators=20, new_items_per_day=25, requests_per_day=200, candidates=40, slots=8)


@pytest.fixture
def config() -> Config:
    return dataclasses.replace(configuration.load(ROOT / "examples" / "simulated.yaml"), world=WORLD)


def test_auc_under_the_truth_is_auc_where_the_truth_is_certain() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(2_000) < 0.2).astype(float)
    scores = np.round(rng.random(2_000) + 0.3 * labels, 2)
    assert soft_auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_auc_under_the_truth_is_what_drawn_labels_give_in_the_mean() -> None:
    rng = np.random.default_rng(1)
    true = rng.beta(1, 9, 20_000)
    scores = true + rng.normal(0, 0.05, len(true))
    drawn = [roc_auc_score(rng.random(len(true)) < true, scores) for _ in range(20)]
    assert soft_auc(scores, true) == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(len(drawn)))


def test_expected_worth_is_what_people_do_in_the_mean() -> None:
    world = dataclasses.replace(WORLD, requests_per_day=30_000)
    state = new_state(world)
    requests = requests_of(state, world)
    scores = Oracle(state)(requests)
    outcomes = respond(state, world, requests, scores, 0.0)
    counted = (outcomes.done @ WORTH).sum(1)
    noise = counted.std() / np.sqrt(len(requests))
    expected = expected_worth(state, world, requests, scores) / len(requests)
    assert counted.mean() == pytest.approx(expected, abs=4 * noise)


def test_nobody_beats_the_oracle_and_chance_lifts_nothing(config: Config) -> None:
    state = new_state(WORLD)
    requests = requests_of(state, WORLD)

    def constant(feeds: Feeds) -> np.ndarray:
        return np.full((requests.candidates.size, len(config.heads)), 0.1)

    contest = Contest(state, WORLD, config.heads, {"constant": constant}, 1.0)
    contest.compare(contest.chosen(requests), {}, Popularity())
    figures = contest.figures()
    assert figures["oracle"]["lift"] == 1.0
    assert figures["random"]["lift"] == 0.0
    assert abs(figures["constant"]["lift"]) < 0.1
    assert figures["constant"]["auc"] == pytest.approx(0.5)
    assert all(one["lift"] <= 1.0 for one in figures.values())


def test_each_week_is_ranked_by_the_release_before_it(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    rng = np.random.default_rng(0)

    def retrain(window_end: str) -> str:
        made.append(window_end)
        return f"release-{len(made)}"

    def model(lake: Lake, digest: str, live: object) -> closed_loop.Model:
        return lambda feeds: rng.random((len(feeds["hour"]), len(config.heads)))

    monkeypatch.setattr(closed_loop, "release_model", model)
    lake = Lake.open_or_create(str(tmp_path / "lake"))
    seen: list[Week] = []
    weeks, _ = run_weeks(config, lake, Settings(weeks=2, ceiling="none"), retrain, lambda _: None, seen.append)
    assert weeks == seen
    assert [week.release for week in weeks] == [None, "release-1", "release-2"]
    assert made == [feed.day_of(WORLD, 6), feed.day_of(WORLD, 13)]
    snapshot = Snapshot.current(lake)
    assert len(snapshot.days()) == 21
    shown = snapshot.dataset(lake, "impressions").to_table().to_pandas()
    by_week = shown.assign(week=(shown["ts"].dt.dayofyear - shown["ts"].dt.dayofyear.min()) // 7).groupby("week")
    assert by_week["release"].unique().map(list).tolist() == [[None], ["release-1"], ["release-2"]]
    assert set(weeks[2].figures) == {"random", "popularity", "oracle", "refreshed", "frozen"}


def test_the_random_order_is_the_same_whoever_ranks(config: Config) -> None:
    state = new_state(WORLD)
    requests = requests_of(state, WORLD)
    slates = [respond(state, WORLD, requests, one(requests), 0.3) for one in (Chance(1), Oracle(state))]
    random = slates[0].random
    assert 0.1 < random.mean() < 0.5
    np.testing.assert_array_equal(slates[0].items[random], slates[1].items[random])
