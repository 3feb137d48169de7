"""Make what this version leaves to later ones: ``python tests/golden/make.py``, once, before a minor is released.

``ingested.tar.xz`` is a lake of logs that were ingested and not run yet. ``feed.tar.xz`` is a lake of a small simulated
feed: two releases, a third on stage in a rollout that has taken a step, an online store, and beside the lake the
journal of a collector that was not flushed. Each has its configuration, ``understudy.yaml``, as a user has it.

``named.json`` lists what compiled pipelines name: they are uploaded once and run in the images of the next minor too.

Left out of the lakes: pages of runs, which are large, and the simulator's truth, which no product has. Lakes are made
in ``PLACE`` and read elsewhere by the tests, as a user's lake may have moved: nothing in one may rely on its path.
"""

import ast
import dataclasses
import functools
import gzip
import json
import re
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from google.protobuf import json_format

from pipelines.compile import compiled
from pipelines.placing import jobs_of
from pipelines.retraining import GRAPHS
from understudy import __version__, releases
from understudy import config as configuration
from understudy.calibration import step as calibration
from understudy.config import Config
from understudy.drift import step as drift
from understudy.evaluation import step as evaluation
from understudy.experiments import Outcomes
from understudy.features import building, retrieval
from understudy.jobs.main import PACKAGES
from understudy.jobs.spark_jobs import ENTRY
from understudy.lake import Lake
from understudy.logs import compaction
from understudy.logs.events import decode
from understudy.logs.ingest import ingest
from understudy.logs.journal import Journal
from understudy.releases import promote, publish
from understudy.releases.unit import build
from understudy.rollout.beginning import begin
from understudy.rollout.driver import Driver
from understudy.rollout.record import Rollouts
from understudy.rollout.state import ArmSeen, Seen, State
from understudy.runs import Run
from understudy.runs.planning import plan_window
from understudy.sampling import step as sampling
from understudy.section import duration_s
from understudy.simulator.days import Day, Days
from understudy.simulator.feed import day_of, start_us
from understudy.simulator.kuairand import generate
from understudy.simulator.simulate import simulate
from understudy.simulator.world import ACTIONS, SURFACES
from understudy.training import step as training

ROOT = Path(__file__).resolve().parents[2]
PLACE = Path("/tmp/understudy-golden")
ROWS, DAYS = 3_000, 5
LAST = b"20220502"  # day of the log that the first lake holds
ENDS = ("2026-01-07", "2026-01-08")  # windows of the two releases
STEPS = {
    "compact_logs": (compaction.run, ("labels",)),
    "build_features": (building.run, ("features", "labels")),
    "sample_examples": (sampling.run, ("sampling",)),
    "retrieve_features": (retrieval.run, ("features",)),
    "check_drift": (drift.run, ("drift",)),
    "train_ranker": (training.run, ("training", "sampling")),
    "calibrate": (calibration.run, ("calibration", "training")),
    "evaluate": (evaluation.run, ("evaluation",)),
    "publish_release": (publish.run, ()),
    "promote": (promote.run, ("rollout",)),
}
SMALL = {
    "training": {
        "epochs": 3,
        "batch_size": 256,
        "learning_rate": 0.005,
        "ranker": {"hidden": [8], "cross_layers": 1, "cross_rank": 2, "id_dimension": 2, "category_dimension": 2},
    },
    # A few hundred rows prove nothing: gates that a healthy run of them passes.
    "evaluation": {
        "primary_heads": ["click"],
        "auc_margin": 0.5,
        "min_auc": 0.5,
        "max_calibration_error": 0.7,
        "max_ece": 0.3,
        "min_rank_correlation": -1.0,
        "max_p99_ms": 1000.0,
        "slate_size": 10,
        "slate_sizes": [20],
        "segments": [],
        "bootstrap": 20,
    },
}
FEED: dict[str, Any] = {
    **SMALL,
    "time_zone": "UTC",
    "world": {
        "users": 60,
        "new_users_per_day": 2,
        "creators": 8,
        "topics": 4,
        "new_items_per_day": 8,
        "item_life": 5,
        "requests_per_day": 300,
        "candidates": 20,
        "slots": 6,
    },
    "logging": {"heads": ["click", "save"], "negative_keep_rate": 0.5, "random_share": 0.1},
    "labels": {"attribution_window": "1h"},
    "window": {"days": 3},
    "features": {"half_lives": ["1d"], "history": "7d", "recent_events": 4, "max_surfaces": 3, "crosses": ["topic"]},
    "drift": {"label_rate_factor": 10.0, "min_rows": 50},
    "rollout": {"steps": [20, 40], "tick": "1h", "bake": "12h", "min_users": 20, "judged": ["click"], "margin": 0.25},
    "serving": {"budget_ms": 1000.0},
}


def ingested(folder: Path) -> None:
    """Logs of ten days, of which the lake holds the first eight; the whole log lies beside it."""
    value = yaml.safe_load((ROOT / "examples" / "generated.yaml").read_text())
    for attributes in ("users", "items"):  # a few of the columns
        value["source"][attributes]["categorical"] = value["source"][attributes]["categorical"][:2]
        value["source"][attributes]["numeric"] = value["source"][attributes]["numeric"][:1]
    features = FEED["features"] | {"crosses": []}
    config = written(folder, value | SMALL | {"window": FEED["window"], "drift": FEED["drift"], "features": features})
    logs, earlier = folder / "logs", folder / "earlier"
    generate(logs, seed=0, rows=ROWS)
    shutil.copytree(logs, earlier)
    for path in earlier.glob("log_*"):
        header, *lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        place = header.split(b",").index(b"date")
        path.write_bytes(gzip.compress(b"".join([header, *(li for li in lines if li.split(b",")[place] <= LAST)])))
    ingest(config, earlier, str(folder / "lake"))
    shutil.rmtree(earlier)


def feed(folder: Path) -> None:
    """Days of a feed: four with two releases, and a fifth in the journal."""
    config = written(folder, FEED)
    simulate(config, str(folder / "lake"), DAYS - 1, "popularity")
    lake = Lake.open(str(folder / "lake"))
    for end in ENDS:
        run = Run(lake, plan_window(lake.root, config, end, last="promote").run_id)
        for step, parts in STEPS.values():
            step(lake.root, run.id, config.section(*parts))
    on_stage(lake, config)
    journal(folder / "collector.db", config, fifth_day(config, lake))


def written(folder: Path, value: dict[str, Any]) -> Config:
    """The configuration, which is a file in the folder from now on."""
    folder.mkdir(parents=True)
    (folder / "understudy.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    return configuration.load(folder / "understudy.yaml")


class Nowhere:
    """Stands for servers and their route."""

    def apply(self, *_: Any) -> bool:
        return True


class Crowd:
    """Sees many people, who like both arms alike."""

    def see(self, _: State, now_s: float) -> Seen:
        n = np.full(400, 10.0)
        outcomes = {"click": Outcomes.of(np.where(np.arange(len(n)) % 2 == 0, 4.0, 0.0), n)}
        arm = ArmSeen(500, 0, 12.0, 300.0, 0, {"click": 0.2, "save": 0.05}, 1_000, len(n), outcomes)
        return Seen(now_s, arm, arm)


def on_stage(lake: Lake, config: Config) -> None:
    """A copy of production with another worth of a save, in a rollout at its second step."""
    production = releases.load(lake, "production")
    content = {key: value for key, value in production.manifest.items() if key not in ("files", "format")}
    serving = {**content["config"]["serving"], "utility": {"click": 1.0, "save": 4.0}}
    candidate = build(lake, content | {"config": {**content["config"], "serving": serving}}, production.files)
    releases.move(lake, {"candidate": candidate}, "made by hand", expected={})
    assert config.world is not None
    now_s = start_us(config.world) / 1e6 + DAYS * 86_400
    record = Rollouts(lake)
    state = begin(lake, record, config.rollout, candidate, now_s)
    driver = Driver(lake, record, config.rollout, ("click",), Nowhere(), Crowd(), print)
    for hours in (1, 24, 25):
        clock = functools.partial(float, state.started_s + hours * 3_600)
        dataclasses.replace(driver, clock=clock).tick(state.id)
    number, state = record.load(state.id)
    assert (state.phase, state.step, number) == ("running", 1, 4), state


def fifth_day(config: Config, lake: Lake) -> Day:
    """The day after those that the lake holds; it is not written there."""
    assert config.world is not None
    days = Days(config, lake)
    for _ in range(DAYS - 1):
        days.next(days.popularity)
    days.present.add(day_of(config.world, DAYS - 1))
    return days.next(days.popularity)


def journal(path: Path, config: Config, day: Day) -> None:
    """What a collector was told of a day and has not brought to the lake."""
    assert config.logging is not None
    assert config.world is not None
    keep_s = duration_s(config.labels.attribution_window) + duration_s(config.logging.lateness)
    opened = Journal(path, config.logging, keep_s=keep_s)
    sent_us = start_us(config.world) + DAYS * 86_400_000_000
    events = [event for place in range(len(day.requests)) for event in told(config, day, place)]
    for number, start in enumerate(range(0, len(events), 500)):
        body = {"batch_id": f"b{number}", "sent_at": sent_us, "events": events[start : start + 500]}
        opened.take([(decode(json.dumps(body).encode()), sent_us)])
    opened.close()


def told(config: Config, day: Day, place: int) -> list[dict[str, Any]]:
    """What server and client report of one request."""
    requests, outcomes = day.requests, day.outcomes
    assert config.world is not None
    request, at = requests.ids[place].as_py(), start_us(config.world) + int(requests.time_days[place] * 86_400e6)
    items = [f"i{item}" for item in outcomes.items[place]]
    random = bool(outcomes.random[place])
    chance = {"propensity": 1 / requests.candidates.shape[1]} if random else {}
    served = {
        "kind": "served",
        "request_id": request,
        "user_id": f"u{requests.users[place]}",
        "at": at,
        "surface": SURFACES[requests.surfaces[place]],
        "candidate_count": requests.candidates.shape[1],
        "items": [{"item_id": item, "position": k, **chance} for k, item in enumerate(items)],
    }
    seen = [
        {"kind": "seen", "request_id": request, "item_id": items[k], "at": at}
        for k in np.flatnonzero(outcomes.seen[place])
    ]
    done = [
        {
            "kind": "action",
            "request_id": request,
            "item_id": items[k],
            "action": ACTIONS[a],
            "at": at + int(outcomes.delay_s[place, k, a] * 1e6),
        }
        for k, a in zip(*np.nonzero(outcomes.done[place]), strict=True)
    ]
    return [served, *seen, *done]


def named(target: Path) -> None:
    """What the compiled pipelines name: functions that components' bodies call and how, modules, files, steps."""
    value = yaml.safe_load((ROOT / "examples" / "generated.yaml").read_text())
    value |= {"spark": {"mode": "operator"}, "training": {"mode": "trainjob"}, "pipeline": {"lake": "/lake"}}
    calls: dict[str, list[dict[str, Any]]] = {}
    for changed in ({}, {"spark": {}, "training": {}}):
        config = configuration.parse(value | changed, "golden")
        for kind in GRAPHS:
            spec = json_format.MessageToDict(compiled(config, kind).component.pipeline_spec)
            for executor in spec["deploymentSpec"]["executors"].values():
                for source in (text for text in executor["container"]["command"] if "\ndef " in text):
                    for name, call in calls_of(source):
                        known = calls.setdefault(name, [])
                        known += [] if call in known else [call]
    jobs = [json.loads(job) for job in jobs_of(configuration.parse(value, "golden")).values()]
    texts = re.findall(r"[\w./-]+", json.dumps([*jobs, ENTRY]))
    files = {text.partition("/app/")[2] for text in texts if "/app/" in text}
    modules = {text for text in texts if re.fullmatch(r"understudy(\.\w+)+", text)}
    found = {"calls": calls, "files": sorted(files), "modules": sorted(modules), "steps": sorted(PACKAGES)}
    target.write_text(json.dumps({"version": __version__, **found}, indent=2, sort_keys=True) + "\n")


def calls_of(source: str) -> list[tuple[str, dict[str, Any]]]:
    """What of ours a component's body calls: as ``module:name``, how many arguments by place, and which by name."""
    tree = ast.parse(source)
    imported = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("understudy")
        for alias in node.names
    }
    called = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = []
    for node in called:
        way, at = [], node.func
        while isinstance(at, ast.Attribute):
            way.insert(0, at.attr)
            at = at.value
        if isinstance(at, ast.Name) and at.id in imported:
            name = ".".join([imported[at.id], *way])
            how = {"by_place": len(node.args), "by_name": sorted(str(one.arg) for one in node.keywords)}
            found.append((name, how))
    missed = set(imported.values()) - {name for name, _ in found}
    return found + [(name, {}) for name in sorted(missed) if not any(one.startswith(f"{name}.") for one, _ in found)]


def pack(folder: Path, target: Path) -> None:
    """One archive of plain files, without what is left out; the same files give the same bytes."""
    for pattern in ("lake/simulator", "lake/runs/*/evidence/*.html", "lake/**/.lock", "*.lock"):
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with tarfile.open(target, "w:xz", preset=9) as archive:
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            info = archive.gettarinfo(path, str(path.relative_to(folder)))
            info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode = 0, 0, 0, "", "", 0o644
            with path.open("rb") as file:
                archive.addfile(info, file)


def main() -> None:
    target = ROOT / "tests" / "golden" / __version__.rpartition(".")[0]
    target.mkdir(exist_ok=True)
    shutil.rmtree(PLACE, ignore_errors=True)
    if "named" in (sys.argv[1:] or ["named"]):
        named(target / "named.json")
    for make in (ingested, feed):
        if make.__name__ in (sys.argv[1:] or ("ingested", "feed")):
            make(PLACE / make.__name__)
            pack(PLACE / make.__name__, target / f"{make.__name__}.tar.xz")


if __name__ == "__main__":
    main()
