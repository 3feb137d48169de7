"""``understudy.yaml``: one configuration, strictly validated, data and nothing else."""

import functools
import hashlib
import json
import sys
import zoneinfo
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy import renames, strict_yaml
from understudy.calibration.config import Calibration
from understudy.drift.config import Drift
from understudy.errors import BadInput
from understudy.evaluation.config import Evaluation
from understudy.features.config import Features
from understudy.jobs.config import Spark
from understudy.kubeflow.config import Pipeline
from understudy.logs.config import Labels, Logging, Source
from understudy.rollout.config import Rollout
from understudy.sampling.config import Sampling
from understudy.section import canonical_json, content, duration_s, number, placed, section
from understudy.serving.config import Serving
from understudy.simulator.config import World
from understudy.training.config import Training

if TYPE_CHECKING:
    import pydantic

__all__ = ["Config", "Window", "load"]


@section
class Window:
    """Which days a run trains on.

    Args:
        days: up to this many days that end with the window's last; all but the last train.
    """

    days: int = number(14, low=2, high=3650)


@section
class Config:
    """The whole configuration. One of ``source`` and ``logging`` names the heads.

    Args:
        time_zone: of days and hours, an IANA name.
        source: how raw logs map to tables, for `understudy ingest`; its ``outcomes`` name the heads.
        logging: what a feed of our own keeps, for `understudy collect`; it names the heads.
        world: the simulated feed, for `understudy simulate`.
        spark: where the steps that use Spark do their work on a cluster.
        pipeline: where runs run, and when, on Kubeflow. What a run is depends on neither.
    """

    source: Source | None = None
    logging: Logging | None = None
    time_zone: str = "UTC"
    labels: Labels = field(default_factory=Labels)
    window: Window = field(default_factory=Window)
    features: Features = field(default_factory=Features)
    sampling: Sampling = field(default_factory=Sampling)
    drift: Drift = field(default_factory=Drift)
    training: Training = field(default_factory=Training)
    calibration: Calibration = field(default_factory=Calibration)
    evaluation: Evaluation = field(default_factory=Evaluation)
    rollout: Rollout = field(default_factory=Rollout)
    serving: Serving = field(default_factory=Serving)
    world: World | None = None
    spark: Spark = placed(default_factory=Spark)
    pipeline: Pipeline = placed(default_factory=Pipeline)

    def __post_init__(self) -> None:
        if self.time_zone not in zoneinfo.available_timezones():
            raise ValueError(f"time_zone: expected an IANA name such as Asia/Shanghai, found {self.time_zone!r}")
        if (self.source is None) == (self.logging is None):
            found = "none" if self.source is None else "both"
            raise ValueError(f"source: expected either source (raw logs) or logging (a feed's own), found {found}")
        for where, named in (
            ("evaluation.primary_heads", self.evaluation.primary_heads),
            ("training.distillation.heads", tuple(self.training.distillation.heads)),
            ("serving.utility", tuple(self.serving.utility)),
            ("rollout.judged", tuple(one.removesuffix(".value") for one in self.rollout.judged)),
            ("rollout.harmful", tuple(one.removesuffix(".value") for one in self.rollout.harmful)),
        ):
            for head in named:
                if head not in self.heads:
                    raise ValueError(f"{where}: expected one of {', '.join(self.heads)}, found {head!r}")
        self._check_patience()

    def _check_patience(self) -> None:
        """A pod that ends before people have had their time would be no answer."""
        if self.rollout.approval == "none":
            return
        promote = self.pipeline.pod("promote", "tools").timeout
        for where, limit in (("deadline", self.pipeline.deadline), ("steps.promote.timeout", promote)):
            if limit and duration_s(limit) <= duration_s(self.rollout.approval_wait):
                raise ValueError(
                    f"pipeline.{where}: expected more than rollout.approval_wait ({self.rollout.approval_wait}), "
                    f"found {limit}"
                )

    @property
    def heads(self) -> tuple[str, ...]:
        if self.source is not None:
            return tuple(sorted(self.source.outcomes))
        assert self.logging is not None, "one of the two names the heads"
        return tuple(sorted(self.logging.heads))

    @property
    def primary_heads(self) -> tuple[str, ...]:
        return self.evaluation.primary_heads or self.heads[:1]

    def work(self) -> str:
        """Canonical JSON of what a run is made from: all but where it is made."""
        return canonical_json(content(self))

    def digest(self) -> str:
        return hashlib.sha256(self.work().encode()).hexdigest()

    def section(self, *names: str) -> str:
        """Canonical JSON of the named parts: what a pipeline step is given."""
        return canonical_json({name: content(getattr(self, name)) for name in names})


def load(path: str | Path, *, whatever_name: bool = False) -> Config:
    """Read and validate a configuration; a key ``base`` names the file beside it that it changes.

    Args:
        whatever_name: take keys under every name that they ever had, and warn of none.

    Raises:
        BadInput: names the path of the key, what was expected and what was found.
    """
    change = _silently if whatever_name else _warning
    return parse(strict_yaml.read(Path(path), change), str(path))


def _silently(path: Path, own: dict[str, Any]) -> dict[str, Any]:
    return _renamed(path, own)[0]


def _warning(path: Path, own: dict[str, Any]) -> dict[str, Any]:
    """A file's keys in today's names; an old one is a warning for a minor version, then an error."""
    value, found = _renamed(path, own)
    for one in found:
        line = strict_yaml.line_of(path, one.place)
        where = f"configuration {path}{f', line {line}' if line else ''}"
        how = f"`understudy config upgrade {path}` renames it"
        if one.rename.is_over:
            raise BadInput(f"{where}: `{one.old}` is called `{one.new}` since version {one.rename.since}; {how}")
        text = f"`{one.old}` is now called `{one.new}`; the old name works until version {one.rename.end}; {how}"
        print(f"warning: {where}: {text}", file=sys.stderr, flush=True)
    return value


def _renamed(path: Path, own: dict[str, Any]) -> tuple[dict[str, Any], list[renames.Found]]:
    try:
        return renames.renamed(own)
    except BadInput as error:
        raise BadInput(f"configuration {path}: {error}") from error


def parse(value: dict[str, Any], where: str) -> Config:
    """Validate a configuration that has been read."""
    import pydantic

    try:
        return _adapter().validate_json(json.dumps(value, default=str))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BadInput(f"configuration {where}: {_explain(first)}") from error


@functools.cache
def _adapter() -> "pydantic.TypeAdapter[Config]":
    """What checks types and keys; it takes a quarter of a second to make."""
    import pydantic

    return pydantic.TypeAdapter(Config)


def _explain(error: Any) -> str:
    at = ".".join(str(part) for part in error["loc"])
    found = repr(error.get("input"))
    found = found if len(found) <= 80 else found[:77] + "..."
    match error["type"]:
        case "unexpected_keyword_argument":
            return f"{at}: expected no such key, found one; correct its name or remove it"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"{at}: expected a value, found none; add the key"
        case "value_error":
            message = error["msg"].removeprefix("Value error, ")
            return f"{at}{': ' if message.startswith('expected') else '.'}{message}" if at else message
        case _:
            return f"{at}: {error['msg'].lower()}, found {found}; correct the value"
