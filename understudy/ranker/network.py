"""The ranker: DCNv2 in parallel with a DNN, target attention over the user's events, a logit per head.

R. Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021 (the low-rank cross layer).
G. Zhou et al., "Deep Interest Network", KDD 2018 (attention of the candidate to past events).

Shapes: R requests of M candidates, B = R × M rows, C categorical columns, D dense numbers, T events,
E keys of an event, H heads, Q width of a candidate's ids, X width of the concatenated input, K rank.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from understudy.inputs import IDS, Inputs
from understudy.ranker.config import Ranker
from understudy.ranker.preprocess import Parts, Prepared, Preprocess, by_request, first, split

__all__ = ["ID_COLUMNS", "Network", "RankerModel", "Sizes"]

POSITIONS = 64
REFERENCE_POSITION = 0
ID_COLUMNS = len(IDS) + 1  # the ids and the surface: what an event names, and the user


class Cross(nn.Module):
    """x_{l+1} = x_0 ⊙ (U V x_l + b) + x_l."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width)

    def forward(self, x0_BX: Tensor, down_BK: Tensor, x_BX: Tensor) -> Tensor:
        """The next layer's x, from V x."""
        crossed: Tensor = x0_BX * self.up(down_BK) + x_BX
        return crossed


def through(layer: nn.Linear, parts: Parts) -> Tensor:
    """What a layer makes of the parts' whole, (B, outputs); of what is shared, once per request."""
    width = parts.shared.shape[2]
    shared = nn.functional.linear(parts.shared, layer.weight[:, :width], layer.bias)
    own = nn.functional.linear(parts.own, layer.weight[:, width:])
    return (own + shared).flatten(0, 1)


class Attention(nn.Module):
    """The candidate's item, creator, topic and surface attend to those of the user's events."""

    def __init__(self, dimension: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Linear(dimension, dimension, bias=False)
        self.age = nn.Parameter(torch.zeros(1))
        self.scale = dimension**-0.5
        self.width = dimension + heads

    def forward(self, candidate_BQ: Tensor, events_RTQ: Tensor, age_s_RT: Tensor, outcomes_RTH: Tensor) -> Tensor:
        """(B, Q + H): the attended events and their outcomes; zero for a user without events."""
        query_RMQ = self.query(candidate_BQ).unflatten(0, (events_RTQ.shape[0], -1))
        scores_RMT = query_RMQ @ events_RTQ.transpose(1, 2) * self.scale
        known_RT = age_s_RT >= 0
        late_RT = torch.where(known_RT, self.age * torch.log1p(age_s_RT.clamp(min=0) / 3600), 1e9)
        weights_RMT = torch.softmax(scores_RMT - late_RT[:, None], dim=2)
        attended_RTA = torch.cat([events_RTQ, outcomes_RTH], dim=2) * known_RT[:, :, None]
        return (weights_RMT @ attended_RTA).flatten(0, 1)


class Network(nn.Module):
    """What is trained: embeddings, attention, cross network, DNN, heads, position terms.

    Args:
        config: widths and depths.
        inputs: what is fed.
        shared_dense, dense: how many dense numbers the candidates of a request share, and D.
        id_rows, category_rows: of the embedding tables; a row number counts through both.
    """

    shared_columns: Tensor
    own_columns: Tensor

    def __init__(
        self, config: Ranker, inputs: Inputs, shared_dense: int, dense: int, id_rows: int, category_rows: int
    ) -> None:
        super().__init__()
        self.config = config
        self.heads = len(inputs.heads)
        self.shared_dense = shared_dense
        for whose, places in zip(("shared", "own"), split(inputs.categorical), strict=True):
            self.register_buffer(f"{whose}_columns", torch.tensor(places, dtype=torch.int64), persistent=False)
        self.shared_ids, self.own_ids = (len(places) for places in split(inputs.categorical[:ID_COLUMNS]))
        self.id_rows = id_rows
        self.ids = nn.Embedding(id_rows, config.id_dimension)
        self.categories = nn.Embedding(category_rows, config.category_dimension)
        nn.init.normal_(self.ids.weight, std=0.01)
        nn.init.normal_(self.categories.weight, std=0.01)
        self.attention = Attention(4 * config.id_dimension, self.heads)
        categories = len(inputs.categorical) - ID_COLUMNS
        width = dense + ID_COLUMNS * config.id_dimension + categories * config.category_dimension + self.attention.width
        self.cross = nn.ModuleList(Cross(width, config.cross_rank) for _ in range(config.cross_layers))
        layers: list[nn.Module] = []
        last = width
        for hidden in config.hidden:
            layers += [nn.Linear(last, hidden), nn.ReLU(), nn.Dropout(config.dropout)]
            last = hidden
        self.dnn = nn.Sequential(*layers)
        self.out = nn.Linear(width + last, self.heads)
        self.auxiliary: nn.Linear | None = None
        self.position = nn.Embedding(POSITIONS, self.heads)
        nn.init.zeros_(self.position.weight)

    def add_auxiliary(self) -> None:
        """A second logit per head, in training only: what a teacher acts on without touching what is served."""
        self.auxiliary = nn.Linear(self.out.in_features, self.heads)

    def forward(self, dense_BD: Tensor, rows_BC: Tensor, event_rows_RTE: Tensor, feeds: dict[str, Tensor]) -> Tensor:
        """Logits (B, H) at the position that is fed; where it is NaN, at the reference position."""
        return self.of_prepared(self._prepared(dense_BD, rows_BC, event_rows_RTE), feeds)

    def of_prepared(self, prepared: Prepared, feeds: dict[str, Tensor]) -> Tensor:
        """The same, where what a request's candidates share is one."""
        logits: Tensor = self.out(self._represent(prepared, feeds))
        return self._at_position(logits, feeds)

    def both(
        self, dense_BD: Tensor, rows_BC: Tensor, event_rows_RTE: Tensor, feeds: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The logits that are served, and the auxiliary ones, each (B, H)."""
        assert self.auxiliary is not None, "add_auxiliary comes first"
        represented = self._represent(self._prepared(dense_BD, rows_BC, event_rows_RTE), feeds)
        return tuple(self._at_position(layer(represented), feeds) for layer in (self.out, self.auxiliary))  # type: ignore[return-value]

    def _prepared(self, dense_BD: Tensor, rows_BC: Tensor, event_rows_RTE: Tensor) -> Prepared:
        requests = event_rows_RTE.shape[0]
        dense, rows = by_request(dense_BD, requests), by_request(rows_BC, requests)
        numbers = Parts(first(dense)[:, :, : self.shared_dense], dense[:, :, self.shared_dense :])
        shared, own = first(rows).index_select(2, self.shared_columns), rows.index_select(2, self.own_columns)
        return Prepared(numbers, Parts(shared, own), event_rows_RTE)

    def _represent(self, prepared: Prepared, feeds: dict[str, Tensor]) -> Tensor:
        parts = self._parts(prepared, feeds)
        x0 = x = parts.whole()
        for layer, cross in enumerate(cast("Iterable[Cross]", self.cross)):
            x = cross(x0, cross.down(x) if layer else through(cross.down, parts), x)
        if not len(self.dnn):
            return torch.cat([x, x0], dim=1)
        first_layer, *others = cast("Iterable[nn.Linear]", self.dnn)
        hidden = through(first_layer, parts)
        for other in others:
            hidden = other(hidden)
        return torch.cat([x, hidden], dim=1)

    def _parts(self, prepared: Prepared, feeds: dict[str, Tensor]) -> Parts:
        dense, rows, event_rows_RTE = prepared
        (ids_shared, categories_shared), (ids_own, categories_own) = (
            (self.ids(part[:, :, :ids]), self.categories(part[:, :, ids:] - self.id_rows))
            for part, ids in zip(rows, (self.shared_ids, self.own_ids), strict=True)
        )
        surface = ids_shared[:, :, -1].expand(-1, ids_own.shape[1], -1)
        candidate_BQ = torch.cat([ids_own.flatten(2), surface], dim=2).flatten(0, 1)
        events_RTQ = self.ids(event_rows_RTE).flatten(2)
        attended = self.attention(candidate_BQ, events_RTQ, feeds["event_age_s"], feeds["event_outcomes"])
        of_request = [dense.shared, ids_shared.flatten(2), categories_shared.flatten(2)]
        own = [dense.own, ids_own.flatten(2), categories_own.flatten(2)]
        own.append(by_request(attended, event_rows_RTE.shape[0]))
        return Parts(torch.cat(of_request, dim=2), torch.cat(own, dim=2))

    def _at_position(self, logits: Tensor, feeds: dict[str, Tensor]) -> Tensor:
        if not self.config.position_term:
            return logits
        position = feeds["position"]
        place = torch.where(torch.isnan(position), float(REFERENCE_POSITION), position)
        terms: Tensor = self.position(place.clamp(0, POSITIONS - 1).to(torch.int64))
        return logits + terms


@dataclass(frozen=True)
class Sizes:
    """What the training rows decide of a network's shape.

    Args:
        capacity: slots of the vocabulary's tables.
        id_rows, category_rows: of the embedding tables.
    """

    capacity: int
    id_rows: int
    category_rows: int


class RankerModel(nn.Module):
    """Preprocessing and network: raw feeds in, uncalibrated logits (B, H) out."""

    def __init__(self, config: Ranker, inputs: Inputs, sizes: Sizes) -> None:
        super().__init__()
        self.inputs = inputs
        self.sizes = sizes
        self.config = config
        self.preprocess = Preprocess(inputs, sizes.capacity)
        dense = len(self.preprocess.mean_D)
        shared = self.preprocess.shared_dense
        self.network = Network(config, inputs, shared, dense, sizes.id_rows, sizes.category_rows)

    def forward(self, feeds: dict[str, Tensor]) -> Tensor:
        return self.network.of_prepared(self.preprocess.prepared(feeds), feeds)
