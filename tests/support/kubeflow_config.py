"""Configurations that differ in their section ``pipeline``."""

from pathlib import Path
from typing import Any

import yaml

from understudy import config as configuration
from understudy.config import Config

__all__ = ["configured", "written"]

_FILE = Path(__file__).resolve().parent.parent.parent / "examples" / "generated.yaml"
WEEKLY = {"name": "weekly", "cron": "0 3 * * 1"}


def configured(
    window_days: int = 14, rollout: dict[str, Any] | None = None, more: dict[str, Any] | None = None, **pipeline: Any
) -> Config:
    """The configuration of generated logs, on a cluster whose lake is /lake.

    Args:
        window_days: another makes another version of the pipeline.
        more: sections that take the place of the file's.
    """
    return configuration.parse(_value(window_days, rollout, pipeline) | (more or {}), "test")


def written(folder: Path, window_days: int = 14, **pipeline: Any) -> str:
    """The same as a file."""
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump(_value(window_days, None, pipeline)))
    return str(path)


def _value(window_days: int, rollout: dict[str, Any] | None, pipeline: dict[str, Any]) -> dict[str, Any]:
    value = yaml.safe_load(_FILE.read_text()) | {"pipeline": {"lake": "/lake", **pipeline}}
    value["window"] = {"days": window_days}
    return value | ({"rollout": rollout} if rollout else {})
