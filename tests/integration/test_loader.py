"""The data loader keeps the same rows as Spark, in an order that follows from seed and epoch."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyspark.sql import SparkSession
from steps import through

from understudy.config import Config
from understudy.errors import BadInput
from understudy.inputs import Feeds, Inputs
from understudy.lake import Lake
from understudy.logs.ingest import ingest
from understudy.ranker.config import Ranker
from understudy.runs import Run, Step
from understudy.sampling.config import Rule, Sampling
from understudy.training.lessons import open_loader
from understudy.training.loader import Loader

END = "2022-04-30"
SAMPLING = Sampling(
    negative_rate=0.4,
    random_slice_share=0.3,
    seed=3,
    rules=(
        Rule(name="music", column="music_type", values=("9.0", "4.0"), negative_rate=0.8, importance=2.0),
        Rule(name="active", column="user_active_degree", values=("full_active",), importance=1.5),
        Rule(name="tab", column="surface", values=("1",), negative_rate=0.2),
        Rule(name="short", column="register_days", values=("0.0", "100.0", "730.0"), importance=3.0),
        Rule(name="random", column="slice", values=("random",), negative_rate=1.0),
    ),
)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, logs: Path, config: Config, session: SparkSession) -> Lake:
    folder = tmp_path_factory.mktemp("loader") / "lake"
    ingest(config, str(logs), str(folder))
    return Lake.open(str(folder))


def sampled(lake: Lake, config: Config, sampling: Sampling, last: str, like: Run | None = None) -> Run:
    small = Ranker(hidden=(16,), cross_layers=1, cross_rank=4)
    training = dataclasses.replace(config.training, epochs=1, ranker=small, block_rows=2000)
    return through(
        str(lake.root),
        dataclasses.replace(config, sampling=sampling, training=training),
        END,
        last,
        like=like,
        own="sample_examples",
    )


@pytest.fixture(scope="module")
def base(lake: Lake, config: Config) -> Run:
    """A run whose loader decides."""
    return sampled(lake, config, dataclasses.replace(SAMPLING, mode="loader"), "train_ranker")


def loader_of(run: Run, sampling: Sampling = SAMPLING) -> Loader:
    return open_loader(Step(run.lake, run, run.plan(), "train_ranker", "none"), sampling)


def inputs_of(run: Run) -> Inputs:
    path = f"{run.folder}/" + next(name for name in run.lake.files(run.folder) if name.endswith("/inputs.json"))
    return Inputs.from_json(run.lake.read_bytes(path).decode())


def test_loader_and_spark_keep_the_same_rows_at_the_same_weights(lake: Lake, config: Config, base: Run) -> None:
    spark = sampled(lake, config, SAMPLING, "sample_examples", base)
    by_spark = lake.dataset(spark.table_path("sample_examples", "samples")).to_table()
    by_spark = by_spark.filter(pc.equal(by_spark["split"], "train")).sort_by("row_key")
    by_loader = loader_of(base).index.sort_by("row_key")
    assert by_loader["row_key"].to_pylist() == by_spark["row_key"].to_pylist()
    rules = spark.manifest("sample_examples")["figures"]["rules"]  # type: ignore[index]
    decided = {one["rule"] for one in rules if one["rows"]}
    assert decided >= {"active", "tab", "random", "default"}, "every kind of rule has rows, or the test shows nothing"
    assert by_loader["sample_weight"].to_pylist() == by_spark["sample_weight"].to_pylist()
    np.testing.assert_allclose(by_loader["importance"], by_spark["importance"], rtol=1e-12)


def test_several_configurations_share_one_table(base: Run) -> None:
    everything, some = loader_of(base, Sampling()), loader_of(base)
    assert len(everything) > len(some) > 0
    assert set(some.index["row_key"].to_pylist()) < set(everything.index["row_key"].to_pylist())
    assert some.considered == len(everything)


def test_a_run_with_the_loader_trains_on_what_it_keeps(base: Run) -> None:
    figures = base.manifest("train_ranker")["figures"]  # type: ignore[index]
    assert figures["rows"] == len(loader_of(base))
    assert figures["considered"] > figures["rows"]
    assert figures["curve"][-1]["stop_loss"] < figures["curve"][0]["stop_loss"] * 1.2


COLUMNS = ["row_key", "sample_weight", "day"]


def arrays(table: pa.Table) -> Feeds:
    return {name: np.asarray(table[name].cast(pa.string()) if name == "day" else table[name]) for name in COLUMNS}


def test_an_epoch_gives_every_row_once_in_its_own_order(base: Run) -> None:
    loader = loader_of(base)
    epochs = []
    for epoch in (0, 1):
        parts = list(loader.batches(COLUMNS, arrays, 256, 1000, seed=1, epoch=epoch))
        assert {len(at) for _, at in parts[:-1]} == {256}
        keys = np.concatenate([batch["row_key"] for batch, _ in parts])
        places = np.concatenate([at for _, at in parts])
        index = np.asarray(loader.index["row_key"])
        assert (index[places] == keys).all()
        assert sorted(places) == list(range(len(loader)))
        epochs.append(places)
    assert (epochs[0] != epochs[1]).any()
    again = np.concatenate([at for _, at in loader.batches(COLUMNS, arrays, 256, 1000, seed=1, epoch=0)])
    assert (again == epochs[0]).all()


@pytest.mark.parametrize("first", [1, 15, 30])
def test_an_epoch_goes_on_in_its_middle_without_reading_what_came_before(base: Run, first: int) -> None:
    loader = loader_of(base)
    whole = list(loader.batches(COLUMNS, arrays, 100, 1000, seed=0, epoch=3))
    read: list[int] = []
    original = loader.read
    loader.read = lambda group, columns: (read.append(group.first), original(group, columns))[1]  # type: ignore[method-assign]
    rest = list(loader.batches(COLUMNS, arrays, 100, 1000, seed=0, epoch=3, first=first))
    assert len(rest) == len(whole) - first
    for (batch, at), (expected, places) in zip(rest, whole[first:], strict=True):
        assert (at == places).all()
        for name in COLUMNS:
            np.testing.assert_array_equal(batch[name], expected[name])
    assert len(read) < len(loader.groups) or first == 1


def test_the_order_mixes_days(base: Run) -> None:
    loader = loader_of(base)
    batch, _ = next(loader.batches(COLUMNS, arrays, 500, 4000, seed=0, epoch=0))
    assert len(set(batch["day"])) > 1


def test_a_batch_is_encoded_as_its_rows_are_in_memory(base: Run) -> None:
    loader, inputs = loader_of(base), inputs_of(base)
    feeds, at = next(loader.batches(inputs.columns(), inputs.encode, 700, 2000, seed=0, epoch=0))
    table = base.lake.dataset(loader.folder).to_table()
    rows = table.take(pc.index_in(loader.index["row_key"].combine_chunks().take(pa.array(at)), table["row_key"]))
    for name, expected in inputs.encode(rows).items():
        np.testing.assert_array_equal(feeds[name], expected)


def test_a_file_that_breaks_is_told_where_it_is_met(base: Run, tmp_path: Path) -> None:
    loader = loader_of(base)
    loader.groups[1] = dataclasses.replace(loader.groups[1], number=99)
    with pytest.raises((OSError, IndexError, pa.ArrowInvalid)):
        list(loader.batches(COLUMNS, arrays, 100, 500, seed=0, epoch=0))


def test_a_rule_for_a_column_that_nobody_has_is_one_clear_line(base: Run) -> None:
    wrong = Sampling(rules=(Rule(name="x", column="colour", values=("red",)),))
    with pytest.raises(BadInput, match="rule 'x': expected a column of the examples or an attribute, found 'colour'"):
        loader_of(base, wrong)
