"""Why not the ensemble: twelve networks, one of them, and their student, on the same slates with the same features.

The ensemble is that of ``training.ensemble``: its preprocessing is computed once and all networks lie in one graph.
The student is taught by it out of fold. All are exported, calibrated and built as releases of one lake, and scored on
the gate rows of its run. In process, each is timed in a process of its own on one core, in turns, so that noise is
shared; over HTTP, ``understudy serve`` has one core and an open-loop generator another. Slates are of random items for
users of the log; a latency over HTTP has everything in it: the online store, features, scoring, both ends of JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from load import Answered, closed_loop, open_loop

from understudy.cli.output import print_table
from understudy.lake import Lake

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "a-token-for-the-benchmark"
SIZES = (100, 500, 1000)
HEAD = "click"
ROUNDS, TIMES = 3, 60
BUDGET_MS = 50.0  # the default; to find a peak, nothing is refused
KEPT_ROWS = 0  # a few hundred users come again and again here: each request reads the online store
LIMIT = 50  # items of an answer: a page or two
CORES = sorted(os.sched_getaffinity(0))


# The rankers


def made(lake_uri: str, data: str, config_path: str) -> dict[str, dict[str, Any]]:
    """Ranker → its releases, AUC and normalized entropy. The lake and the networks are made once, and kept."""
    if not (Path(lake_uri) / "lake.json").exists():
        _understudy("ingest", "--config", config_path, "--source", data, "--lake", lake_uri)
    _understudy("run", "--config", config_path, "--lake", lake_uri)
    return _taught(lake_uri, config_path)


def _understudy(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "understudy.cli", *arguments], check=True, stdout=sys.stderr)


def _taught(lake_uri: str, config_path: str) -> dict[str, dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import torch
    from distillation import Days
    from torch import Tensor, nn

    from understudy import config as configuration
    from understudy import releases
    from understudy.inputs import Inputs
    from understudy.ranker.files import from_files
    from understudy.ranker.network import ID_COLUMNS, RankerModel
    from understudy.ranker.preprocess import Parts, Prepared
    from understudy.runs import Run
    from understudy.training.lessons import column, labels_of

    class Fused(nn.Module):
        """The mean of several networks' logits, their preprocessing computed once."""

        def __init__(self, members: list[RankerModel], ids: list[bool]) -> None:
            super().__init__()
            self.inputs, self.preprocess, self.ids = members[0].inputs, members[0].preprocess, ids
            self.networks = nn.ModuleList(member.network for member in members)
            self.reads_all = [bool((one.preprocess.scale_D == self.preprocess.scale_D).all()) for one in members]
            for place, member in enumerate(members):
                self.register_buffer(f"read_{place}", (member.preprocess.scale_D != 0).float())

        def forward(self, feeds: dict[str, Tensor]) -> Tensor:
            known = self.preprocess.prepared(feeds)
            rows = Parts(*map(self._hidden, known.rows, (self.preprocess.shared_columns, self.preprocess.own_columns)))
            nobody = Prepared(known.dense, rows, self._hidden(known.event_rows, self.preprocess.event_columns))
            said = []
            for place, (network, ids) in enumerate(zip(self.networks, self.ids, strict=True)):
                prepared = known if ids else nobody
                if not self.reads_all[place]:
                    read = getattr(self, f"read_{place}").split([known.dense.shared.shape[2], known.dense.own.shape[2]])
                    parts = (part * mask for part, mask in zip(prepared.dense, read, strict=True))
                    prepared = prepared._replace(dense=Parts(*parts))
                said.append(network.of_prepared(prepared, feeds))
            return torch.stack(said).mean(0)

        def _hidden(self, rows: Tensor, columns: Tensor) -> Tensor:
            """Embedding rows where every id is unknown."""
            return torch.where(columns < ID_COLUMNS - 1, self.preprocess.vocabulary.bases_C[columns], rows)

    config, lake = configuration.load(config_path), Lake.open(lake_uri)
    production = releases.load(lake, "production")
    inputs = Inputs.from_json(production.files["inputs.json"].decode())
    folder = next(path for path in lake.names("runs") if Run(lake, path).plan().purpose == "train")
    table = lake.dataset(Run(lake, folder).table_path("retrieve_features", "training_set")).to_table()

    def part(*splits: str) -> Days:
        rows = table.filter(pc.is_in(table["split"], pa.array(splits)))
        assert rows.num_rows, f"the table has rows of {splits}"
        return Days(rows, labels_of(rows, config.heads), column(rows, "sample_weight"))

    gate, calibration = part("gate"), part("calibrate")
    kept = Path(lake_uri) / "benchmark"
    if not (kept / "student").exists():
        torch.set_num_threads(config.training.threads)
        print("training twelve networks, and their student", file=sys.stderr, flush=True)
        _learn(kept, part("train"), part("stop"), gate, inputs, config.training)

    def network(name: str) -> RankerModel:
        return from_files({path.name: path.read_bytes() for path in (kept / name).iterdir()})

    variants = config.training.ensemble.variants
    members = [network(path.name) for path in sorted(kept.glob("member_*"))]
    ids = [variants[place % len(variants)].ids for place in range(len(members))]
    models = {"ensemble": Fused(members, ids).eval(), "member": members[0], "student": network("student")}
    return {name: _released(lake, production, model, calibration, gate) for name, model in models.items()}


def _learn(kept: Path, train: Any, stop: Any, gate: Any, inputs: Any, training: Any) -> None:
    """Train the ensemble and its student; a folder for each, the student's last."""
    from distillation import Class

    from understudy.ranker.files import to_files
    from understudy.training.config import Distillation

    lesson = Class(train, inputs, training, stop)
    out_of_fold, members, _ = lesson.members((gate,))
    distillation = Distillation(alpha=0.5)
    student = lesson.student(distillation, lesson.targets(out_of_fold, distillation)).eval()
    found = {f"member_{place:02}": one.files for place, one in enumerate(members)} | {"student": to_files(student)}
    for name, files in found.items():
        (kept / name).mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (kept / name / file).write_bytes(content)


def _released(lake: Lake, like: Any, model: Any, calibration: Any, gate: Any) -> dict[str, Any]:
    """A release like production that serves ``model``, with its figures on the gate rows."""
    import torch
    from sklearn.metrics import log_loss, roc_auc_score

    from understudy.calibration.fit import affine_fit
    from understudy.calibration.module import Calibration
    from understudy.inputs import encode
    from understudy.ranker.export import export
    from understudy.ranker.files import to_files
    from understudy.ranker.fitting import as_tensors
    from understudy.ranker.network import RankerModel
    from understudy.ranker.served import Served
    from understudy.releases.unit import build

    with torch.no_grad():
        logits = model(as_tensors(encode(calibration.table, model.inputs))).numpy().astype(np.float64)
    weights = calibration.weights.astype(np.float64)
    labels = calibration.labels.astype(np.float64)
    heads = model.inputs.heads
    fitted = [affine_fit(logits[:, h], labels[:, h], weights) for h in range(len(heads))]
    served = export(model, Calibration(fitted))
    files = dict(like.files) | {"served.onnx": served}
    files["calibrators.json"] = json.dumps({h: c.to_json() for h, c in zip(heads, fitted, strict=True)}).encode()
    if isinstance(model, RankerModel):
        files |= to_files(model)
    content = {name: value for name, value in like.manifest.items() if name not in ("files", "format")}
    h = heads.index(HEAD)
    p = Served(served, model.inputs).score(gate.table)[0][:, h].astype(np.float64)
    truth, rate = gate.labels[:, h], float(np.average(gate.labels[:, h], weights=gate.weights))
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    built = {}
    for name, budget in (("release", BUDGET_MS), ("patient", 60_000.0)):
        serving = {"kept_rows": KEPT_ROWS, "budget_ms": budget}
        built[name] = build(lake, content | {"config": {**content["config"], "serving": serving}}, files)
    return {
        **built,
        "mb": len(served) / 1e6,
        "auc": float(roc_auc_score(truth, p, sample_weight=gate.weights)),
        "ne": float(log_loss(truth, p, sample_weight=gate.weights)) / entropy,
    }


# In process


def slates(lake_uri: str, size: int, count: int) -> list[tuple[str, list[str]]]:
    """Users of the log and random items of the catalogue."""
    lake = Lake.open(lake_uri)
    items = lake.dataset(_table(lake_uri, "build_features", "item_profile")).to_table(columns=["item_id"])
    users = lake.dataset(_table(lake_uri, "build_features", "user_history")).to_table(columns=["user_id"])
    ids, people = items["item_id"].unique().to_pylist(), users["user_id"].unique().to_pylist()
    random = np.random.default_rng(0)
    size = min(size, len(ids))
    return [
        (people[random.integers(len(people))], [ids[i] for i in random.choice(len(ids), size, replace=False)])
        for _ in range(count)
    ]


def _table(lake_uri: str, step: str, name: str) -> str:
    from understudy.runs import Run

    lake = Lake.open(lake_uri)
    return Run(lake, lake.read_json("features/current.json")["run_id"]).table_path(step, name)


def measured_here(lake_uri: str, release: str, size: int, eager: bool, requests: list[Any]) -> dict[str, Any]:
    """Milliseconds of scoring, and of all that a request takes in process; memory in MB."""
    os.sched_setaffinity(0, CORES[:1])
    from understudy.serving.following import Following
    from understudy.serving.hashes import hashes_of
    from understudy.serving.ranker import rank

    following = Following(lake_uri, release)
    stage, store, now_us = following.stage, following.store(), following.as_of_us
    score = _eager(lake_uri, release) if eager else stage.model.served.score_feeds
    scoring, whole = [], []
    for place, (user, items) in enumerate(requests):
        started = time.perf_counter()
        rank(stage, store, user, items, request_id="r", surface="1", now_us=now_us)
        ranked = time.perf_counter()
        ids = hashes_of(items)
        at = stage.items.find(ids)
        asked = stage.assembler.asked(user, at)
        feeds = stage.assembler.feeds(user, ids, at, stage.assembler.known(asked, store.read(asked)), "1", now_us)
        fed = time.perf_counter()
        score(feeds)
        scored = time.perf_counter()
        if place >= 5:
            scoring.append((scored - fed) * 1000)
            whole.append((ranked - started) * 1000)
    return {"scoring": scoring, "whole": whole, "mb": _status("VmHWM")}


def _eager(lake_uri: str, release: str) -> Any:
    """The student's network in PyTorch, with its calibration."""
    import torch

    from understudy import releases
    from understudy.calibration.fit import Calibrator
    from understudy.calibration.module import Calibration
    from understudy.ranker.files import from_files
    from understudy.ranker.fitting import as_tensors

    torch.set_num_threads(1)
    files = releases.load(Lake.open(lake_uri), release).files
    model, known = from_files(files).eval(), json.loads(files["calibrators.json"])
    layer = Calibration([Calibrator.from_json(known[head]) for head in model.inputs.heads]).eval()

    def score(feeds: Any) -> Any:
        with torch.inference_mode():
            return layer(model(as_tensors(feeds))).numpy()

    return score


def in_process(lake_uri: str, rankers: dict[str, dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """(ranker, slate size) → milliseconds and memory, each ranker in turn."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    ways = [("ensemble", "ensemble", False), ("member", "member", False)]
    ways += [("student, eager", "student", True), ("student", "student", False)]
    for turn in range(ROUNDS):
        for size in SIZES:
            for name, ranker, eager in ways:
                command = [sys.executable, __file__, "--lake", lake_uri, "--measure", rankers[ranker]["release"]]
                command += ["--size", str(size), *(["--eager"] if eager else [])]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                done = subprocess.run(command, capture_output=True, check=True, env=environment, text=True)
                one = json.loads(done.stdout)
                have = found.setdefault((name, size), {"scoring": [], "whole": [], "mb": 0.0})
                have["scoring"] += one["scoring"]
                have["whole"] += one["whole"]
                have["mb"] = max(have["mb"], one["mb"])
        print(f"in process: round {turn + 1} of {ROUNDS}", file=sys.stderr, flush=True)
    return found


# Over HTTP


@contextmanager
def server(lake_uri: str, release: str) -> Iterator[tuple[int, int]]:
    """Port and process id of `understudy serve` on the first core."""
    command = [sys.executable, "-m", "understudy.cli", "serve", "--lake", lake_uri, "--release", release]
    command += ["--port", "0", "--no-log-requests"]
    process = subprocess.Popen(
        command,
        env={**os.environ, "UNDERSTUDY_SERVE_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    os.sched_setaffinity(process.pid, CORES[:1])
    assert process.stderr is not None
    try:
        port = int(process.stderr.readline().rpartition(":")[2])
        while "on_stage" not in process.stderr.readline():
            pass
        time.sleep(1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)


def over_http(lake_uri: str, ranker: dict[str, Any], size: int, seconds: float) -> dict[str, Any]:
    """The peak, and latencies at half of it and at twice it."""
    bodies = [
        json.dumps({"user_id": user, "candidates": items, "context": {"surface": "1"}, "limit": LIMIT}).encode()
        for user, items in slates(lake_uri, size, 300)
    ]
    head = f"POST /v1/rank HTTP/1.1\r\nHost: ranker\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: "
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    random = np.random.default_rng(0)
    with server(lake_uri, ranker["patient"]) as (port, _):
        closed_loop("127.0.0.1", port, requests, 2, 2)
        best = closed_loop("127.0.0.1", port, requests, 3, seconds)
        peak = (best.status == 200).sum() / best.took_s
    with server(lake_uri, ranker["release"]) as (port, pid):
        where = ("127.0.0.1", port)
        closed_loop(*where, requests, 1, 2)

        def poisson(rate: float) -> Answered:
            return open_loop(*where, requests, np.cumsum(random.exponential(1 / rate, int(rate * seconds))))

        half, even, twice = (
            poisson(peak / 2),
            open_loop(*where, requests, np.arange(int(peak / 2 * seconds)) / (peak / 2)),
            poisson(peak * 2),
        )
        return {"peak": peak, "half": half, "even": even, "twice": twice, "mb": _status("VmHWM", pid)}


def _status(name: str, pid: int | str = "self") -> float:
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Make the rankers where they are not there yet, measure, print three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="", help="folder with KuaiRand's logs, where the lake is not there yet")
    parser.add_argument("--lake", default="/tmp/understudy-serving", help="where rankers and features are kept")
    parser.add_argument("--config", default=str(ROOT / "examples" / "kuairand.yaml"))
    parser.add_argument("--seconds", type=float, default=20, help="of each load")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--eager", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        requests = slates(options.lake, options.size, TIMES + 5)
        print(json.dumps(measured_here(options.lake, options.measure, options.size, options.eager, requests)))
        return
    rankers = made(options.lake, options.data, options.config)
    inside = in_process(options.lake, rankers)
    _print_inside(rankers, inside)
    os.sched_setaffinity(0, CORES[1:] or CORES)
    loads = {}
    for name in ("ensemble", "member", "student"):
        for size in SIZES:
            loads[name, size] = over_http(options.lake, rankers[name], size, options.seconds)
            print(f"over HTTP: {name}, {size} candidates", file=sys.stderr, flush=True)
    _print_http(loads)


def _print_inside(rankers: dict[str, dict[str, Any]], found: dict[tuple[str, int], dict[str, Any]]) -> None:
    rows = [(name, f"{one['auc']:.4f}", f"{one['ne']:.4f}", f"{one['mb']:.1f}") for name, one in rankers.items()]
    print_table(f"{HEAD} on the gate rows", ("ranker", "AUC", "normalized entropy", "file in MB"), rows)
    p50 = {key: float(np.median(one["scoring"])) for key, one in found.items()}
    rows = [
        (
            name,
            size,
            f"{p50[name, size]:.2f}",
            f"{np.percentile(one['scoring'], 99):.2f}",
            f"{1000 / np.mean(one['scoring']):.0f}",
            f"{p50[name, size] / p50['student', size]:.1f}",
            "" if "eager" in name else f"{np.median(one['whole']):.2f}",
            "" if "eager" in name else f"{np.percentile(one['whole'], 99):.2f}",
            f"{one['mb']:.0f}",
        )
        for (name, size), one in sorted(found.items(), key=lambda item: item[0][1])
    ]
    columns = ("ranker", "candidates", "p50 ms", "p99 ms", "slates/s", "× student", "with features p50", "p99", "MB")
    print_table("scoring in process, one core", columns, rows)


def _print_http(loads: dict[tuple[str, int], dict[str, Any]]) -> None:
    rows = []
    for (name, size), one in loads.items():
        half, even, twice = one["half"], one["even"], one["twice"]
        rows.append(
            (
                name,
                size,
                f"{one['peak']:.0f}",
                f"{half.percentile(50):.1f} / {half.percentile(99):.1f}",
                f"{even.percentile(50):.1f} / {even.percentile(99):.1f}",
                f"{1 - half.share():.2%}",
                f"{twice.share():.0%} at {(twice.status == 200).sum() / twice.took_s:.0f}/s",
                f"{twice.percentile(50):.1f} / {twice.percentile(99):.1f}",
                f"{twice.percentile(50, 503):.1f} / {twice.percentile(99, 503):.1f}",
                f"{(twice.status == 0).sum()}",
                f"{one['mb']:.0f}",
            )
        )
    columns = (
        "ranker",
        "candidates",
        "peak/s",
        "half of it: p50 / p99 ms",
        "the same, evenly spaced",
        "refused",
        "twice: answered",
        "p50 / p99 ms",
        "refused: p50 / p99 ms",
        "lost",
        "MB",
    )
    print_table("over HTTP, features included, one core", columns, rows)


if __name__ == "__main__":
    main()
