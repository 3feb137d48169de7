"""The demo over several seeds, paired by seed: the refreshed ranker beside the frozen one, popularity and the ceiling.

Every seed is another world, simulated, logged and learned from by the whole pipeline. Stopped, the same command goes
on; a seed that is done is read from its file. The intervals are Student's t over seeds.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from seeds import interval

from understudy.cli.output import print_table

NAMES = ("refreshed", "frozen", "popularity", "ceiling")


def run(seed: int, folder: Path, weeks: int) -> dict[str, Any]:
    """The demo's figures as data, kept beside its lake."""
    kept = folder / f"seed-{seed}-{weeks}-weeks.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    command = [sys.executable, "-m", "understudy.cli", "demo", "--seed", str(seed), "--weeks", str(weeks), "--json"]
    done = subprocess.run([*command, "--lake", str(folder / f"seed-{seed}")], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    kept.write_bytes(done.stdout)
    return found


def main() -> None:
    """Run the seeds and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--weeks", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("build/closed-loop"), help="keeps a lake per seed")
    options = parser.parse_args()
    found = [run(seed, options.folder, options.weeks)["weeks"] for seed in range(options.seeds)]
    rows = []
    for seed, weeks in enumerate(found):
        for week in weeks[1:]:
            f = week["figures"]
            lifts = (f"{f[name]['lift']:.3f}" if name in f else "–" for name in NAMES)
            aucs = (f"{f[name]['auc']:.4f}" for name in ("refreshed", "frozen", "oracle"))
            rows.append((seed, week["number"], *lifts, *aucs, f"{f['refreshed']['calibration_ratio']:.3f}"))
    columns = ("seed", "week", *NAMES, "AUC refreshed", "frozen", "best", "calibration, random slice")
    print_table("share of the oracle's lift over random", columns, rows)
    last = [weeks[-1]["figures"] for weeks in found]
    paired = {
        "refreshed / ceiling": [f["refreshed"]["lift"] / f["ceiling"]["lift"] for f in last],
        "refreshed − frozen": [f["refreshed"]["lift"] - f["frozen"]["lift"] for f in last],
        "refreshed − popularity": [f["refreshed"]["lift"] - f["popularity"]["lift"] for f in last],
        "AUC refreshed − frozen": [f["refreshed"]["auc"] - f["frozen"]["auc"] for f in last],
        "calibration ratio, random slice": [f["refreshed"]["calibration_ratio"] for f in last],
    }
    summary = [(name, interval(values)) for name, values in paired.items()]
    print_table(f"the last week, paired over {len(found)} seeds", ("figure", "mean and 95% interval"), summary)


if __name__ == "__main__":
    main()
