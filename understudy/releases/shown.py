"""What a release shows to whoever looks at it in a registry: tags, parameters and metrics."""

import datetime
import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from understudy.releases.quarantine import SPREADING
from understudy.section import canonical_json

__all__ = ["PREFIX", "metrics", "origin", "params", "standing"]

PREFIX = "understudy."
_LONGEST = 5000
_LONGEST_NAME = 250
_MANY = ("by", "by_day")  # a figure for each segment and day: the report's page shows them


def origin(digest: str, manifest: Mapping[str, Any], run: str | None, place: str) -> dict[str, str]:
    """Tags of where a release comes from.

    Args:
        run: id of the run that made it, where that is known.
        place: the lake's URI of its folder.
    """
    window, parents = manifest["window"], manifest["parents"]
    found = {
        "digest": digest,
        "release": place,
        "run": run,
        "window": f"{window['start']} to {window['end']}",
        "teacher": manifest["teacher"] or "none",
        "parents.production": parents.get("production") or "none",
        "parents.data": parents["data"],
        "parents.ranked_by": ", ".join(parents["ranked_by"]) or "none",
    }
    return _tags(found)


def standing(mark: Mapping[str, Any] | None, spread: bool, word: Mapping[str, Any] | None) -> dict[str, str]:
    """Tags ``quarantine`` and ``rejected``, where a release is so, with the reason.

    Args:
        mark: ``reason`` and ``note``, where the release was marked itself.
        spread: whether a fault has spread to it.
        word: ``word``, ``by`` and ``note`` of a person, where somebody was asked.
    """
    found: dict[str, str | None] = {}
    if spread:
        found["quarantine"] = "spread from a release that taught it, ranked its rows, or was made from the same logs"
    if word is not None and word["word"] != "approved":
        found["rejected"] = _said(f"refused by {word['by']}", word["note"])
    if mark is not None:
        name = "quarantine" if mark["reason"] in SPREADING else "rejected"
        found[name] = _said(mark["reason"], mark["note"])
    return _tags(found)


def params(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What it was made with: configuration, version, heads, window."""
    window = manifest["window"]
    return {
        "config_digest": hashlib.sha256(canonical_json(manifest["config"]).encode()).hexdigest(),
        "version": str(manifest["version"]),
        "heads": ", ".join(manifest["heads"]),
        "time_zone": str(manifest["time_zone"]),
        "window_start": str(window["start"]),
        "window_end": str(window["end"]),
        "window_days": str(_days(window)),
    }


def _days(window: Mapping[str, str]) -> int:
    start, end = (datetime.date.fromisoformat(window[name]) for name in ("start", "end"))
    return (end - start).days + 1


def metrics(figures: Mapping[str, Any]) -> dict[str, float]:
    """Name → value of every figure of ``metrics.json``, such as ``click/auc`` and ``baselines/item_rate/click/auc``.

    The two ends of an interval are ``.../low`` and ``.../high``. Segments, days and curves are left out.
    """
    found = {"/".join(path): value for path, value in _flat(figures, ())}
    return {_name(name.removeprefix("heads/")): value for name, value in found.items()}


def _flat(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(value, Mapping):
        for name, one in value.items():
            if name not in _MANY:
                yield from _flat(one, (*path, name))
    elif path and path[-1].endswith("interval") and isinstance(value, list) and len(value) == 2:
        for name, one in zip(("low", "high"), value, strict=True):
            yield from _flat(one, (*path, name))
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield path, float(value)


def _name(text: str) -> str:
    """As MLflow takes it."""
    return re.sub(r"[^\w\-. :/]", "_", text, flags=re.ASCII)[:_LONGEST_NAME]


def _said(what: str, note: str) -> str:
    return f"{what}: {note}" if note else what


def _tags(found: Mapping[str, str | None]) -> dict[str, str]:
    return {f"{PREFIX}{name}": value[:_LONGEST] for name, value in found.items() if value}
