"""The page of a simulated feed: how close its ranker came to the best possible one, week by week."""

import datetime
from pathlib import Path
from typing import Any

import jinja2

from understudy.lake import Lake
from understudy.report import pictures

__all__ = ["PAGE", "write"]

PAGE = "demo.html"
_NAMES = ("refreshed", "frozen", "popularity", "ceiling")


def write(
    lake: Lake,
    weeks: list[dict[str, Any]],
    world: dict[str, Any],
    times: int,
    headline: str,
    stories: list[dict[str, Any]],
) -> str:
    """Write ``demo.html``, which opens without a network; returns where it is.

    Args:
        weeks: as ``Week.to_json`` gives them.
        world: the configuration's section.
        times: rows of the ceiling per row of the product.
        stories: of rollouts: ``title``, ``phase``, ``said``.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.1%}"
    environment.filters["figure"] = lambda value, digits=4: "–" if value is None else f"{value:.{digits}f}"
    template = environment.from_string(Path(__file__).with_name("closed_loop.html").read_text())
    names = [name for name in _NAMES if any(name in week["figures"] for week in weeks)]
    days = {day: shares for week in weeks for day, shares in week["days"].items()}
    shift = _shift_day(world)
    content = {
        "weeks": weeks,
        "names": names,
        "world": world,
        "times": times,
        "headline": headline,
        "shift": shift,
        "stories": stories,
        "picture": pictures.lifts(days, names, shift),
    }
    lake.replace(PAGE, template.render(content).encode())
    return lake.uri(PAGE)


def _shift_day(world: dict[str, Any]) -> str | None:
    if world["shift_day"] is None:
        return None
    return str(datetime.date.fromisoformat(world["first_day"]) + datetime.timedelta(days=world["shift_day"]))
