"""Fit a network: shuffled batches, AdamW, a cosine schedule, early stopping, resumable.

Order and dropout follow from the seed, so a run that was killed and resumed from its last
checkpoint ends with the same weights as one that was not (on the same device and threads).
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from understudy.ranker.network import RankerModel
from understudy.training.batches import Rows
from understudy.training.config import Training
from understudy.training.loss import distillation_loss

__all__ = ["Progress", "Resume", "Save", "State", "fit", "scores"]

_SCORE_BATCH = 8192
# AdamW moves a weight by at most its rate in a step. A network reaches any logit by many weights together, the
# position term by one alone: at the network's rate it would end a few hundred steps where it began.
_POSITION_RATE = 20.0


@dataclass
class State:
    """Where training stands, at an evaluation.

    Args:
        evaluation: evaluations done.
        best: place of the best evaluation in ``curve``; −1: none yet.
        curve: per evaluation: epoch (a fraction), train_loss, stop_loss.
    """

    evaluation: int = 0
    best: int = -1
    curve: list[dict[str, float]] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def stale(self) -> int:
        """Evaluations since the best one."""
        return self.evaluation - 1 - self.best


Progress = Callable[[State], None]
Save = Callable[[State, RankerModel, torch.optim.Optimizer], None]
Resume = Callable[[RankerModel, torch.optim.Optimizer], State | None]


def fit(
    model: RankerModel, train: Rows, stop: Rows, config: Training, *, resume: Resume, save: Save, progress: Progress
) -> State:
    """Train ``model`` in place and leave it with its best weights.

    Args:
        train: rows to learn from.
        stop: rows whose loss decides when to stop.
        resume: reads a checkpoint back into model and optimizer, or returns None.
        save: keeps a checkpoint after each evaluation.
    """
    torch.manual_seed(config.seed)
    optimizer = _optimizer(model, config)
    state = resume(model, optimizer) or State()
    steps = max(1, math.ceil(len(train) / config.batch_size))
    every = max(1, math.ceil(steps / config.evaluations_per_epoch))
    evaluations = math.ceil(steps / every)
    losses: list[Tensor] = []
    for step in range(_step_of(state.evaluation, steps, every, evaluations), steps * config.epochs):
        if state.stale >= config.patience and state.best >= 0:
            break
        epoch, within = divmod(step, steps)
        if within == 0 or not losses:
            order = _order(len(train), config.seed, epoch, train.labels.device)
        _set_rate(optimizer, config, step / (steps * config.epochs))
        batch = train.take(order[within * config.batch_size : (within + 1) * config.batch_size])
        losses.append(_train_step(model, batch, optimizer, config))
        if (within + 1) % every == 0 or within + 1 == steps:
            _evaluate(model, stop, state, float(torch.stack(losses).mean()), (step + 1) / steps, config)
            losses = []
            save(state, model, optimizer)
            progress(state)
    model.network.load_state_dict(state.best_weights)
    return state


def scores(model: RankerModel, rows: Rows) -> Tensor:
    """Logits (B, H) of every row."""
    model.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(rows), _SCORE_BATCH):
            part = rows.take(torch.arange(start, min(len(rows), start + _SCORE_BATCH), device=rows.labels.device))
            parts.append(model.network(part.dense, part.rows, part.event_rows, part.feeds))
    return torch.cat(parts)


def _step_of(evaluation: int, steps: int, every: int, evaluations: int) -> int:
    """The step that follows a number of evaluations."""
    epoch, within = divmod(evaluation, evaluations)
    return epoch * steps + min(within * every, steps)


def _order(rows: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(rows, generator=generator).to(device)


def _train_step(model: RankerModel, batch: Rows, optimizer: torch.optim.Optimizer, config: Training) -> Tensor:
    model.train()
    rows = batch.drop_ids(config.ranker.id_dropout, model.preprocess.vocabulary.bases_C)
    logits = model.network(batch.dense, rows, batch.event_rows, batch.feeds)
    loss = distillation_loss(
        logits,
        batch.labels,
        batch.teacher,
        batch.weights,
        alpha=config.distillation.alpha,
        temperature=config.distillation.temperature,
    )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def _evaluate(model: RankerModel, stop: Rows, state: State, train_loss: float, epoch: float, config: Training) -> None:
    missing = torch.full_like(stop.labels, float("nan"))
    loss = float(distillation_loss(scores(model, stop), stop.labels, missing, stop.weights, alpha=0.0, temperature=1.0))
    state.curve.append({"epoch": epoch, "train_loss": train_loss, "stop_loss": loss})
    state.evaluation += 1
    if state.best < 0 or loss < state.curve[state.best]["stop_loss"]:
        state.best = state.evaluation - 1
        state.best_weights = copy.deepcopy(model.network.state_dict())


def _optimizer(model: RankerModel, config: Training) -> torch.optim.Optimizer:
    network = model.network
    embeddings, position = [network.ids.weight, network.categories.weight], [network.position.weight]
    known = {id(parameter) for parameter in (*embeddings, *position)}
    others = [parameter for parameter in network.parameters() if id(parameter) not in known]
    groups: list[dict[str, Any]] = [
        {"params": embeddings, "weight_decay": config.embedding_decay, "factor": 1.0},
        {"params": others, "weight_decay": config.weight_decay, "factor": 1.0},
        {"params": position, "weight_decay": 0.0, "factor": _POSITION_RATE},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def _set_rate(optimizer: torch.optim.Optimizer, config: Training, done: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["factor"] * config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
