"""The training set as tensors, preprocessed once: what the loop draws its batches from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.inputs import PER_REQUEST, Feeds, batches
from understudy.ranker.fitting import as_tensors
from understudy.ranker.network import ID_COLUMNS, RankerModel

__all__ = ["Rows"]

_BATCH = 8192
_SEQUENCE_FEEDS = ("event_age_s", "event_outcomes", "position")


@dataclass(frozen=True)
class Rows:
    """Preprocessed rows on the training device.

    Shapes: dense (B, D); rows (B, C); request (B,), the place of the row's request; event_rows
    (R, T, E); feeds: what the network reads beside them; labels (B, H), NaN where unknown; weights
    (B,), mean 1; teacher (B, H) logits, NaN where the teacher does not act.
    """

    dense: Tensor
    rows: Tensor
    request: Tensor
    event_rows: Tensor
    feeds: dict[str, Tensor]
    labels: Tensor
    weights: Tensor
    teacher: Tensor

    @classmethod
    def prepare(
        cls, model: RankerModel, feeds: Feeds, labels: Tensor, weights: Tensor, teacher: Tensor | None, device: str
    ) -> "Rows":
        """Preprocess every row once; the loop then only gathers."""
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        with torch.no_grad():
            for batch in batches(feeds, _BATCH):
                dense, rows, event_rows = model.preprocess(as_tensors(batch, device))
                parts.append((dense, rows.to(torch.int32), event_rows.to(torch.int32)))
        dense, rows, event_rows = (torch.cat(part) for part in zip(*parts, strict=True))
        missing = torch.full_like(labels, float("nan"))
        request = torch.arange(len(event_rows)).repeat_interleave(len(labels) // max(len(event_rows), 1))
        return cls(
            dense=dense,
            rows=rows,
            request=request.to(device),
            event_rows=event_rows,
            feeds=as_tensors({name: feeds[name] for name in _SEQUENCE_FEEDS}, device),
            labels=labels.to(device),
            weights=(weights / weights.mean()).to(device),
            teacher=(missing if teacher is None else teacher).to(device),
        )

    def __len__(self) -> int:
        return len(self.labels)

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
            teacher=self.teacher[at],
        )

    def drop_ids(self, share: float, bases: Tensor) -> Tensor:
        """Embedding rows where a share of the ids are replaced by their column's default."""
        ids = self.rows[:, : ID_COLUMNS - 1]
        dropped = torch.rand(ids.shape, device=ids.device) < share
        replaced = torch.where(dropped, bases[: ID_COLUMNS - 1].to(ids.dtype), ids)
        return torch.cat([replaced, self.rows[:, ID_COLUMNS - 1 :]], dim=1)
