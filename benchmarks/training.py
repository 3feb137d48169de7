"""Samples a second of training beside FuxiCTR's DCNv2, on the same rows and fields, and what distillation costs.

Both read the categorical columns and the dense numbers of real logs, without the user's events, and predict a click:
two cross layers in parallel with a DNN of the same widths, Adam, the same batches from memory, the same early stopping
rows. FuxiCTR's layers, loss and training step are its own; its data loader is left out, which favours it. AUC is of
days after the training.

    pip install fuxictr==2.3.10    # into the environment of `make install`, for this comparison alone
"""

import argparse
import dataclasses
import logging
import math
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from distillation import STUDENT, TEACHER, TEST, Days, days, split, whole_table
from sklearn.metrics import roc_auc_score
from torch import Tensor

from understudy import config as configuration
from understudy.cli.output import print_table
from understudy.inputs import Inputs, encode
from understudy.ranker.fitting import new_like, new_model
from understudy.ranker.network import RankerModel
from understudy.spark_server import serving
from understudy.training.batches import Rows
from understudy.training.config import Distillation, Training
from understudy.training.loop import State, fit, scores

HEAD = "click"
DIMENSION = 16
Floats = npt.NDArray[np.float32]


def ours(base: RankerModel, train: Rows, stop: Rows, config: Training) -> tuple[RankerModel, float, int]:
    """A trained network, its seconds, and the epochs that it saw."""
    model = new_like(base, config.ranker, config.seed)
    states: list[State] = []
    started = time.perf_counter()
    fit(model, train, stop, config, resume=lambda *_: None, save=lambda *_: None, progress=states.append)
    return model, time.perf_counter() - started, states[-1].evaluation


class Batches:
    """Batches as FuxiCTR's ``fit`` iterates them: column → values."""

    def __init__(self, rows: Rows, size: int, *, shuffled: bool) -> None:
        self.columns = {f"c{c}": rows.rows[:, c].long() for c in range(rows.rows.shape[1])}
        self.columns |= {"dense": rows.dense, HEAD: rows.labels[:, 0]}
        self.rows, self.size, self.shuffled = len(rows), size, shuffled

    def __len__(self) -> int:
        return math.ceil(self.rows / self.size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        order = torch.randperm(self.rows) if self.shuffled else torch.arange(self.rows)
        for start in range(0, self.rows, self.size):
            at = order[start : start + self.size]
            yield {name: column[at] for name, column in self.columns.items()}


def theirs(rows: Rows, stop: Rows, config: Training, folder: str) -> tuple[Any, float, int]:
    """FuxiCTR's network, trained by its own loop, its seconds and epochs."""
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    class DCNv2(BaseModel):  # type: ignore[misc]
        def __init__(self, feature_map: Any, dense: int) -> None:
            super().__init__(
                feature_map, early_stop_patience=1, eval_steps=None, verbose=0, model_root=folder, metrics=["AUC"]
            )
            ranker = config.ranker
            self.embedding_layer = FeatureEmbedding(feature_map, DIMENSION)
            width = dense + DIMENSION * len(feature_map.features)
            self.crossnet = CrossNetV2(width, ranker.cross_layers)
            self.dnn = MLP_Block(
                input_dim=width, output_dim=None, hidden_units=list(ranker.hidden), dropout_rates=ranker.dropout
            )
            self.fc = torch.nn.Linear(width + ranker.hidden[-1], 1)
            self.compile("adam", "binary_crossentropy", config.learning_rate)
            self.reset_parameters()
            self.epochs_done = 0

        def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            fields = {name: inputs[name] for name in self.feature_map.features}
            x = torch.cat([self.embedding_layer(fields, flatten_emb=True), inputs["dense"]], dim=1)
            logit = self.fc(torch.cat([self.crossnet(x), self.dnn(x)], dim=1))
            return {"y_pred": self.output_activation(logit)}

        def train_epoch(self, data_generator: Any) -> None:
            self.epochs_done += 1
            super().train_epoch(data_generator)

    known = FeatureMap("kuairand", folder)
    sizes = [int(rows.rows[:, c].max()) + 1 for c in range(rows.rows.shape[1])]
    known.features = OrderedDict(
        (f"c{c}", {"source": "", "type": "categorical", "vocab_size": size}) for c, size in enumerate(sizes)
    )
    known.labels, known.num_fields = [HEAD], len(sizes)
    torch.manual_seed(config.seed)
    model = DCNv2(known, rows.dense.shape[1])
    Path(model.model_dir).mkdir(parents=True, exist_ok=True)
    train, held = (Batches(part, config.batch_size, shuffled=part is rows) for part in (rows, stop))
    started = time.perf_counter()
    model.fit(train, epochs=config.epochs, validation_data=held)
    return model, time.perf_counter() - started, model.epochs_done


def local(rows: Rows, bases: Tensor) -> Rows:
    """Rows of one embedding table per column, each from zero, as FuxiCTR numbers them."""
    return dataclasses.replace(rows, rows=(rows.rows - bases).to(torch.int32))


def step_rates(base: RankerModel, rows: Rows, stop: Rows, config: Training, folder: str, repeats: int) -> list[Any]:
    """Samples a second of one epoch without early stopping, in turn: ours, ours taught, theirs."""
    once = dataclasses.replace(config, epochs=1, evaluations_per_epoch=1)
    bases = base.preprocess.vocabulary.bases_C
    few = stop.take(torch.arange(64))
    taught = dataclasses.replace(rows, teacher=torch.zeros_like(rows.labels))
    found: dict[str, list[float]] = {"Understudy": [], "Understudy, taught": [], "FuxiCTR": []}
    for _ in range(repeats):
        found["Understudy"].append(len(rows) / ours(base, rows, few, once)[1])
        found["Understudy, taught"].append(len(rows) / ours(base, taught, few, once)[1])
        found["FuxiCTR"].append(len(rows) / theirs(local(rows, bases), local(few, bases), once, folder)[1])
        print(".", end="", file=sys.stderr, flush=True)
    plain = np.array(found["Understudy"])
    return [
        (name, f"{np.median(values):,.0f}", f"{np.median(plain / np.array(values)):.2f}")
        for name, values in found.items()
    ]


def main() -> None:
    """Run the comparison and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with KuaiRand-Pure")
    parser.add_argument("--config", default="examples/kuairand.yaml")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    config = configuration.load(options.config)
    torch.set_num_threads(config.training.threads)
    with tempfile.TemporaryDirectory(prefix="understudy-training-") as folder, serving():
        table = whole_table(config, options.data, f"{folder}/lake")
    f = config.features
    shape = {"half_lives": f.half_lives, "recent_events": 1, "surfaces": f.max_surfaces}
    inputs = Inputs.derive(table.schema, heads=(HEAD,), time_zone=config.time_zone, **shape)
    events = [name for name in table.column_names if name.startswith("user_history__events_")]
    table = table.drop_columns(events)
    train, test = days(table, (HEAD,), (TEACHER[0], STUDENT[1])), days(table, (HEAD,), TEST)
    with tempfile.TemporaryDirectory(prefix="understudy-fuxictr-") as folder:
        report(train, test, inputs, config.training, folder, options.repeats)


def report(train: Days, test: Days, inputs: Inputs, config: Training, folder: str, repeats: int) -> None:
    """Print AUC and speed of both."""
    ranker = dataclasses.replace(config.ranker, category_dimension=DIMENSION, id_dimension=DIMENSION)
    config = dataclasses.replace(config, ranker=ranker, distillation=Distillation())
    learn, stop = split(train)
    feeds = encode(learn.table, inputs)
    base = new_model(ranker, inputs, feeds, learn.labels, learn.weights, config.seed)

    def rows_of(part: Days, feeds: Any = None) -> Rows:
        fed = encode(part.table, inputs) if feeds is None else feeds
        return Rows.prepare(base, fed, torch.from_numpy(part.labels), torch.from_numpy(part.weights))

    rows, held, later = rows_of(learn, feeds), rows_of(stop), rows_of(test)
    bases = base.preprocess.vocabulary.bases_C
    model, seconds, evaluations = ours(base, rows, held, config)
    auc = roc_auc_score(later.labels[:, 0], scores(model, later)[:, 0])
    other, other_s, epochs = theirs(local(rows, bases), local(held, bases), config, folder)
    other.eval()
    with torch.no_grad():
        said = torch.cat([other(batch)["y_pred"] for batch in Batches(local(later, bases), 8192, shuffled=False)])
    other_auc = roc_auc_score(later.labels[:, 0], said[:, 0])
    ended = f"{evaluations / config.evaluations_per_epoch:.1f}"
    print_table(
        f"trained to its end on {len(rows):,} rows, {rows.rows.shape[1]} categorical and {rows.dense.shape[1]} dense",
        ("network", "AUC of a click, 3 and 4 May", "epochs", "seconds"),
        [
            ("Understudy", f"{auc:.4f}", ended, f"{seconds:.1f}"),
            ("FuxiCTR", f"{other_auc:.4f}", epochs, f"{other_s:.1f}"),
        ],
    )
    rates = step_rates(base, rows, held, config, folder, repeats)
    print_table("one epoch", ("network", "samples a second", "seconds of Understudy's one"), rates)


if __name__ == "__main__":
    main()
