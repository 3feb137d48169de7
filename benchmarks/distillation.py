"""What a teacher is worth on real logs: students of two days, taught by a network that saw the five days before.

The teacher learns 25 to 29 April, the students 30 April and 1 May, everything is calibrated on 2 May and scored on 3
and 4 May. Students of one seed differ in nothing but the loss. A student keeps (taught − untaught) / (teacher −
untaught) of the teacher's edge. Intervals are Student's t over paired seeds.
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
from understudy.ranker.fitting import new_model
from understudy.ranker.network import RankerModel
from understudy.runs import Run
from understudy.runs.planning import plan_window
from understudy.sampling import step as sampling
from understudy.spark_server import serving
from understudy.training.batches import Rows
from understudy.training.config import Distillation, Training
from understudy.training.loop import fit, scores
from understudy.training.teacher import teacher_targets

TEACHER, STUDENT, CALIBRATION, TEST = (
    ("2022-04-25", "2022-04-29"),
    ("2022-04-30", "2022-05-01"),
    ("2022-05-02", "2022-05-02"),
    ("2022-05-03", "2022-05-04"),
)
HEADS = ("click", "long_view")
ALPHAS = (0.0, 0.33, 0.5, 0.67, 0.8, 0.9)
_STOP_SHARE = 0.2
Floats = npt.NDArray[np.float64]


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
    labels = [np.asarray(rows[f"label_{h}"].cast(pa.float32()).fill_null(float("nan"))) for h in heads]
    return Days(rows, np.stack(labels, axis=1), np.array(rows["sample_weight"].cast(pa.float32())))


def trained(part: Days, inputs: Inputs, training: Training, targets: npt.NDArray[np.float32] | None) -> RankerModel:
    """A network that learned a span of days; a fifth of its last day's users stop it."""
    last = pc.cast(part.table["day"], pa.string()).to_numpy(zero_copy_only=False) == part.table["day"][-1].as_py()
    stops = last & (decision("stop", 0, part.table["user_id"].combine_chunks()) < _STOP_SHARE)
    learn, stop = part.where(~stops), part.where(stops)
    feeds = encode(learn.table, inputs)
    model = new_model(training.ranker, inputs, feeds, learn.labels, learn.weights, training.seed)
    aim = None if targets is None else torch.from_numpy(targets[~stops])
    rows = Rows.prepare(model, feeds, torch.from_numpy(learn.labels), torch.from_numpy(learn.weights), aim, "cpu")
    held = torch.from_numpy(stop.labels), torch.from_numpy(stop.weights)
    stopping = Rows.prepare(model, encode(stop.table, inputs), *held, None, "cpu")
    nothing: Any = {"resume": lambda *_: None, "save": lambda *_: None, "progress": lambda *_: None}
    fit(model, rows, stopping, training, **nothing)
    return model


def logits(model: RankerModel, part: Days, inputs: Inputs) -> npt.NDArray[np.float32]:
    """(n, H)."""
    labels, weights = torch.from_numpy(part.labels), torch.from_numpy(part.weights)
    found: npt.NDArray[np.float32] = scores(
        model, Rows.prepare(model, encode(part.table, inputs), labels, weights, None, "cpu")
    ).numpy()
    return found


def figures(model: RankerModel, calibrate: Days, test: Days, inputs: Inputs, heads: tuple[str, ...]) -> dict[str, Any]:
    """Per head (AUC, log loss) on the test days, calibrated on the day before."""
    before, after = logits(model, calibrate, inputs), logits(model, test, inputs)
    found = {}
    for head in HEADS:
        h = heads.index(head)
        fitted = affine_fit(before[:, h].astype(float), calibrate.labels[:, h].astype(float), calibrate.weights)
        p = fitted.probabilities(after[:, h])
        found[head] = float(roc_auc_score(test.labels[:, h], p)), float(log_loss(test.labels[:, h], p))
    return found


def main() -> None:
    """Run the seeds and print a table per head."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder with KuaiRand-Pure")
    parser.add_argument("--config", default="examples/kuairand.yaml")
    parser.add_argument("--seeds", type=int, default=5)
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
    older, newer, calibrate, test = (days(table, heads, span) for span in (TEACHER, STUDENT, CALIBRATION, TEST))
    found: list[dict[Any, Any]] = []
    for seed in range(options.seeds):
        base = dataclasses.replace(config.training, seed=seed)
        teacher = trained(older, inputs, base, None)
        said = logits(teacher, newer, inputs)
        one: dict[Any, Any] = {"teacher": figures(teacher, calibrate, test, inputs, heads)}
        for alpha in ALPHAS:
            distillation = Distillation(alpha=alpha)
            new = np.ones(len(said), bool)
            targets, _ = teacher_targets(said, newer.labels, newer.weights, new, distillation, heads)
            training = dataclasses.replace(base, distillation=distillation)
            student = trained(newer, inputs, training, targets if alpha else None)
            one[alpha] = figures(student, calibrate, test, inputs, heads)
        found.append(one)
        print(f"seed {seed}: done", file=sys.stderr, flush=True)
    for head in HEADS:
        rows = []
        for name in ("teacher", *ALPHAS):
            auc = [one[name][head][0] for one in found]
            gain = [one[name][head][0] - one[0.0][head][0] for one in found]
            loss = [one[name][head][1] - one[0.0][head][1] for one in found]
            edge = [one["teacher"][head][0] - one[0.0][head][0] for one in found]
            kept = f"{np.mean(gain) / np.mean(edge):.0%}"
            shown = (interval(gain, 4), kept, interval(loss, 4)) if name else ("", "", "")
            label = name if name == "teacher" else f"student, alpha {name:g}" if name else "student, no teacher"
            rows.append((label, f"{np.mean(auc):.4f}", *shown))
        columns = ("ranker", "AUC", "AUC − no teacher", "of the edge", "log loss − no teacher")
        print_table(f"{head}, 3 and 4 May, {options.seeds} seeds", columns, rows)


if __name__ == "__main__":
    main()
