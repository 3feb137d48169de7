"""What teachers are worth on real logs: students of two days, taught by older knowledge, or by an ensemble.

The old teacher learns 25 to 29 April, as production did; the ensemble learns the students' own rows, cross-fitted. The
students learn 30 April and 1 May, everything is calibrated on 2 May and scored on 3 and 4 May. Students of one seed
differ in nothing but the loss. A student keeps (taught − untaught) / (teacher − untaught) of the teacher's edge.
Intervals are Student's t over paired seeds.
"""

import argparse
import dataclasses
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from seeds import interval
from sklearn.metrics import log_loss, roc_auc_score

from understudy import config as configuration
from understudy.calibration.fit import affine_fit
from understudy.cli.output import print_table
from understudy.config import Config
from understudy.features import building, retrieval
from understudy.hashing import decision
from understudy.inputs import Inputs, encode
from understudy.lake import Lake
from understudy.logs import compaction
from understudy.logs.ingest import ingest
from understudy.ranker.fitting import new_like, new_model
from understudy.ranker.network import RankerModel
from understudy.runs import Run
from understudy.runs.planning import plan_window
from understudy.sampling import step as sampling
from understudy.spark_server import serving
from understudy.training.batches import Rows
from understudy.training.checkpoint import Checkpoints
from understudy.training.config import Distillation, Training
from understudy.training.ensemble import Lesson, Spoken, folds_of, mean_logits, members_of
from understudy.training.lessons import column, labels_of
from understudy.training.loop import fit, scores
from understudy.training.member import learn_all
from understudy.training.teacher import teacher_targets

TEACHER, STUDENT, CALIBRATION, TEST = (
    ("2022-04-25", "2022-04-29"),
    ("2022-04-30", "2022-05-01"),
    ("2022-05-02", "2022-05-02"),
    ("2022-05-03", "2022-05-04"),
)
HEADS = ("click", "long_view")
SETTINGS = {
    "alpha .5": Distillation(alpha=0.5),
    "alpha .8": Distillation(alpha=0.8),
    "alpha .9": Distillation(alpha=0.9),
    "alpha 1": Distillation(alpha=1.0),
    "alpha .9, fading to .45": Distillation(alpha=0.9, fade=0.5),
    "alpha .9, temperature 2": Distillation(alpha=0.9, temperature=2.0),
    "auxiliary head, alpha .9": Distillation(alpha=0.9, head="auxiliary"),
}
TAUGHT_BY_ENSEMBLE = ("alpha .5", "alpha .9")
NOTHING: dict[str, Any] = {"resume": lambda *_: None, "save": lambda *_: None, "progress": lambda *_: None}
_STOP_SHARE = 0.2
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Days:
    """Rows of consecutive days: feeds' table, labels (n, H), weights (n,)."""

    table: pa.Table
    labels: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]

    def where(self, which: npt.NDArray[np.bool_]) -> "Days":
        return Days(self.table.filter(pa.array(which)), self.labels[which], self.weights[which])


def whole_table(config: Config, data: str, lake_uri: str) -> pa.Table:
    """All days with features as of each impression."""
    ingest(config, data, lake_uri)
    lake = Lake.open(lake_uri)
    plan = plan_window(lake_uri, config, TEST[1], purpose="evaluate", window_start=TEACHER[0])
    compaction.run(lake_uri, plan.run_id, config.section("labels"))
    building.run(lake_uri, plan.run_id, config.section("features", "labels"))
    sampling.run(lake_uri, plan.run_id, config.section("sampling"))
    retrieval.run(lake_uri, plan.run_id, config.section("features"))
    return lake.dataset(Run(lake, plan.run_id).table_path("retrieve_features", "training_set")).to_table()


def days(table: pa.Table, heads: tuple[str, ...], span: tuple[str, str]) -> Days:
    """The rows of a span of days, both ends included."""
    day = pc.cast(table["day"], pa.string())
    rows = table.filter(pc.and_(pc.greater_equal(day, span[0]), pc.less_equal(day, span[1])))
    return Days(rows, labels_of(rows, heads), column(rows, "sample_weight"))


def prepared(model: RankerModel, part: Days, inputs: Inputs, targets: Floats | None = None) -> Rows:
    aim = None if targets is None else torch.from_numpy(targets)
    labels, weights = torch.from_numpy(part.labels), torch.from_numpy(part.weights)
    return Rows.prepare(model, encode(part.table, inputs), labels, weights, teacher=aim)


def split(part: Days) -> tuple[Days, Days]:
    """Rows that train, and those that stop: a fifth of the last day's users."""
    last = pc.cast(part.table["day"], pa.string()).to_numpy(zero_copy_only=False) == part.table["day"][-1].as_py()
    stops = last & (decision("stop", 0, part.table["user_id"].combine_chunks()) < _STOP_SHARE)
    return part.where(~stops), part.where(stops)


class Class:
    """A span of days, and networks of one seed that learn it; ``stop``: rows that end it, or some of these."""

    def __init__(self, part: Days, inputs: Inputs, training: Training, stop: Days | None = None) -> None:
        self.learn, stop = split(part) if stop is None else (part, stop)
        self.training, self.inputs = training, inputs
        feeds, labels = encode(self.learn.table, inputs), self.learn.labels
        self.base = new_model(training.ranker, inputs, feeds, labels, self.learn.weights, training.seed)
        self.rows, self.stop = prepared(self.base, self.learn, inputs), prepared(self.base, stop, inputs)

    def student(self, distillation: Distillation, targets: Floats | None) -> RankerModel:
        """A network from the same weights as every other of this class."""
        training = dataclasses.replace(self.training, distillation=distillation)
        model = new_like(self.base, training.ranker, training.seed)
        rows = self.rows
        if targets is not None:
            rows = dataclasses.replace(rows, teacher=torch.from_numpy(targets))
            if distillation.head == "auxiliary":
                model.network.add_auxiliary()
        fit(model, rows, self.stop, training, **NOTHING)
        return model

    def targets(self, said: Floats, distillation: Distillation) -> Floats:
        """A teacher's logits on the training rows, moved onto their level."""
        new, heads = np.ones(len(said), bool), self.inputs.heads
        return teacher_targets(said, self.learn.labels, self.learn.weights, new, distillation, heads)[0]

    def members(self, others: tuple[Days, ...]) -> tuple[Floats, list[Spoken], list[int]]:
        """Logits of an ensemble's members that did not see a row; the members; and where other days are cut."""
        members = members_of(self.training)
        fold = torch.from_numpy(folds_of(self.learn.table["request_id"], self.training.ensemble.folds))
        days = np.asarray(self.learn.table["day"].cast(pa.string()).cast(pa.date32()).cast(pa.int32()), np.int64)
        known = [prepared(self.base, part, self.inputs) for part in others]
        lesson = Lesson(self.rows, self.stop, joined(known), fold, torch.from_numpy(days.max() - days))
        with tempfile.TemporaryDirectory(prefix="understudy-members-") as folder:
            checkpoints = Checkpoints(Lake.open_or_create(folder), "ensemble", "0" * 64)
            spoken = learn_all(self.base, self.training, lesson, checkpoints, lambda _: None)
        cuts = np.cumsum([len(part) for part in known])[:-1].tolist()
        return mean_logits([one.train for one in spoken], members, fold), spoken, cuts

    def ensemble(self, others: tuple[Days, ...]) -> tuple[Floats, list[list[Floats]]]:
        """Logits of an ensemble's members that did not see a row, and each member's on other days."""
        out_of_fold, spoken, cuts = self.members(others)
        return out_of_fold, [np.split(one.last.numpy(), cuts) for one in spoken]


def joined(parts: list[Rows]) -> Rows:
    """Rows of several parts, each a request of its own."""
    plain = {
        f.name: torch.cat([getattr(p, f.name) for p in parts])
        for f in dataclasses.fields(Rows)
        if f.name not in ("feeds", "teacher", "request")
    }
    feeds = {name: torch.cat([p.feeds[name] for p in parts]) for name in parts[0].feeds}
    return Rows(feeds=feeds, request=torch.arange(sum(map(len, parts))), **plain)


def logits(model: RankerModel, part: Days, inputs: Inputs) -> npt.NDArray[np.float32]:
    """(n, H)."""
    found: npt.NDArray[np.float32] = scores(model, prepared(model, part, inputs)).numpy()
    return found


def figures(before: Floats, after: Floats, calibrate: Days, test: Days, heads: tuple[str, ...]) -> dict[str, Any]:
    """Per head (AUC, log loss) on the test days, calibrated on the day before."""
    found = {}
    for head in HEADS:
        h = heads.index(head)
        fitted = affine_fit(
            *(part.astype(np.float64) for part in (before[:, h], calibrate.labels[:, h], calibrate.weights))
        )
        p = fitted.probabilities(after[:, h])
        found[head] = float(roc_auc_score(test.labels[:, h], p)), float(log_loss(test.labels[:, h], p))
    return found


def one_seed(config: Config, seed: int, spans: tuple[Days, ...], inputs: Inputs, teachers: str) -> dict[str, Any]:
    """Ranker → figures.

    Args:
        teachers: ``old``, ``ensemble`` or ``both``.
    """
    older, newer, calibrate, test = spans
    training, heads = dataclasses.replace(config.training, seed=seed), config.heads

    def judged(model: RankerModel) -> dict[str, Any]:
        before, after = logits(model, calibrate, inputs), logits(model, test, inputs)
        return figures(before, after, calibrate, test, heads)

    lesson = Class(newer, inputs, training)
    found: dict[str, Any] = {"student, no teacher": judged(lesson.student(Distillation(), None))}
    if teachers != "ensemble":
        teacher = Class(older, inputs, training).student(Distillation(), None)
        found["old teacher"] = judged(teacher)
        said = logits(teacher, lesson.learn, inputs)
        for name, distillation in SETTINGS.items():
            student = lesson.student(distillation, lesson.targets(said, distillation))
            found[f"its student, {name}"] = judged(student)
            print(f"seed {seed}: {name}", file=sys.stderr, flush=True)
    if teachers == "old":
        return found
    out_of_fold, members = lesson.ensemble((calibrate, test))
    each = [figures(before, after, calibrate, test, heads) for before, after in members]
    found["ensemble, mean of its members"] = {
        head: tuple(np.mean([one[head] for one in each], axis=0)) for head in HEADS
    }
    best = {head: max(one[head][0] for one in each) for head in HEADS}
    found["ensemble, its best member"] = {
        head: next(o[head] for o in each if o[head][0] == best[head]) for head in HEADS
    }
    before, after = (np.mean([one[at] for one in members], axis=0) for at in (0, 1))
    found["ensemble"] = figures(before, after, calibrate, test, heads)
    for name in TAUGHT_BY_ENSEMBLE:
        student = lesson.student(SETTINGS[name], lesson.targets(out_of_fold, SETTINGS[name]))
        found[f"ensemble's student, {name}"] = judged(student)
    print(f"seed {seed}: done", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Run the seeds and print a table per head."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder with KuaiRand-Pure")
    parser.add_argument("--config", default="examples/kuairand.yaml")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--teachers", choices=("old", "ensemble", "both"), default="both")
    options = parser.parse_args()
    config = configuration.load(options.config)
    torch.set_num_threads(config.training.threads)
    with tempfile.TemporaryDirectory(prefix="understudy-distillation-") as folder, serving():
        table = whole_table(config, options.data, f"{folder}/lake")
    heads, f = config.heads, config.features
    inputs = Inputs.derive(
        table.schema,
        heads=heads,
        time_zone=config.time_zone,
        half_lives=f.half_lives,
        recent_events=f.recent_events,
        surfaces=f.max_surfaces,
    )
    spans = tuple(days(table, heads, span) for span in (TEACHER, STUDENT, CALIBRATION, TEST))
    del table
    found = [one_seed(config, seed, spans, inputs, options.teachers) for seed in range(options.seeds)]
    for head in HEADS:
        rows = []
        for name in found[0]:
            auc = [one[name][head][0] for one in found]
            gain = [one[name][head][0] - one["student, no teacher"][head][0] for one in found]
            loss = [one[name][head][1] - one["student, no teacher"][head][1] for one in found]
            shown = ("", "", "")
            if name != "student, no teacher":
                shown = (interval(gain, 4), _kept(found, name, head), interval(loss, 4))
            rows.append((name, f"{np.mean(auc):.4f}", *shown))
        columns = ("ranker", "AUC", "AUC − no teacher", "of its teacher's edge", "log loss − no teacher")
        print_table(f"{head}, 3 and 4 May, {options.seeds} seeds", columns, rows)


def _kept(found: list[dict[str, Any]], name: str, head: str) -> str:
    """The share of the teacher's edge, mean over mean."""
    teacher = "old teacher" if name.startswith("its student") else "ensemble" if "'s student" in name else None
    if teacher is None:
        return ""
    alone = np.mean([one["student, no teacher"][head][0] for one in found])
    gain, edge = (np.mean([one[n][head][0] for one in found]) - alone for n in (name, teacher))
    return f"{gain / edge:.0%}"


if __name__ == "__main__":
    main()
