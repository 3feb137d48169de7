"""From raw feeds to what the network sees: rates, counts, matches and ages, without weights.

Everything here is fixed once fitted (priors, scales, vocabulary), so training computes it once per
row, and the served file holds it. What all candidates of a request share is computed once, from its first row.
ONNX Runtime pays for nodes and for short innermost axes, so this makes few steps, on wide ones.
Shapes as in ``understudy.inputs``; D dense numbers, those that a request shares first; M = B / R.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from understudy.inputs import EVENT_KEYS, IDS, Inputs, is_of_request
from understudy.ranker.vocabulary import Vocabulary

__all__ = ["Parts", "Prepared", "Preprocess", "by_request", "first", "split"]

_STRENGTHS = (5.0, 20.0, 10.0, 20.0)  # impressions that a prior rate is worth: user, item, creator, topic
_CROSS_STRENGTH = 10.0  # and that the user's own rate is worth, for what they did with a creator or topic
_SURFACE_STRENGTH = 20.0
_MATCH_STRENGTH = 2.0
_RECENT = (1, 5)  # the user's last events whose mean outcomes are inputs
_MISSING_AGE_S = 30 * 86400.0
_CLAMP = 6.0
_NO_KEY = -(2**63)


class Parts(NamedTuple):
    """Values of R requests of M candidates: what the candidates share (R, 1, X'), and each one's own (R, M, X − X')."""

    shared: Tensor
    own: Tensor

    def whole(self) -> Tensor:
        """(B, X)"""
        return torch.cat([self.shared.expand(-1, self.own.shape[1], -1), self.own], dim=2).flatten(0, 1)


class Prepared(NamedTuple):
    """What the network is given.

    Args:
        dense: D numbers, standardised.
        rows: C rows of the embedding table, of the shared columns and of each candidate's own.
        event_rows: (R, T, E), the rows of each event's item, creator, topic and surface.
    """

    dense: Parts
    rows: Parts
    event_rows: Tensor


class Preprocess(nn.Module):
    """Dense numbers and embedding rows of a row's feeds.

    Args:
        inputs: what is fed.
        capacity: slots of the vocabulary's tables.
    """

    prior_H: Tensor
    mean_D: Tensor
    scale_D: Tensor
    half_lives_L: Tensor
    shared_numbers: Tensor
    own_numbers: Tensor
    shared_columns: Tensor
    own_columns: Tensor
    event_columns: Tensor
    in_order: Tensor

    def __init__(self, inputs: Inputs, capacity: int) -> None:
        super().__init__()
        self.heads = len(inputs.heads)
        self.crosses = len(inputs.crosses)
        columns = len(inputs.categorical)
        self.vocabulary = Vocabulary(capacity, columns)
        event_columns = [inputs.categorical.index(name) for name in (*IDS[1:], "surface")]
        half_lives = torch.tensor(inputs.half_lives_s, dtype=torch.float32)
        self.register_buffer("half_lives_L", half_lives, persistent=False)
        for kind, names in (("columns", inputs.categorical), ("numbers", inputs.numeric)):
            shared, own = split(names)
            self.register_buffer(f"shared_{kind}", torch.tensor(shared, dtype=torch.int64), persistent=False)
            self.register_buffer(f"own_{kind}", torch.tensor(own, dtype=torch.int64), persistent=False)
        self.register_buffer("event_columns", torch.tensor(event_columns), persistent=False)
        self.register_buffer(
            "in_order", torch.argsort(torch.cat([self.shared_columns, self.own_columns])), persistent=False
        )
        self.register_buffer("prior_H", torch.full((self.heads,), 0.5))
        self.shared_dense, dense = _widths(inputs)
        self.register_buffer("mean_D", torch.zeros(dense))
        self.register_buffer("scale_D", torch.ones(dense))

    def forward(self, feeds: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Preprocess one batch, row by row.

        Returns:
            dense_BD float32, standardised; rows_BC int64 of the embedding table; and
            event_rows_RTE int64, E = item, creator, topic, surface of each event.
        """
        dense, rows, event_rows = self.prepared(feeds)
        return dense.whole(), rows.whole().index_select(1, self.in_order), event_rows

    def prepared(self, feeds: dict[str, Tensor]) -> Prepared:
        """The same, where what a request's candidates share stays one."""
        shared, own = self._raw(feeds)
        places = slice(self.shared_dense), slice(self.shared_dense, None)
        dense = (
            ((part - self.mean_D[place]) * self.scale_D[place]).clamp(-_CLAMP, _CLAMP)
            for part, place in zip((shared, own), places, strict=True)
        )
        hashes_RMC = by_request(feeds["categorical"], feeds["event_keys"].shape[0])
        of_request, of_candidate, of_event = self.vocabulary(
            (first(hashes_RMC).index_select(2, self.shared_columns), self.shared_columns),
            (hashes_RMC.index_select(2, self.own_columns), self.own_columns),
            (feeds["event_keys"], self.event_columns),
        )
        return Prepared(Parts(*dense), Parts(of_request, of_candidate), of_event)

    def raw_dense(self, feeds: dict[str, Tensor]) -> Tensor:
        """(B, D) before standardisation."""
        return self._raw(feeds).whole()

    def _raw(self, feeds: dict[str, Tensor]) -> Parts:
        requests = feeds["event_keys"].shape[0]
        counters, age_s, numbers, hour = (
            by_request(feeds[name], requests) for name in ("counters", "counter_age_s", "numeric", "hour")
        )
        user_age_s = first(age_s)[:, :, :1]
        seen, done = self._decayed(first(counters)[:, :, :1], user_age_s)
        rates = (done + _STRENGTHS[0] * self.prior_H) / (seen + _STRENGTHS[0])  # (R, 1, 1, L, H)
        user_rate_RH = rates[:, 0, 0, -1]
        shared = [
            *_history(seen, rates, user_age_s),
            self._recent(feeds, user_rate_RH)[:, None],
            _numbers(first(numbers).index_select(2, self.shared_numbers)),
            _clock(first(hour)),
        ]
        seen, done = self._decayed(counters[:, :, 1:], age_s[:, :, 1:])
        own_rates = self._own_rates(seen, done, rates)
        item_rate_BH = own_rates[:, :, 0, -1].flatten(0, 1)
        own = [
            *_history(seen, own_rates, age_s[:, :, 1:]),
            by_request(self._surface(feeds, item_rate_BH), requests),
            *self._matches(feeds, user_rate_RH),
            _numbers(numbers.index_select(2, self.own_numbers)),
        ]
        return Parts(torch.cat(shared, dim=2), torch.cat(own, dim=2))

    def _decayed(self, counters_RMVLK: Tensor, age_s_RMV: Tensor) -> tuple[Tensor, Tensor]:
        """Impressions (R, M, V, L, 1) and outcomes (R, M, V, L, H), decayed to now."""
        age_s = torch.where(age_s_RMV < 0, _MISSING_AGE_S, age_s_RMV)
        counts = counters_RMVLK * torch.exp2(-age_s[..., None] / self.half_lives_L)[..., None]
        return counts[..., :1], counts[..., 1:]

    def _own_rates(self, seen: Tensor, done: Tensor, user_rates: Tensor) -> Tensor:
        """Smoothed rates (R, M, V − 1, L, H) of item, creator and topic, and of the user with the latter two."""
        plain = len(_STRENGTHS) - 1
        strengths = torch.tensor(_STRENGTHS[1:], dtype=seen.dtype, device=seen.device)[:, None, None]
        strengths = strengths.expand(-1, len(self.half_lives_L), -1)
        rates = (done[:, :, :plain] + strengths * self.prior_H) / (seen[:, :, :plain] + strengths)
        if not self.crosses:
            return rates
        cross = (done[:, :, plain:] + _CROSS_STRENGTH * user_rates) / (seen[:, :, plain:] + _CROSS_STRENGTH)
        return torch.cat([rates, cross], dim=2)

    def _surface(self, feeds: dict[str, Tensor], item_rate_BH: Tensor) -> Tensor:
        """The item's own record on the surface where it would be shown."""
        surface_B1 = feeds["categorical"][:, len(IDS) : len(IDS) + 1]
        match_BS = (feeds["surface_keys"] == surface_B1) & (surface_B1 != 0)
        counts_BK = (match_BS[:, None].to(torch.float32) @ feeds["surface_counters"])[:, 0]
        age_s = feeds["counter_age_s"][:, 1:2]
        counts_BK = counts_BK * torch.exp2(-torch.where(age_s < 0, _MISSING_AGE_S, age_s) / self.half_lives_L[-1])
        seen, done = counts_BK[:, :1], counts_BK[:, 1:]
        rates = (done + _SURFACE_STRENGTH * item_rate_BH) / (seen + _SURFACE_STRENGTH)
        return torch.cat([torch.log1p(seen), _log_odds(rates)], dim=1)

    def _matches(self, feeds: dict[str, Tensor], user_rate_RH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The user with this item, creator, topic, surface: how often, how well, how long ago; each (R, M, …)."""
        keys_RET = feeds["event_keys"].transpose(1, 2)
        keys_RET = torch.where(keys_RET == 0, _NO_KEY, keys_RET)  # nothing matches nothing
        candidate_BE = feeds["categorical"][:, 1 : len(EVENT_KEYS) + 1]
        match_RMET = keys_RET[:, None] == by_request(candidate_BE, keys_RET.shape[0])[:, :, :, None]
        match_RMET = match_RMET.to(torch.float32)
        outcomes_RTK = torch.cat([torch.ones_like(feeds["event_outcomes"][:, :, :1]), feeds["event_outcomes"]], dim=2)
        counts = match_RMET.flatten(1, 2) @ outcomes_RTK
        counts = counts.reshape(*match_RMET.shape[:3], -1)
        seen, done = counts[..., 0], counts[..., 1:]
        prior_R1EH = (_MATCH_STRENGTH * user_rate_RH[:, None, None]).expand(-1, -1, len(EVENT_KEYS), -1)
        rates = (done + prior_R1EH) / (seen + _MATCH_STRENGTH)[..., None]
        # What does not match is as old as what never was: three quick steps, where a choice would be a slow one.
        age_s_R11T = feeds["event_age_s"][:, None, None, :]
        newest_RME = torch.maximum(age_s_R11T, _MISSING_AGE_S - _MISSING_AGE_S * match_RMET).amin(3)
        return torch.log1p(seen), _log_odds(rates.flatten(2)), torch.log1p(newest_RME.clamp(max=_MISSING_AGE_S))

    def _recent(self, feeds: dict[str, Tensor], user_rate_RH: Tensor) -> Tensor:
        """Mean outcomes of the user's last events, and how many events are known."""
        known_RT = (feeds["event_age_s"] >= 0).to(torch.float32)
        parts = [torch.log1p(known_RT.sum(1, keepdim=True))]
        for last in _RECENT:
            known = known_RT[:, :last, None]
            done = (feeds["event_outcomes"][:, :last] * known).sum(1)
            parts.append((done + user_rate_RH) / (known.sum(1) + 1))
        return torch.cat(parts, dim=1)


def by_request(rows_B: Tensor, requests: int) -> Tensor:
    """(B, …) to (R, M, …)."""
    # Of an input without columns, such as the numbers of a log that has none, M does not follow from its size.
    candidates = rows_B.shape[0] // requests if 0 in rows_B.shape[1:] else -1
    return rows_B.reshape(requests, candidates, *rows_B.shape[1:])


def first(values_RM: Tensor) -> Tensor:
    """Of each request's first candidate: (R, M, …) to (R, 1, …)."""
    return values_RM.select(1, 0).unsqueeze(1)


def split(names: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """Places of the inputs that the candidates of a request share, and of each one's own."""
    shared = [place for place, name in enumerate(names) if is_of_request(name)]
    return shared, [place for place in range(len(names)) if place not in shared]


def _widths(inputs: Inputs) -> tuple[int, int]:
    """How many dense numbers a request shares, and D."""
    heads, (shared, own) = len(inputs.heads), (len(places) for places in split(inputs.numeric))
    history = len(inputs.half_lives) * (1 + heads) + 1
    recent = len(_RECENT) * heads + 1
    of_request = history + recent + 2 * shared + 2
    matches = len(EVENT_KEYS) * (2 + heads)
    return of_request, of_request + (len(inputs.histories) - 1) * history + (1 + heads) + matches + 2 * own


def _history(seen: Tensor, rates: Tensor, age_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, smoothed log-odds and ages of histories, each (R, M, …)."""
    return torch.log1p(seen.flatten(2)), _log_odds(rates.flatten(2)), _log_age(age_s)


def _log_odds(rates: Tensor) -> Tensor:
    rates = rates.clamp(1e-5, 1 - 1e-5)
    return torch.log(rates) - torch.log1p(-rates)


def _log_age(age_s: Tensor) -> Tensor:
    return torch.log1p(torch.where(age_s < 0, _MISSING_AGE_S, age_s))


def _numbers(values: Tensor) -> Tensor:
    """Attributes (…, N) on a signed logarithmic scale, and whether they are missing."""
    missing = torch.isnan(values)
    known = torch.where(missing, 0.0, values)
    return torch.cat([torch.sign(known) * torch.log1p(known.abs()), missing.to(torch.float32)], dim=-1)


def _clock(hour: Tensor) -> Tensor:
    angle = hour[..., None] * (2 * torch.pi / 24)
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)
