"""The demo on real logs: two releases, days apart, the second taught by the first."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from understudy.cli.output import number, print_table, short
from understudy.spark_server import serving

__all__ = ["real_logs"]

_WINDOW_ENDS = ("2022-04-30", "2022-05-04")
_TEST_DAYS = ("2022-05-01", "2022-05-04")
_CONFIG = "examples/kuairand.yaml"


def real_logs(data: str, lake_uri: str) -> int:
    """Ingest, release twice, score the first release on the days after it, print a table; returns the exit code."""
    started = time.monotonic()
    lake = ["--lake", lake_uri]
    _understudy("ingest", "--config", _CONFIG, "--source", data, *lake)
    made = []
    with serving():
        for day in _WINDOW_ENDS:
            code = _understudy("run", "--config", _CONFIG, *lake, "--window-end", day, fatal=False)
            if code not in (0, 3):
                return code
            made.append(code)
        days = ("--from", _TEST_DAYS[0], "--to", _TEST_DAYS[1])
        later = _json("evaluate", "--release", _first(lake_uri), *lake, *days)
    _tell(lake_uri, later, time.monotonic() - started)
    return max(made)


def _understudy(*arguments: str, fatal: bool = True) -> int:
    print(f"$ understudy {' '.join(arguments)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "understudy.cli", *arguments], check=False).returncode
    if code and fatal:
        sys.exit(code)
    return code


def _json(*arguments: str) -> Any:
    print(f"$ understudy {' '.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "understudy.cli", *arguments, "--json"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def _first(lake: str) -> str:
    """The release of the first window."""
    found = [one for one in _json("releases", "list", "--lake", lake) if one["window"]["end"] == _WINDOW_ENDS[0]]
    return str(found[0]["digest"])


def _tell(lake: str, later: dict[str, Any], seconds: float) -> None:
    releases = _json("releases", "list", "--lake", lake)
    print_table(
        "releases, on the gate rows of their last day",
        ("release", "aliases", "window", "teacher", "head", "AUC", "log loss", "calibration ratio", "ECE"),
        [
            (
                *(
                    (
                        short(r["digest"]),
                        ", ".join(r["aliases"]),
                        f"{r['window']['start']} to {r['window']['end']}",
                        short(r["teacher"]),
                    )
                    if place == 0
                    else ("", "", "", "")
                ),
                head,
                number(m["auc"]),
                number(m["log_loss"]),
                number(m["calibration_ratio"], 3),
                number(m["ece"]),
            )
            for r in reversed(releases)
            for place, (head, m) in enumerate(r["metrics"].items())
        ],
    )
    days = {f"{later['from']} to {later['to']}": later["heads"], **later["by_day"]}
    print_table(
        f"the first release ({short(later['release'])}) on the days after it",
        ("days", "head", "rows", "AUC", "log loss", "calibration ratio", "95% interval", "ECE"),
        [
            (
                day if place == 0 else "",
                head,
                m["rows"],
                number(m["auc"]),
                number(m["log_loss"]),
                number(m["calibration_ratio"], 3),
                "–".join(number(edge, 3) for edge in m.get("calibration_ratio_interval", [])),
                number(m["ece"]),
            )
            for day, heads in days.items()
            for place, (head, m) in enumerate(heads.items())
        ],
    )
    steps: dict[str, list[float]] = {}
    for run in _json("runs", "list", "--lake", lake):
        if run["purpose"] == "train":
            for step, taken in _json("runs", "show", run["run"], "--lake", lake)["seconds"].items():
                steps.setdefault(step, []).append(taken)
            print(f"report: {Path(lake).resolve() / 'runs' / run['run'] / 'report.html'}")
    own = sum(sum(taken) for taken in steps.values())
    rows = [(step, *(number(one, 1) for one in taken)) for step, taken in steps.items()]
    width = max(len(taken) for taken in steps.values())
    print_table("seconds per step", ("step", *(f"run {i + 1}" for i in range(width))), rows)
    print(
        f"{seconds:.0f} s in all; the steps' own work is {own / seconds:.0%} of it (for runs that were made just now)"
    )
