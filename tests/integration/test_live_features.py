"""The features of a simulated feed while it runs, held against what the pipeline retrieves for its log."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from understudy import config as configuration
from understudy.features import building, retrieval
from understudy.inputs import Feeds, Inputs, per_row
from understudy.lake import Lake
from understudy.logs import compaction
from understudy.runs import Run
from understudy.runs.planning import plan_window
from understudy.sampling import step as sampling
from understudy.simulator import feed
from understudy.simulator.config import World
from understudy.simulator.days import Days
from understudy.simulator.traffic import Requests

ROOT = Path(__file__).resolve().parent.parent.parent
DAYS = 4

pytestmark = pytest.mark.usefixtures("session")  # the steps before training are Spark's


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Feeds, Feeds, Inputs]:
    """Feeds of the same impressions: as served, and as the pipeline encodes them afterwards."""
    world = World(users=150, creators=30, new_items_per_day=25, requests_per_day=300, candidates=60)
    whole = configuration.load(ROOT / "examples" / "simulated.yaml")
    config = dataclasses.replace(whole, world=world, features=dataclasses.replace(whole.features, recent_events=5))
    lake = Lake.open_or_create(str(tmp_path_factory.mktemp("live") / "lake"))
    days, served = Days(config, lake), {}

    def note(span: Requests) -> None:
        us = feed.times_us(world, span)
        feeds = per_row(days.live.feeds(span.users, span.surfaces, us, span.candidates))
        for at, (request, item) in enumerate(
            (r, f"i{i}") for r, row in zip(span.ids.to_pylist(), span.candidates, strict=True) for i in row
        ):
            served[request, item] = {name: array[at] for name, array in feeds.items()}

    for _ in range(DAYS):
        days.next(days.popularity, before=note)
    feed.log_attributes(lake, config, days.state)
    table = retrieved(lake, config)
    inputs = Inputs.derive(
        table.schema,
        heads=config.heads,
        time_zone=config.time_zone,
        half_lives=config.features.half_lives,
        recent_events=config.features.recent_events,
        surfaces=config.features.max_surfaces,
    )
    assert inputs == days.live.inputs
    keys = list(zip(table["request_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))
    return stack([served[key] for key in keys]), inputs.encode(table), inputs


def retrieved(lake: Lake, config: Any) -> Any:
    first, last = feed.day_of(config.world, 0), feed.day_of(config.world, DAYS - 1)
    plan = plan_window(lake.root, config, last, purpose="evaluate", window_start=first)
    compaction.run(lake.root, plan.run_id, config.section("labels"))
    building.run(lake.root, plan.run_id, config.section("features", "labels"))
    sampling.run(lake.root, plan.run_id, config.section("sampling"))
    retrieval.run(lake.root, plan.run_id, config.section("features"))
    return lake.dataset(Run(lake, plan.run_id).table_path("retrieve_features", "training_set")).to_table()


def stack(rows: list[dict[str, Any]]) -> Feeds:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def test_every_feature_is_what_the_pipeline_retrieves(both: tuple[Feeds, Feeds, Inputs]) -> None:
    served, retrieved, inputs = both
    assert len(served["hour"]) > 2_000
    for name in inputs.shapes():
        if name == "position":
            continue  # known only after ranking
        np.testing.assert_allclose(served[name], retrieved[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_features_of_the_same_day_count(both: tuple[Feeds, Feeds, Inputs]) -> None:
    ages = both[0]["counter_age_s"]
    assert (ages >= 0).mean() > 0.5
    assert 4 * 3_600 < ages[ages >= 0].min() < 6 * 3_600
