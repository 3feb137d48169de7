"""One training on several processes: each takes its share of every batch, and gradients are summed.

All begin with the same weights and draw the same order, so the summed gradient is that of the whole batch, and all end
with the same weights. Whoever starts the processes (``torchrun``) sets up ``torch.distributed``: gloo on CPUs, nccl on
GPUs. Without it there is one process, and nothing here does anything.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist

from understudy.training.batches import Rows

__all__ = ["agreed", "is_first", "share_of", "sum_gradients", "summed"]


def is_first() -> bool:
    """Whether this process keeps checkpoints, writes what comes out, and tells of progress."""
    return _world() == 1 or dist.get_rank() == 0


def share_of(batch: Rows) -> tuple[Rows, float]:
    """The rows of a batch that this process learns from, and which part of the batch they are.

    Where there are fewer rows than processes, some have one that counts for nothing.
    """
    world = _world()
    if world == 1:
        return batch, 1.0
    mine = torch.arange(dist.get_rank(), len(batch), world, device=batch.device)
    if not len(mine):
        return batch.take(torch.zeros(1, dtype=torch.int64, device=batch.device)), 0.0
    return batch.take(mine), len(mine) / len(batch)


def summed(value: torch.Tensor) -> torch.Tensor:
    """The sum over processes."""
    if _world() > 1:
        dist.all_reduce(value)
    return value


def agreed(value: float, device: torch.device) -> float:
    """The first process's number: what all decide by must be equal to the last bit."""
    if _world() == 1:
        return value
    told = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(told, 0)
    return float(told)


def sum_gradients(parameters: Iterable[torch.nn.Parameter], part: float) -> None:
    """Replace each gradient by its sum over processes, each weighed by the part of the batch that it saw."""
    if _world() == 1:
        return
    gradients = [one.grad for one in parameters if one.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients]) * part
    dist.all_reduce(flat)
    for gradient, summed in zip(gradients, torch.split(flat, [one.numel() for one in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
