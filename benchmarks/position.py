"""What the position term is worth: calibration on the random slice with and without it.

A simulated feed is ranked by popularity for two weeks, so that good items stand at the top. Two rankers learn from
the same log, one of them without the position term, and are scored on the week after. On the policy's slice both look
alike; in the random slice, where position says nothing of the item, only one of them is calibrated.
"""

import argparse
import dataclasses
import sys
import tempfile
from typing import Any

from pipelines.local import run_pipeline
from understudy import config as configuration
from understudy.cli.output import number, print_table
from understudy.config import Config
from understudy.evaluation.adhoc import evaluate_release
from understudy.lake import Lake
from understudy.runs import Run
from understudy.simulator import feed
from understudy.simulator.simulate import simulate

TRAINED, SCORED = 14, 7
HEAD = "click"


def without_position(config: Config) -> Config:
    """The same configuration, its ranker without the position term."""
    ranker = dataclasses.replace(config.training.ranker, position_term=False)
    return dataclasses.replace(config, training=dataclasses.replace(config.training, ranker=ranker))


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="examples/simulated.yaml")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    base = configuration.load(options.config)
    assert base.world is not None, "the configuration has a world"
    base = dataclasses.replace(base, world=dataclasses.replace(base.world, seed=options.seed, shift_day=None))
    first, last = feed.day_of(base.world, TRAINED), feed.day_of(base.world, TRAINED + SCORED - 1)
    found: dict[str, Any] = {}
    for name, config in (("with the term", base), ("without", without_position(base))):
        with tempfile.TemporaryDirectory(prefix="understudy-position-") as lake:
            simulate(base, lake, TRAINED + SCORED, "popularity", lambda text: print(text, file=sys.stderr))
            run_id = run_pipeline(config, lake, feed.day_of(base.world, TRAINED - 1))
            manifest = Run(Lake.open(lake), run_id).manifest("promote")
            assert manifest is not None, "run_pipeline returns when the release is promoted"
            found[name] = evaluate_release(lake, manifest["figures"]["digest"], first, last)
    rows = []
    for name, result in found.items():
        for part, heads in {"all": result["heads"], **result["by_slice"]}.items():
            m = heads[HEAD]
            interval = "–".join(number(edge, 3) for edge in m.get("calibration_ratio_interval", []))
            ratio = number(m["calibration_ratio"], 3)
            rows.append((name, part, m["rows"], number(m["auc"]), ratio, interval, number(m["ece"])))
    print_table(
        f"{HEAD} on the week after training", ("ranker", "slice", "rows", "AUC", "ratio", "interval", "ECE"), rows
    )


if __name__ == "__main__":
    main()
