"""What the loop draws its batches from: the training set as tensors, preprocessed once, or a stream of it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from understudy.inputs import PER_REQUEST, Feeds, batches
from understudy.ranker.fitting import as_tensors
from understudy.ranker.network import ID_COLUMNS, RankerModel

__all__ = ["Rows", "Source"]

_BATCH = 8192
_SEQUENCE_FEEDS = ("event_age_s", "event_outcomes", "position")


class Source(Protocol):
    """Training rows in shuffled batches; the order follows from seed and epoch alone."""

    def __len__(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def steps(self, size: int) -> int:
        """Batches of at most ``size`` rows in an epoch."""

    def batches(self, size: int, seed: int, epoch: int, first: int) -> Iterator["Rows"]:
        """The batches of an epoch, from number ``first`` on."""


@dataclass(frozen=True)
class Rows:
    """Preprocessed rows on the training device.

    Shapes: dense (B, D); rows (B, C); request (B,), the place of the row's request; event_rows
    (R, T, E); feeds: what the network reads beside them; labels (B, H), NaN where unknown; weights
    (B,), of the labels, and traffic (B,), of the teacher, both mean 1; teacher (B, H) logits, NaN where it does not
    act, or None: nobody teaches.
    """

    dense: Tensor
    rows: Tensor
    request: Tensor
    event_rows: Tensor
    feeds: dict[str, Tensor]
    labels: Tensor
    weights: Tensor
    traffic: Tensor
    teacher: Tensor | None = None

    @classmethod
    def prepare(
        cls,
        model: RankerModel,
        feeds: Feeds,
        labels: Tensor,
        weights: Tensor,
        *,
        traffic: Tensor | None = None,
        teacher: Tensor | None = None,
        device: str = "cpu",
    ) -> "Rows":
        """Preprocess every row once; the loop then only gathers.

        Args:
            weights: of the rows' labels; ``traffic``: of what the teacher says, the same where it is None.
        """
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        with torch.no_grad():
            for batch in batches(feeds, _BATCH):
                dense, rows, event_rows = model.preprocess(as_tensors(batch, device))
                parts.append((dense, rows.to(torch.int32), event_rows.to(torch.int32)))
        dense, rows, event_rows = (torch.cat(part) for part in zip(*parts, strict=True))
        traffic = weights if traffic is None else traffic
        request = torch.arange(len(event_rows)).repeat_interleave(len(labels) // max(len(event_rows), 1))
        return cls(
            dense=dense,
            rows=rows,
            request=request.to(device),
            event_rows=event_rows,
            feeds=as_tensors({name: feeds[name] for name in _SEQUENCE_FEEDS}, device),
            labels=labels.to(device),
            weights=(weights / weights.mean()).to(device),
            traffic=(traffic / traffic.mean()).to(device),
            teacher=None if teacher is None else teacher.to(device),
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def steps(self, size: int) -> int:
        return math.ceil(len(self) / size)

    def batches(self, size: int, seed: int, epoch: int, first: int) -> Iterator["Rows"]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self), generator=generator).to(self.device)
        for start in range(first * size, len(self), size):
            yield self.take(order[start : start + size])

    def take(self, at: Tensor) -> "Rows":
        """The rows at the given places, each with its request's events."""
        request = self.request[at]
        return Rows(
            dense=self.dense[at],
            rows=self.rows[at],
            request=torch.arange(len(at), device=at.device),
            event_rows=self.event_rows[request],
            feeds={name: tensor[request if name in PER_REQUEST else at] for name, tensor in self.feeds.items()},
            labels=self.labels[at],
            weights=self.weights[at],
            traffic=self.traffic[at],
            teacher=None if self.teacher is None else self.teacher[at],
        )

    def drop_ids(self, share: float, bases: Tensor) -> Tensor:
        """Embedding rows where a share of the ids are replaced by their column's default."""
        ids = self.rows[:, : ID_COLUMNS - 1]
        dropped = torch.rand(ids.shape, device=ids.device) < share
        replaced = torch.where(dropped, bases[: ID_COLUMNS - 1].to(ids.dtype), ids)
        return torch.cat([replaced, self.rows[:, ID_COLUMNS - 1 :]], dim=1)
