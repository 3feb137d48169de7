"""Fit a network: shuffled batches, AdamW, a cosine schedule, early stopping, resumable.

Order and dropout follow from the seed, so a run that was killed and resumed from its last
checkpoint ends with the same weights as one that was not (on the same device and threads). Several processes share
each batch; see ``understudy.training.parallel``.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from understudy.ranker.network import RankerModel
from understudy.training.batches import Rows, Source
from understudy.training.config import Training
from understudy.training.loss import auxiliary_loss, distillation_loss, label_loss
from understudy.training.parallel import agreed, is_first, share_of, sum_gradients, summed

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
    model: RankerModel, train: Source, stop: Rows, config: Training, *, resume: Resume, save: Save, progress: Progress
) -> State:
    """Train ``model`` in place and leave it with its best weights.

    Args:
        train: rows to learn from.
        stop: rows whose loss decides when to stop.
        resume: reads a checkpoint back into model and optimizer, or returns None.
        save: keeps a checkpoint after each evaluation.
    """
    torch.manual_seed(config.seed)
    teaching = config.distillation.of(model.inputs.heads)
    alpha_H, temperature_H = (torch.tensor(values, device=train.device) for values in teaching)
    optimizer = _optimizer(model, config)
    state = resume(model, optimizer) or State()
    steps = max(1, train.steps(config.batch_size))
    every = max(1, math.ceil(steps / config.evaluations_per_epoch))
    step = _step_of(state.evaluation, steps, every)
    losses: list[Tensor] = []
    while step < steps * config.epochs and state.stale < config.patience:
        epoch, within = divmod(step, steps)
        for batch in train.batches(config.batch_size, config.seed, epoch, within):
            done = step / (steps * config.epochs)
            _set_rate(optimizer, config, done)
            faded_H = alpha_H * (1 - done * (1 - config.distillation.fade))
            losses.append(_train_step(model, batch, optimizer, config, faded_H, temperature_H))
            step += 1
            if step % steps % every == 0:
                _evaluate(model, stop, state, float(summed(torch.stack(losses).mean())), step / steps)
                losses = []
                if is_first():
                    save(state, model, optimizer)
                    progress(state)
                if state.stale >= config.patience:
                    break
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


def _step_of(evaluation: int, steps: int, every: int) -> int:
    """The step that follows a number of evaluations."""
    epoch, within = divmod(evaluation, math.ceil(steps / every))
    return epoch * steps + min(within * every, steps)


def _train_step(
    model: RankerModel,
    batch: Rows,
    optimizer: torch.optim.Optimizer,
    config: Training,
    alpha_H: Tensor,
    temperature_H: Tensor,
) -> Tensor:
    model.train()
    batch, part = share_of(batch)
    rows = batch.drop_ids(config.ranker.id_dropout, model.preprocess.vocabulary.bases_C)
    loss = _loss(model, batch, (batch.dense, rows, batch.event_rows, batch.feeds), alpha_H, temperature_H)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    sum_gradients(model.network.parameters(), part)
    optimizer.step()
    return loss.detach() * part


def _loss(model: RankerModel, batch: Rows, fed: tuple[Any, ...], alpha_H: Tensor, temperature_H: Tensor) -> Tensor:
    taught: dict[str, Tensor] = {"alpha_H": alpha_H, "temperature_H": temperature_H}
    if batch.teacher is None:
        return label_loss(model.network(*fed), batch.labels, batch.weights)
    if model.network.auxiliary is None:
        logits = model.network(*fed)
        return distillation_loss(logits, batch.labels, batch.teacher, batch.weights, batch.traffic, **taught)
    logits, auxiliary = model.network.both(*fed)
    labels = label_loss(logits, batch.labels, batch.weights)
    return labels + auxiliary_loss(auxiliary, batch.teacher, batch.traffic, **taught)


def _evaluate(model: RankerModel, stop: Rows, state: State, train_loss: float, epoch: float) -> None:
    loss = agreed(float(label_loss(scores(model, stop), stop.labels, stop.weights)), stop.device)
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
