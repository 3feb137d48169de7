"""The sampling decision without Spark, for the data loader: the same rows, the same weights.

``understudy.sampling.rules`` is its twin; a test holds the two together on the same examples.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from understudy.errors import BadInput
from understudy.hashing import decision
from understudy.sampling.config import Rule, Sampling

__all__ = ["Decided", "decide", "random_factor", "rule_columns"]

Floats = npt.NDArray[np.float64]

_PLAIN_LOW, _PLAIN_HIGH = 1e-3, 1e7  # between them Java writes a number without an exponent


@dataclass(frozen=True)
class Decided:
    """What is decided of n training rows.

    Args:
        keep: (n,).
        weight: ``sample_weight`` (n,), 1 / (inclusion probability × sampling rate).
        importance: (n,), before the random slice gets its share.
    """

    keep: npt.NDArray[np.bool_]
    weight: Floats
    importance: Floats


def decide(rows: pa.Table, sampling: Sampling, heads: tuple[str, ...], attributes: dict[str, pa.Table]) -> Decided:
    """Decide rows of the split ``train``.

    Args:
        rows: columns of the examples: ``row_key``, ``inclusion_probability``, labels, keys, what rules ask for.
        attributes: key (``item_id``, ``user_id``) → the table with what is known of each; rules may ask for it.

    Raises:
        BadInput: a rule asks for a column that nobody has.
    """
    rate = np.full(rows.num_rows, sampling.negative_rate)
    importance = np.ones(rows.num_rows)
    undecided = np.ones(rows.num_rows, bool)
    for rule in sampling.rules:
        mine = undecided & _matches(rows, rule, attributes)
        rate[mine] = sampling.negative_rate if rule.negative_rate is None else rule.negative_rate
        importance[mine] = rule.importance
        undecided &= ~mine
    positive = np.zeros(rows.num_rows, bool)
    for head in heads:
        positive |= np.asarray(rows[f"label_{head}"].cast(pa.float64()).fill_null(0.0)) > 0
    rate[positive] = 1.0
    keep = decision("sampling", sampling.seed, rows["row_key"]) < rate
    weight = 1.0 / (np.asarray(rows["inclusion_probability"].cast(pa.float64())) * rate)
    return Decided(keep, weight, importance)


def random_factor(random: npt.NDArray[np.bool_], weight: Floats, share: float | None) -> float:
    """What the random slice's importance is multiplied by, so that it has its share of the loss.

    Args:
        random, weight: (n,) of the kept training rows; the weight is sample weight × importance.

    Raises:
        BadInput: one of the two slices has no rows.
    """
    if share is None:
        return 1.0
    policy_weight, random_weight = float(weight[~random].sum()), float(weight[random].sum())
    if not policy_weight or not random_weight:
        found = ", ".join(name for name, sum_ in (("policy", policy_weight), ("random", random_weight)) if sum_)
        raise BadInput(
            "sampling.random_slice_share: expected training rows of both slices, found "
            f"{found or 'none'}; remove the key, or ingest a random log"
        )
    return share / (1 - share) * policy_weight / random_weight


def rule_columns(sampling: Sampling) -> set[str]:
    """Columns of the examples, or attributes, that the rules ask for."""
    return {rule.column for rule in sampling.rules}


def _matches(rows: pa.Table, rule: Rule, attributes: dict[str, pa.Table]) -> npt.NDArray[np.bool_]:
    texts = _as_text(_column(rows, rule, attributes), rule)
    found: npt.NDArray[np.bool_] = pc.is_in(texts, value_set=pa.array(rule.values, pa.string())).to_numpy(
        zero_copy_only=False
    )
    return found


def _column(rows: pa.Table, rule: Rule, attributes: dict[str, pa.Table]) -> pa.Array:
    if rule.column in rows.column_names:
        return rows[rule.column].combine_chunks()
    for key, table in attributes.items():
        if rule.column in table.column_names:
            place = pc.index_in(rows[key], table[key].combine_chunks())
            return table[rule.column].take(place.combine_chunks()).combine_chunks()
    raise BadInput(
        f"sampling.rules, rule {rule.name!r}: expected a column of the examples or an attribute, "
        f"found {rule.column!r}; correct its name"
    )


def _as_text(column: pa.Array, rule: Rule) -> pa.Array:
    """Values as Spark casts them to strings."""
    if pa.types.is_temporal(column.type):
        raise BadInput(f"sampling.rules, rule {rule.name!r}: expected text or a number, found times in {rule.column!r}")
    if not pa.types.is_floating(column.type):
        return column.cast(pa.string())
    encoded = column.dictionary_encode()
    texts = [_java_text(value) for value in encoded.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(encoded.indices, pa.array(texts, pa.string())).cast(pa.string())


def _java_text(value: float) -> str:
    """A floating-point number as ``Double.toString`` writes it."""
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0 or _PLAIN_LOW <= abs(value) < _PLAIN_HIGH:
        return np.format_float_positional(value, trim="0")
    digits, exponent = np.format_float_scientific(value, trim="0").split("e")
    return f"{digits}E{int(exponent)}"
