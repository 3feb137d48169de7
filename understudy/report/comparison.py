"""The page of a comparison: what sets configurations apart, with intervals."""

from pathlib import Path
from typing import Any

import jinja2

from understudy.lake import Lake
from understudy.report import pictures

__all__ = ["write"]


def write(lake: Lake, found: dict[str, Any]) -> str:
    """Write ``runs/<id>/compare.html``, which opens without a network; returns where it is.

    Args:
        found: as ``understudy.comparison.compare`` gives it.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = lambda value, digits=4: "–" if value is None else f"{value:.{digits}f}"
    environment.filters["signed"] = lambda value: "–" if value is None else f"{value:+.4f}"
    template = environment.from_string(Path(__file__).with_name("comparison.html").read_text())
    path = f"runs/{found['run']}/compare.html"
    lake.replace(path, template.render(found=found, picture=pictures.differences(found["heads"])).encode())
    return lake.uri(path)
