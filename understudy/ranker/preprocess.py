"""From raw feeds to what the network sees: rates, counts, matches and ages, without weights.

Everything here is fixed once fitted (priors, scales, vocabulary), so training computes it once per
row, and the served file holds it. Shapes as in ``understudy.inputs``; D dense numbers, M = B / R.
"""

import torch
from torch import Tensor, nn

from understudy.inputs import EVENT_KEYS, IDS, Inputs
from understudy.ranker.vocabulary import Vocabulary

__all__ = ["Preprocess"]

_STRENGTHS = (5.0, 20.0, 10.0, 20.0)  # impressions that a prior rate is worth: user, item, creator, topic
_CROSS_STRENGTH = 10.0  # and that the user's own rate is worth, for what they did with a creator or topic
_SURFACE_STRENGTH = 20.0
_MATCH_STRENGTH = 2.0
_RECENT = (1, 5)  # the user's last events whose mean outcomes are inputs
_MISSING_AGE_S = 30 * 86400.0
_CLAMP = 6.0


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
    candidate_columns: Tensor
    event_columns: Tensor

    def __init__(self, inputs: Inputs, capacity: int) -> None:
        super().__init__()
        self.heads = len(inputs.heads)
        columns = len(inputs.categorical)
        self.vocabulary = Vocabulary(capacity, columns)
        event_columns = [inputs.categorical.index(name) for name in (*IDS[1:], "surface")]
        half_lives = torch.tensor(inputs.half_lives_s, dtype=torch.float32)
        self.register_buffer("half_lives_L", half_lives, persistent=False)
        self.register_buffer("candidate_columns", torch.arange(columns), persistent=False)
        self.register_buffer("event_columns", torch.tensor(event_columns), persistent=False)
        self.register_buffer("prior_H", torch.full((self.heads,), 0.5))
        dense = self._width(inputs)
        self.register_buffer("mean_D", torch.zeros(dense))
        self.register_buffer("scale_D", torch.ones(dense))

    @staticmethod
    def _width(inputs: Inputs) -> int:
        heads, half_lives = len(inputs.heads), len(inputs.half_lives)
        histories = len(inputs.histories) * (half_lives * (1 + heads) + 1)
        matches = len(EVENT_KEYS) * (2 + heads)
        recent = len(_RECENT) * heads + 1
        return histories + (1 + heads) + matches + recent + 2 * len(inputs.numeric) + 2

    def forward(self, feeds: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Preprocess one batch.

        Returns:
            dense_BD float32, standardised; rows_BC int64 of the embedding table; and
            event_rows_RTE int64, E = item, creator, topic, surface of each event.
        """
        dense = (self.raw_dense(feeds) - self.mean_D) * self.scale_D
        rows = self.vocabulary(feeds["categorical"], self.candidate_columns)
        event_rows = self.vocabulary(feeds["event_keys"], self.event_columns)
        return dense.clamp(-_CLAMP, _CLAMP), rows, event_rows

    def raw_dense(self, feeds: dict[str, Tensor]) -> Tensor:
        """(B, D) before standardisation."""
        histories, item_rate_BH, user_rate_BH = self._histories(feeds["counters"], feeds["counter_age_s"])
        parts = [
            histories,
            self._surface(feeds, item_rate_BH),
            self._matches(feeds, user_rate_BH),
            self._recent(feeds, user_rate_BH),
            _numbers(feeds["numeric"]),
            _clock(feeds["hour"]),
        ]
        return torch.cat(parts, dim=1)

    def _histories(self, counters: Tensor, age_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Counts and smoothed log-odds of users, items, creators, topics and crosses, decayed to now."""
        age_BV = torch.where(age_s < 0, _MISSING_AGE_S, age_s)
        decay_BVL = torch.exp2(-age_BV[:, :, None] / self.half_lives_L)
        counts = counters * decay_BVL[:, :, :, None]  # (B, V, L, K)
        seen, done = counts[..., :1], counts[..., 1:]
        own, crossed = slice(len(_STRENGTHS)), slice(len(_STRENGTHS), None)
        strengths = torch.tensor(_STRENGTHS, dtype=counts.dtype, device=counts.device)[None, :, None, None]
        rates = (done[:, own] + strengths * self.prior_H) / (seen[:, own] + strengths)  # (B, V, L, H)
        cross_rates = (done[:, crossed] + _CROSS_STRENGTH * rates[:, :1]) / (seen[:, crossed] + _CROSS_STRENGTH)
        rates = torch.cat([rates, cross_rates], dim=1)
        parts = [torch.log1p(seen).flatten(1), _log_odds(rates).flatten(1), _log_age(age_s)]
        return torch.cat(parts, dim=1), rates[:, 1, -1], rates[:, 0, -1]

    def _surface(self, feeds: dict[str, Tensor], item_rate_BH: Tensor) -> Tensor:
        """The item's own record on the surface where it would be shown."""
        surface_B1 = feeds["categorical"][:, len(IDS) : len(IDS) + 1]
        match_BS = (feeds["surface_keys"] == surface_B1) & (surface_B1 != 0)
        counts_BK = (feeds["surface_counters"] * match_BS[:, :, None]).sum(1)
        age_s = feeds["counter_age_s"][:, 1:2]
        counts_BK = counts_BK * torch.exp2(-torch.where(age_s < 0, _MISSING_AGE_S, age_s) / self.half_lives_L[-1])
        seen, done = counts_BK[:, :1], counts_BK[:, 1:]
        rates = (done + _SURFACE_STRENGTH * item_rate_BH) / (seen + _SURFACE_STRENGTH)
        return torch.cat([torch.log1p(seen), _log_odds(rates)], dim=1)

    def _matches(self, feeds: dict[str, Tensor], user_rate_BH: Tensor) -> Tensor:
        """The user with this item, creator, topic, surface: how often, how well, how long ago."""
        keys_RTE = feeds["event_keys"]
        candidate_BE = feeds["categorical"][:, 1 : len(EVENT_KEYS) + 1]
        candidate_RME = candidate_BE.reshape(keys_RTE.shape[0], -1, len(EVENT_KEYS))
        match_RMTE = (keys_RTE[:, None] == candidate_RME[:, :, None]) & (candidate_RME != 0)[:, :, None]
        match = match_RMTE.to(torch.float32)
        seen_BE = match.sum(2).flatten(0, 1)
        done_BEH = torch.einsum("rmte,rth->rmeh", match, feeds["event_outcomes"]).flatten(0, 1)
        rates = (done_BEH + _MATCH_STRENGTH * user_rate_BH[:, None, :]) / (seen_BE[:, :, None] + _MATCH_STRENGTH)
        age_R1T1 = feeds["event_age_s"][:, None, :, None]
        newest_BE = torch.where(match_RMTE, age_R1T1, _MISSING_AGE_S).amin(2).flatten(0, 1)
        return torch.cat([torch.log1p(seen_BE), _log_odds(rates).flatten(1), torch.log1p(newest_BE)], dim=1)

    def _recent(self, feeds: dict[str, Tensor], user_rate_BH: Tensor) -> Tensor:
        """Mean outcomes of the user's last events, and how many events are known."""
        known_RT = (feeds["event_age_s"] >= 0).to(torch.float32)
        rate_RMH = user_rate_BH.reshape(known_RT.shape[0], -1, self.heads)
        parts = [torch.log1p(known_RT.sum(1))[:, None, None].expand(-1, rate_RMH.shape[1], 1)]
        for last in _RECENT:
            known = known_RT[:, :last, None]
            done = (feeds["event_outcomes"][:, :last] * known).sum(1)
            parts.append((done[:, None] + rate_RMH) / (known.sum(1)[:, None] + 1))
        return torch.cat(parts, dim=2).flatten(0, 1)


def _log_odds(rates: Tensor) -> Tensor:
    rates = rates.clamp(1e-5, 1 - 1e-5)
    return torch.log(rates) - torch.log1p(-rates)


def _log_age(age_s: Tensor) -> Tensor:
    return torch.log1p(torch.where(age_s < 0, _MISSING_AGE_S, age_s))


def _numbers(values_BN: Tensor) -> Tensor:
    """Attributes on a signed logarithmic scale, and whether they are missing."""
    missing = torch.isnan(values_BN)
    known = torch.where(missing, 0.0, values_BN)
    return torch.cat([torch.sign(known) * torch.log1p(known.abs()), missing.to(torch.float32)], dim=1)


def _clock(hour_B: Tensor) -> Tensor:
    angle = hour_B[:, None] * (2 * torch.pi / 24)
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)
