"""The simulated feed: its truth, its log, and that nothing of the truth reaches the pipeline."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from understudy import config as configuration
from understudy.config import Config
from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.simulator.config import World
from understudy.simulator.feed import shown_of
from understudy.simulator.rankers import WORTH, Chance, Oracle, Popularity
from understudy.simulator.simulate import simulate
from understudy.simulator.traffic import Outcomes, Ranker, Requests, requests_of, respond
from understudy.simulator.world import ACTIONS, State, new_state, next_day
from understudy.snapshot import Snapshot

ROOT = Path(__file__).resolve().parent.parent.parent
WORLD = World(users=300, creators=40, new_items_per_day=60, requests_per_day=600, candidates=100)


@pytest.fixture(scope="module")
def simulated() -> Config:
    whole = configuration.load(ROOT / "examples" / "simulated.yaml")
    return dataclasses.replace(whole, world=WORLD)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, simulated: Config) -> Lake:
    folder = str(tmp_path_factory.mktemp("world") / "lake")
    simulate(simulated, folder, 2)
    return Lake.open(folder)


def day(world: World = WORLD, days: int = 1) -> tuple[State, Requests]:
    state = new_state(world)
    for _ in range(days):
        next_day(state, world)
    return state, requests_of(state, world)


def shown(world: World, state: State, requests: Requests, ranker: Ranker) -> Outcomes:
    return respond(state, world, requests, ranker(requests), 0.0)


def test_the_same_seed_makes_the_same_log(tmp_path: Path, lake: Lake, simulated: Config) -> None:
    simulate(simulated, str(tmp_path / "again"), 2)
    assert Snapshot.current(Lake.open(str(tmp_path / "again"))).tables == Snapshot.current(lake).tables


def test_days_that_are_logged_stay_as_they_are(lake: Lake, simulated: Config) -> None:
    before = Snapshot.current(lake)
    assert simulate(simulated, lake.root, 2) == []
    assert Snapshot.current(lake) == before


def test_a_request_chooses_among_distinct_items_that_exist() -> None:
    state, requests = day()
    assert all(len(set(row)) == WORLD.candidates for row in requests.candidates.tolist())
    assert (state.born[requests.candidates] <= requests.time_days[:, None]).all()


def test_actions_come_as_often_as_the_truth_says() -> None:
    world = dataclasses.replace(WORLD, requests_per_day=20_000)
    outcomes = shown(world, *day(world), Chance(0))
    expected, found = (one[outcomes.seen].sum(0) for one in (outcomes.true, outcomes.done.astype(float)))
    assert (np.abs(found - expected) < 4 * np.sqrt(expected)).all()
    clicks, saves = outcomes.done[..., ACTIONS.index("click")], outcomes.done[..., ACTIONS.index("save")]
    assert (clicks | ~saves).all()


def test_popularity_reaches_a_fifth_to_a_half_of_the_oracles_lift() -> None:
    world = World(seed=1)
    state, popularity = new_state(world), Popularity()
    for _ in range(8):
        requests = requests_of(state, world)
        popularity.observe(shown(world, state, requests, popularity))
        next_day(state, world)
    requests = requests_of(state, world)

    def worth(ranker: Ranker) -> float:
        outcomes = shown(world, state, requests, ranker)
        return float((outcomes.true @ WORTH)[outcomes.seen].sum())

    chance, best = worth(Chance(0)), worth(Oracle(state))
    assert 0.2 <= (worth(popularity) - chance) / (best - chance) <= 0.5


def test_tastes_drift_slowly_and_shift_at_once_on_the_day_set_for_it() -> None:
    def moved(world: World) -> float:
        state = new_state(world)
        before = state.taste.copy()
        next_day(state, world)
        return float((np.linalg.norm(state.taste[: len(before)] - before, axis=1) > 1).mean())

    assert moved(WORLD) < 0.05
    assert moved(dataclasses.replace(WORLD, shift_day=1, shift_share=0.6)) > 0.4


def rows(lake: Lake, table: str) -> Any:
    return Snapshot.current(lake).dataset(lake, table).to_table().to_pandas()


def test_the_random_slice_is_logged_in_full_and_unseen_items_only_there(lake: Lake) -> None:
    impressions = rows(lake, "impressions").drop_duplicates("row_key")
    random = impressions["slice"] == "random"
    assert (impressions[random].groupby("request_id").size() == WORLD.slots).all()
    assert (impressions.loc[random, "propensity"] == 1 / WORLD.candidates).all()
    assert impressions.loc[~random, "propensity"].isna().all()
    assert impressions.loc[~random, "seen"].all()
    assert 0 < (~impressions.loc[random, "seen"]).mean() < 1


def test_every_action_finds_its_impression_and_some_reports_come_twice(lake: Lake) -> None:
    impressions, actions = rows(lake, "impressions"), rows(lake, "actions")
    assert set(actions["row_key"]) <= set(impressions["row_key"])
    assert impressions["row_key"].duplicated().any()
    assert actions.duplicated(["row_key", "action"]).any()


def test_totals_of_the_log_agree_with_the_truth(lake: Lake, simulated: Config) -> None:
    assert simulated.logging is not None
    impressions = rows(lake, "impressions").drop_duplicates("row_key")
    policy = impressions[impressions["slice"] == "policy"]
    positive = policy["row_key"].isin(rows(lake, "actions")["row_key"])
    estimate = np.where(positive, 1.0, 1 / simulated.logging.negative_keep_rate).sum()
    requests = [requests_of(*one) for one in _days(2)]
    outcomes = [
        respond(s, w, r, Chance(w.seed)(r), simulated.logging.random_share)
        for (s, w), r in zip(_days(2), requests, strict=True)
    ]
    seen = sum(int(one.seen[~one.random].sum()) for one in outcomes)
    assert abs(estimate / seen - 1) < 0.05


def _days(count: int) -> list[tuple[State, World]]:
    found = []
    for last in range(count):
        state = new_state(WORLD)
        for _ in range(last):
            next_day(state, WORLD)
        found.append((state, WORLD))
    return found


def test_the_truth_lies_outside_the_tables_that_steps_read(lake: Lake) -> None:
    truth = lake.names("simulator", "truth")
    assert len(truth) == 2
    paths = [part["path"] for parts in Snapshot.current(lake).tables.values() for part in parts.values()]
    assert all(path.startswith("tables/") for path in paths)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"world": None}, "expected the keys world and logging"),
        ({"heads": ("click", "like")}, "expected some of click, hide, save, found 'like'"),
    ],
)
def test_a_world_that_cannot_be_simulated_is_one_clear_line(
    tmp_path: Path, simulated: Config, change: dict[str, Any], expected: str
) -> None:
    assert simulated.logging is not None
    if "heads" in change:
        rollout = dataclasses.replace(simulated.rollout, harmful=())
        change = {"logging": dataclasses.replace(simulated.logging, **change), "rollout": rollout}
    with pytest.raises(BadInput, match=expected):
        simulate(dataclasses.replace(simulated, **change), str(tmp_path / "lake"), 1)
    assert not (tmp_path / "lake").exists()


def test_what_is_shown_weighs_as_many_as_it_stands_for(simulated: Config) -> None:
    """A positive is always kept, so it stands for itself; of the others a share of ``negative_keep_rate`` is."""
    assert simulated.logging is not None
    world = dataclasses.replace(WORLD, requests_per_day=4_000)
    state, requests = day(world)
    outcomes = respond(state, world, requests, Chance(0)(requests), 0.0)
    kept = shown_of(simulated, world, requests, outcomes)
    positive = kept.labels.any(axis=1)
    assert set(kept.weights[positive]) == {1.0}
    assert set(kept.weights[~positive]) == {1 / simulated.logging.negative_keep_rate}
    assert kept.weights.sum() == pytest.approx(outcomes.seen.sum(), rel=0.05)
