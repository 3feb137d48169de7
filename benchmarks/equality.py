"""Do two revisions make the same releases, to the bit? For changes that move code and must move nothing else.

Each revision runs its own `understudy run` on the same logs, in a worktree of its own, under four configurations:
generated logs (two windows, the second taught by the first's release), the same with an ensemble, with the loader, and
KuaiRand where ``--data`` names it. Compared are digests of releases, rows and weights of samples and training sets, the
networks' tensors, the served file's scores of 10,000 rows, and verdicts. Exit code 1: something differs,
or there was nothing to compare.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.dataset as pads
import yaml
from worktrees import copy_of

from understudy.cli.output import print_json, print_table

TABLES = {"sample_examples": "samples", "retrieve_features": "training_set"}
REQUESTS, CANDIDATES = 100, 100
WINDOWS = ("2022-04-30", "2022-05-02")
VARIATIONS: dict[str, dict[str, Any]] = {
    "generated": {},
    "ensemble": {"training": {"distillation": {"teacher": "ensemble"}, "ensemble": {"members": 4, "folds": 2}}},
    "loader": {"sampling": {"mode": "loader"}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", required=True, metavar="REV")
    parser.add_argument("--after", default="HEAD", metavar="REV", help="default: HEAD")
    parser.add_argument("--data", metavar="DIR", help="KuaiRand's logs; without it, that configuration is left out")
    parser.add_argument("--only", choices=[*VARIATIONS, "kuairand"], action="append", help="may be repeated")
    parser.add_argument("--rows", type=int, default=20_000, help="of the generated logs")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    names = [*VARIATIONS, *(["kuairand"] if args.data else [])]
    wanted = [name for name in names if not args.only or name in args.only]
    if not wanted:
        parser.error("--only kuairand: expected --data with KuaiRand's logs, found none")
    with tempfile.TemporaryDirectory(prefix="understudy-equality-") as folder:
        found = made(Path(folder), [args.before, args.after], wanted, args.data, args.rows)
    rows = [
        (name, what, outcome(before[name][what], after[name][what]))
        for before, after in [found]
        for name in wanted
        for what in before[name]
    ]
    if args.json:
        print_json([dict(zip(("configuration", "what", "outcome"), row, strict=True)) for row in rows])
    else:
        print_table(f"{args.before} and {args.after}", ("configuration", "what", "outcome"), rows)
    if any(found != "equal" for *_, found in rows):
        sys.exit(1)


def outcome(before: list[Any], after: list[Any]) -> str:
    """Nothing is not equal to nothing: then nothing was compared."""
    if not before or not after:
        return "nothing to compare"
    return "equal" if before == after else "differs"


def made(folder: Path, revisions: list[str], wanted: list[str], data: str | None, rows: int) -> list[dict[str, Any]]:
    """Of each revision: configuration → what → its digest."""
    found: list[dict[str, Any]] = []
    for place, revision in enumerate(revisions):
        with copy_of(revision, folder / f"code{place}") as code:
            logs = folder / "logs"
            if not logs.exists():
                understudy(code, "generate", "--out", logs, "--rows", rows)
            one = {}
            for name in wanted:
                print(f"{revision}: {name}", file=sys.stderr, flush=True)
                lake = folder / f"{name}{place}"
                one[name] = evidence(released(code, folder, name, lake, data or logs))
            found.append(one)
    return found


def understudy(code: Path, *words: object) -> None:
    """A command of a revision."""
    command = [sys.executable, "-m", "understudy.cli", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(code)}
    done = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[2:])}: exit code {done.returncode}\n{done.stderr[-3000:]}")


def released(code: Path, folder: Path, name: str, lake: Path, source: str | Path) -> Path:
    """A lake with a run of each window."""
    example = "kuairand" if name == "kuairand" else "generated"
    value = yaml.safe_load((code / "examples" / f"{example}.yaml").read_text())
    for section, changes in VARIATIONS.get(name, {}).items():
        value[section] = {**value.get(section, {}), **changes}
    config = folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(value, sort_keys=False))
    understudy(code, "ingest", "--config", config, "--source", source, "--lake", lake)
    for window_end in WINDOWS if name == "generated" else WINDOWS[:1]:
        understudy(code, "run", "--config", config, "--lake", lake, "--window-end", window_end)
    return lake


def evidence(lake: Path) -> dict[str, Any]:
    """What a lake's runs have made, in digests, and their verdicts."""
    found: dict[str, Any] = {"releases": sorted(path.name for path in (lake / "releases").iterdir())}
    for step, table in TABLES.items():
        found[table] = [digest_of_rows(lake / path) for path in tables(lake, step, table)]
    found["tensors"] = sorted(sha256(path.read_bytes()) for path in lake.glob("releases/*/model.safetensors"))
    found["scores"] = sorted(digest_of_scores(path) for path in lake.glob("releases/*/served.onnx"))
    found["verdicts"] = verdicts(lake)
    return found


def manifests(lake: Path, step: str) -> list[dict[str, Any]]:
    """Of a step, in the order of the runs' windows."""
    return [json.loads(path.read_text()) for path in sorted(lake.glob(f"runs/*/steps/{step}/manifest.json"))]


def tables(lake: Path, step: str, table: str) -> list[str]:
    return [one["tables"][table]["path"] for one in manifests(lake, step) if table in one["tables"]]


def digest_of_rows(path: Path) -> str:
    """Of all columns of a table, its rows in the order of their keys: Spark's files may be cut otherwise."""
    rows = pads.dataset(path, partitioning="hive").to_table()
    rows = rows.select(sorted(rows.column_names)).sort_by("row_key").combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sha256(sink.getvalue().to_pybytes())


def digest_of_scores(path: Path) -> str:
    """Of what a served file says of rows by chance, the same for equal inputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options)
    random, feeds = np.random.default_rng(0), {}
    for one in session.get_inputs():
        shape = [{"requests": REQUESTS, "candidates": CANDIDATES}.get(size, size) for size in one.shape]
        whole = one.type == "tensor(int64)"
        feeds[one.name] = random.integers(0, 50, shape) if whole else random.uniform(0, 5, shape).astype(np.float32)
    return sha256(b"".join(np.ascontiguousarray(scores).tobytes() for scores in session.run(None, feeds)))


def verdicts(lake: Path) -> list[Any]:
    found = [one for step in ("check_drift", "evaluate") for made in manifests(lake, step) for one in made["verdicts"]]
    return [[one[part] for part in ("gate", "outcome", "value", "low", "high")] for one in found]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    main()
