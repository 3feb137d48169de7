"""The data loader beside a bare scan of the same columns, and beside Spark writing what it keeps and reading it again.

All read the training set of one window of real logs. The bare scan reads every row group, one after the other, and
does nothing with it. The loader decides, encodes, mixes and cuts batches. The rows that both ways keep are compared
one by one.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from understudy import config as configuration
from understudy.cli.output import print_table
from understudy.config import Config
from understudy.features import building, retrieval
from understudy.inputs import Inputs
from understudy.lake import Lake
from understudy.logs import compaction
from understudy.logs.ingest import ingest
from understudy.runs import Run, Step
from understudy.runs.planning import plan_window
from understudy.sampling import step as sampling
from understudy.sampling.config import Rule, Sampling
from understudy.spark_server import serving
from understudy.training.lessons import open_loader
from understudy.training.loader import Loader

SAMPLING = Sampling(
    negative_rate=0.5,
    rules=(
        Rule(name="tab 1", column="surface", values=("1",), negative_rate=0.3, importance=2.0),
        Rule(name="active", column="user_active_degree", values=("full_active",), importance=1.5),
        Rule(name="music", column="music_type", values=("9.0",), negative_rate=0.9),
    ),
)
BATCH, BLOCK = 1024, 65_536


def prepared(lake: Lake, config: Config, chosen: Sampling, end: str) -> tuple[Run, float]:
    """A window's training set, and the seconds of sampling and retrieval."""
    own = dataclasses.replace(config, sampling=chosen)
    run = Run(lake, plan_window(lake.uri(), own, end).run_id)
    compaction.run(lake.uri(), run.id, own.section("labels"))
    building.run(lake.uri(), run.id, own.section("features", "labels"))
    started = time.perf_counter()
    sampling.run(lake.uri(), run.id, own.section("sampling"))
    retrieval.run(lake.uri(), run.id, own.section("features"))
    return run, time.perf_counter() - started


def size(run: Run) -> float:
    """Megabytes of the training set and of the samples before it."""
    tables = (("sample_examples", "samples"), ("retrieve_features", "training_set"))
    folders = [Path(run.lake.path(run.table_path(*one))) for one in tables]
    return sum(file.stat().st_size for folder in folders for file in folder.rglob("*.parquet")) / 1e6


def scan(loader: Loader, columns: list[str], inputs: Inputs | None = None) -> int:
    """Read every row group; returns its rows."""
    rows = 0
    for group in loader.groups:
        found = loader.read(group, columns)
        rows += found.num_rows
        if inputs is not None:
            inputs.encode(found)
    return rows


def rate(work: Callable[[], int], repeats: int) -> list[float]:
    """Rows a second, each time anew."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        rows = work()
        found.append(rows / (time.perf_counter() - started))
    return found


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder with KuaiRand-Pure")
    parser.add_argument("--config", default="examples/kuairand.yaml")
    parser.add_argument("--window-end", default="2022-05-04")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    config = configuration.load(options.config)
    with tempfile.TemporaryDirectory(prefix="understudy-loader-") as folder, serving():
        ingest(config, options.data, folder)
        lake = Lake.open(folder)
        shared, _ = prepared(lake, config, Sampling(mode="loader"), options.window_end)
        spark, spark_s = prepared(lake, config, SAMPLING, options.window_end)
        step = Step(lake, shared, shared.plan(), "train_ranker", "none")
        compare(step, spark, spark_s, config, options.repeats)


def compare(step: Step, spark: Run, spark_s: float, config: Config, repeats: int) -> None:
    """Print what each way costs, and whether they keep the same rows."""
    started = time.perf_counter()
    loader, everything = open_loader(step, SAMPLING), open_loader(step, Sampling())
    survey_s = (time.perf_counter() - started) / 2
    f = config.features
    shape = {"half_lives": f.half_lives, "recent_events": f.recent_events, "surfaces": f.max_surfaces}
    fields = step.dataset("retrieve_features", "training_set").schema
    inputs = Inputs.derive(fields, heads=config.heads, time_zone=config.time_zone, **shape)
    columns = [*inputs.columns(), "sample_weight", "importance", *(f"label_{head}" for head in config.heads)]

    def batches(of: Loader) -> int:
        return sum(len(at) for _, at in of.batches(columns, inputs.encode, BATCH, BLOCK, 0, 0))

    found: dict[str, list[float]] = {"bare scan": [], "bare scan, and encoded": [], "loader: encoded, mixed, cut": []}
    for _ in range(repeats):  # in turn, so that a neighbour's noise meets all alike
        found["bare scan"] += rate(lambda: scan(everything, columns), 1)
        found["bare scan, and encoded"] += rate(lambda: scan(everything, columns, inputs), 1)
        found["loader: encoded, mixed, cut"] += rate(lambda: batches(everything), 1)
        print(".", end="", file=sys.stderr, flush=True)
    bare = np.median(found["bare scan"])
    rows = [(name, f"{np.median(r):,.0f}", f"{np.median(r) / bare:.0%}") for name, r in found.items()]
    print_table(f"{len(everything):,} rows, {len(columns)} columns", ("reader", "rows a second", "of the scan"), rows)
    shared_mb, own_mb = size(step.run), size(spark)
    cost = [
        ("Spark decides, its rows are retrieved and read again", f"{spark_s:.1f}", f"{own_mb:.0f}"),
        ("the loader decides, beside a shared table", f"{survey_s:.1f}", f"0 (the table: {shared_mb:.0f})"),
    ]
    print_table("one more sampling configuration", ("way", "seconds before the first batch", "MB written"), cost)
    kept = step.lake.dataset(spark.table_path("retrieve_features", "training_set")).to_table(
        columns=["row_key", "sample_weight", "importance"], filter=pc.field("split") == "train"
    )
    ours, theirs = loader.index.sort_by("row_key"), kept.sort_by("row_key")
    same = all(np.array_equal(ours[c], theirs[c]) for c in ("row_key", "sample_weight", "importance"))
    verdict = "the same rows at the same weights" if same else "DIFFERENT rows or weights"
    print(f"Spark keeps {theirs.num_rows:,}, the loader {ours.num_rows:,} of {loader.considered:,} rows: {verdict}")


if __name__ == "__main__":
    main()
