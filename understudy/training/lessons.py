"""One training set, and networks that learn from it: a student, its control, the members of an ensemble."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from understudy import __version__
from understudy.inputs import Feeds, Inputs, encode
from understudy.ranker.fitting import new_like, new_model_of
from understudy.ranker.network import RankerModel
from understudy.runs import Run, Step
from understudy.sampling.config import Sampling
from understudy.snapshot import Snapshot
from understudy.training.batches import Rows, Source
from understudy.training.checkpoint import Checkpoints, checkpoint_key
from understudy.training.config import Training
from understudy.training.loader import Loader, Stream
from understudy.training.loop import State, fit

__all__ = ["Lessons", "checkpoints_of", "choose_device", "column", "labels_of", "open_loader"]

Floats = npt.NDArray[np.float32]

_KEYS = ("row_key", "request_id", "day", "slice", "split", "sample_weight", "importance")


def choose_device(wanted: str) -> str:
    """``cuda`` where there is one and ``auto`` or ``cuda`` asks for it, else ``cpu``."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def open_loader(step: Step, sampling: Sampling) -> Loader:
    """A loader of the step's training set, with the attributes that rules may ask for."""
    snapshot = Snapshot.load(step.lake, step.plan.snapshot)
    attributes = {
        key: snapshot.dataset(step.lake, table).to_table()
        for key, table in (("item_id", "items"), ("user_id", "users"))
        if snapshot.files(table)
    }
    step.dataset("retrieve_features", "training_set")
    folder = step.run.table_path("retrieve_features", "training_set")
    return Loader(step.lake, folder, sampling, step.plan.heads, attributes)


class Lessons:
    """What is learned from, by which configuration.

    Args:
        sampling: decides the rows where its mode is ``loader``; otherwise Spark has decided.
        extra: columns that a teacher reads beside ours.
        section: the step's configuration, for the keys of checkpoints.
        whole: whether rows that a loader keeps are held in memory, rather than read anew for each epoch.
    """

    def __init__(
        self,
        step: Step,
        config: Training,
        sampling: Sampling,
        section: str,
        extra: Iterable[str] = (),
        *,
        whole: bool = False,
    ) -> None:
        self.step, self.config, self.section = step, config, section
        self.heads = step.plan.heads
        self.in_memory = whole or sampling.mode == "spark"
        self.device = choose_device(config.device)
        dataset = step.dataset("retrieve_features", "training_set")
        self.inputs = _inputs(step, dataset.schema)
        wanted = {*_KEYS, *(f"label_{h}" for h in self.heads), *self.inputs.columns(), *extra}
        self.columns = sorted(wanted & set(dataset.schema.names))
        self.last = dataset.to_table(columns=self.columns, filter=pc.field("split") != "train")
        self.loader = open_loader(step, sampling) if sampling.mode == "loader" else None
        self.index: pa.Table = (
            dataset.to_table(columns=self.columns, filter=pc.field("split") == "train")
            if self.loader is None
            else self.loader.index
        )
        stop = self.last.filter(pc.equal(self.last["split"], "stop"))
        step.say(f"{len(self.index)} rows train, {stop.num_rows} stop, on {self.device}")
        self.labels, self.weights = labels_of(self.index, self.heads), column(self.index, "sample_weight")
        base = new_model_of(config.ranker, self.inputs, self._feeds, self.labels, self.weights, config.seed)
        self.base = base.to(self.device)
        self.stop = self.scored_only(stop)

    def parts(self) -> Iterator[pa.Table]:
        """The training rows with all columns, in the order of ``index``."""
        if self.loader is None:
            yield self.index
            return
        for group in self.loader.groups:
            yield self.loader.read(group, self.columns)

    def _feeds(self) -> Iterable[Feeds]:
        if self.in_memory:
            return [self._whole]
        return (encode(part, self.inputs) for part in self.parts())

    @cached_property
    def _whole(self) -> Feeds:
        return encode(pa.concat_tables(self.parts()), self.inputs)

    @cached_property
    def rows(self) -> Rows:
        """The training rows in memory, without a teacher."""
        traffic = torch.from_numpy(self.weights)
        labels, weights = torch.from_numpy(self.labels), traffic * torch.from_numpy(column(self.index, "importance"))
        rows = Rows.prepare(self.base, self._whole, labels, weights, traffic=traffic, device=self.device)
        del self._whole
        return rows

    def source(self, teacher_BH: Tensor | None = None) -> Source:
        """The training rows in batches, with a teacher's logits or none."""
        if self.loader is None:
            return (
                self.rows if teacher_BH is None else dataclasses.replace(self.rows, teacher=teacher_BH.to(self.device))
            )
        traffic = torch.from_numpy(self.weights)
        weights = traffic * torch.from_numpy(column(self.index, "importance"))
        return Stream(
            self.loader,
            self.base,
            torch.from_numpy(self.labels),
            weights,
            traffic,
            block=self.config.block_rows,
            device=self.device,
            teacher_BH=teacher_BH,
        )

    def scored_only(self, table: pa.Table) -> Rows:
        """Rows that teach nothing; they weigh as traffic does."""
        labels = torch.from_numpy(labels_of(table, self.heads))
        weights = torch.from_numpy(column(table, "sample_weight"))
        return Rows.prepare(self.base, encode(table, self.inputs), labels, weights, device=self.device)

    def checkpoints(self, name: str) -> Checkpoints:
        parts = {"section": self.section, "plan": str(self.step.plan.to_json()), "version": __version__}
        parts |= {"device": self.device, "torch": torch.__version__, "inputs": self.inputs.to_json(), "name": name}
        return Checkpoints(self.step.lake, f"{checkpoints_of(self.step.run)}/{name}", checkpoint_key(parts))

    def fitted(self, name: str, teacher_BH: Tensor | None = None) -> tuple[RankerModel, State]:
        """A network that has learned; every call begins with the same weights and goes through the same rows."""
        model = new_like(self.base, self.config.ranker, self.config.seed).to(self.device)
        if teacher_BH is not None and self.config.distillation.head == "auxiliary":
            model.network.add_auxiliary()
            model.to(self.device)
        kept, told = self.checkpoints(name), _progress(self.step, name, self.config)
        source = self.source(teacher_BH)
        state = fit(model, source, self.stop, self.config, resume=kept.resume, save=kept.save, progress=told)
        return model.cpu(), state


def labels_of(table: pa.Table, heads: tuple[str, ...]) -> Floats:
    """Labels (B, H), NaN where unknown."""
    columns = [np.asarray(table[f"label_{h}"].cast(pa.float32()).fill_null(float("nan"))) for h in heads]
    return np.stack(columns, axis=1)


def column(table: pa.Table, name: str) -> Floats:
    """A column of numbers (B,)."""
    return np.asarray(table[name].cast(pa.float32())).copy()


def checkpoints_of(run: Run) -> str:
    """Folder in the lake."""
    return f"{run.folder}/steps/train_ranker/checkpoints"


def _inputs(step: Step, columns: pa.Schema) -> Inputs:
    features = step.plan.config["features"]
    return Inputs.derive(
        columns,
        heads=step.plan.heads,
        time_zone=step.plan.time_zone,
        half_lives=tuple(features["half_lives"]),
        recent_events=features["recent_events"],
        surfaces=features["max_surfaces"],
        crosses=tuple(features["crosses"]),
    )


def _progress(step: Step, name: str, config: Training) -> Callable[[State], None]:
    started = time.monotonic()

    def tell(state: State) -> None:
        point = state.curve[-1]
        best = " (best)" if state.best == state.evaluation - 1 else ""
        seconds = time.monotonic() - started
        step.say(
            f"{name}, epoch {point['epoch']:.1f} of at most {config.epochs}: train loss {point['train_loss']:.4f}, "
            f"stop loss {point['stop_loss']:.4f}{best}, {seconds:.0f} s"
        )

    return tell
