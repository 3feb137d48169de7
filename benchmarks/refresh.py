"""How much freshness of features is worth: the first release of the demo at three refresh grids.

Makes a lake per grid (event, 1h, 1d), trains on 24 to 30 April, scores 1 to 4 May, and prints AUC
and calibration per head and day, side by side.
"""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from pipelines.local import run_pipeline
from understudy import config as configuration
from understudy.cli.output import number, print_table
from understudy.evaluation.adhoc import evaluate_release
from understudy.logs.ingest import ingest

GRIDS = ("event", "1h", "1d")


def main() -> None:
    """Run the comparison and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--config", default="examples/kuairand.yaml")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    base = yaml.safe_load(Path(options.config).read_text())
    with tempfile.TemporaryDirectory(prefix="understudy-refresh-") as folder:
        for grid in GRIDS:
            value = {**base, "features": {**base.get("features", {}), "refresh": grid}}
            config = configuration.parse(value, f"{options.config}, refresh {grid}")
            lake = f"{folder}/{grid}"
            ingest(config, options.data, lake)
            run_pipeline(dataclasses.replace(config), lake, "2022-04-30")
            found[grid] = evaluate_release(lake, "candidate", "2022-05-01", "2022-05-04")
            print(f"{grid}: done", file=sys.stderr, flush=True)
    rows = []
    for grid, result in found.items():
        for day, heads in {"1 to 4 May": result["heads"], **result["by_day"]}.items():
            for head, m in heads.items():
                rows.append((grid, day, head, number(m["auc"]), number(m["calibration_ratio"], 3), number(m["ece"])))
    print_table("refresh grids", ("refresh", "days", "head", "AUC", "calibration ratio", "ECE"), rows)


if __name__ == "__main__":
    main()
