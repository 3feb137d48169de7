"""Fit what does not learn by gradient: vocabulary, priors, scales."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from understudy.inputs import Feeds, Inputs, batches
from understudy.ranker.config import Ranker
from understudy.ranker.network import ID_COLUMNS, RankerModel, Sizes
from understudy.ranker.vocabulary import ValueCounts, Vocabulary

__all__ = ["as_tensors", "new_like", "new_model", "new_model_of"]

_BATCH = 8192


def new_model(
    config: Ranker, inputs: Inputs, feeds: Feeds, labels_BH: np.ndarray, weights_B: np.ndarray, seed: int
) -> RankerModel:
    """A network with random weights whose preprocessing is fitted to the training rows.

    Args:
        feeds: of the training rows.
        labels_BH: 0 or 1, NaN where unknown.
        weights_B: of the rows, as metrics use them.
        seed: of the weights.
    """
    return new_model_of(config, inputs, lambda: [feeds], labels_BH, weights_B, seed)


def new_model_of(
    config: Ranker,
    inputs: Inputs,
    parts: Callable[[], Iterable[Feeds]],
    labels_BH: np.ndarray,
    weights_B: np.ndarray,
    seed: int,
) -> RankerModel:
    """The same of rows that come in parts, which are gone through twice: for the vocabulary, and for scales."""
    counts = ValueCounts()
    for feeds in parts():
        counts.add(feeds["categorical"])
    values = counts.frequent(config.min_id_count)
    vocabulary = Vocabulary.build(inputs.categorical, values)
    id_rows, category_rows = (sum(len(v) + 1 for v in part) for part in (values[:ID_COLUMNS], values[ID_COLUMNS:]))
    torch.manual_seed(seed)
    model = RankerModel(config, inputs, Sizes(vocabulary.keys_0.shape[0], id_rows, category_rows))
    model.preprocess.vocabulary.load_state_dict(vocabulary.state_dict())
    known = ~np.isnan(labels_BH)
    weight = weights_B[:, None] * known
    positives = (np.nan_to_num(labels_BH) * weight).sum(0) + 1.0
    priors = positives / (weight.sum(0) + 2.0)
    model.preprocess.prior_H.copy_(torch.from_numpy(priors.astype(np.float32)))
    _start_at_priors(model)
    _fit_scales(model, parts(), len(weights_B))
    return model


def new_like(model: RankerModel, config: Ranker, seed: int) -> RankerModel:
    """A network of another shape with random weights, whose preprocessing is that of ``model``."""
    torch.manual_seed(seed)
    other = RankerModel(config, model.inputs, model.sizes)
    other.preprocess.load_state_dict(model.preprocess.state_dict())
    _start_at_priors(other)
    return other


def _start_at_priors(model: RankerModel) -> None:
    with torch.no_grad():
        model.network.out.bias.copy_(torch.logit(model.preprocess.prior_H))


def _fit_scales(model: RankerModel, parts: Iterable[Feeds], rows: int) -> None:
    total = torch.zeros(len(model.preprocess.mean_D), dtype=torch.float64)
    squares = torch.zeros_like(total)
    with torch.no_grad():
        for batch in (batch for feeds in parts for batch in batches(feeds, _BATCH)):
            dense = model.preprocess.raw_dense(as_tensors(batch)).to(torch.float64)
            total += dense.sum(0)
            squares += (dense * dense).sum(0)
    mean = total / rows
    deviation = (squares / rows - mean * mean).clamp(min=0).sqrt()
    model.preprocess.mean_D.copy_(mean)
    model.preprocess.scale_D.copy_(torch.where(deviation > 1e-4, 1 / deviation.clamp(min=1e-4), 0.0))


def as_tensors(feeds: Feeds, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """Feeds as tensors on a device."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in feeds.items()}
