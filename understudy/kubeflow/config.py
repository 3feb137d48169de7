"""What the configuration says of Kubeflow Pipelines: where runs run, and when.

It decides nothing about what a run makes: a run's id, its steps and its release do not depend on it.
"""

import dataclasses
import re
import zoneinfo
from collections.abc import Iterable

from understudy.errors import BadInput
from understudy.kubeflow.cron import parse
from understudy.kubeflow.step import StepSettings, joined
from understudy.section import duration_s, section

__all__ = ["IMAGE_ROLES", "KINDS", "Pipeline", "Schedule"]

IMAGE_ROLES = ("spark", "tools", "train")
# what a schedule runs → the parameters that it may give, beside the lake
KINDS: dict[str, tuple[str, ...]] = {"retrain": ("window_end", "again"), "drift": ("window_end",), "refresh": ()}
_STEPS = (
    "plan_window", "compact_logs", "build_features", "sample_examples", "retrieve_features", "check_drift",
    "train_ranker", "calibrate", "evaluate", "publish_release", "promote", "write_report",
)  # fmt: skip
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_IMAGE = re.compile(r"[\w.-]+(:\d+)?(/[\w.-]+)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?", re.ASCII)
_LAKE = re.compile(r"(/|[a-z][a-z0-9+]*://(?!\S*@))\S*")
_HOST = re.compile(r"https?://[^\s/@]+(/[^\s@]*)?")


@section
class Schedule:
    """A recurring run.

    Args:
        name: of it, as `understudy schedule` knows it.
        kind: ``retrain``: a whole run; ``drift``: a run's first steps, up to the comparison with production, which the
            next retraining of that day takes up; ``refresh``: what serving reads.
        cron: five fields (minute, hour, day of month, month, day of week), or six with seconds first.
        time_zone: of the cron, an IANA name; empty: the configuration's.
        parameters: of the pipeline, beside the lake: ``window_end``, ``again``.
        enabled: whether it runs by itself.
    """

    name: str
    kind: str = "retrain"
    cron: str
    time_zone: str = ""
    parameters: dict[str, str | bool] = dataclasses.field(default_factory=dict)
    enabled: bool = True

    def __post_init__(self) -> None:
        _name("name", self.name)
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected {_any_of(KINDS)}, found {self.kind!r}")
        parse(self.cron)
        if self.time_zone and self.time_zone not in zoneinfo.available_timezones():
            raise ValueError(f"time_zone: expected an IANA name such as Europe/Berlin, found {self.time_zone!r}")
        for key, value in self.parameters.items():
            kind = bool if key == "again" else str
            if key not in KINDS[self.kind] or not isinstance(value, kind):
                known = _any_of(KINDS[self.kind]) if KINDS[self.kind] else "none"
                raise ValueError(f"parameters: expected {known} for a {self.kind}, found {key}: {value!r}")


@section
class Pipeline:
    """Kubeflow Pipelines: its address, the pods of the steps, the schedules.

    Args:
        name: beginning of the names of the pipelines there: ``<name>-retrain``, ``<name>-drift``, ``<name>-refresh``.
        host: URL of the API, such as http://localhost:8080; empty: the variable KF_PIPELINES_ENDPOINT, the cluster that
            this runs in, or the one of the kubeconfig.
        namespace: of the user where several share the installation; empty: the only one, or the one kfp knows.
        experiment: that holds runs and schedules; empty: ``name``.
        lake: URI or absolute path, as the steps see it.
        service_account: that runs use; empty: the installation's own.
        images: role (``spark``, ``tools``, ``train``) → image, by digest (name@sha256:…); the variables
            UNDERSTUDY_IMAGE_SPARK, _TOOLS and _TRAIN win.
        steps: settings of pods: under ``all``, a role or a step; of the three the last word counts.
        deadline: of a whole run, its waiting for people and for a rollout included; empty: none.
        ttl: how long the objects of a run that has ended stay in the cluster; empty: as the installation has it.
        cron_zone: in which the installation reads crons: CRON_SCHEDULE_TIMEZONE of its schedule controller.
        schedules: what recurs. They are what `understudy schedule apply` makes true.
    """

    name: str = "understudy"
    host: str = ""
    namespace: str = ""
    experiment: str = ""
    lake: str = ""
    service_account: str = ""
    images: dict[str, str] = dataclasses.field(default_factory=dict)
    steps: dict[str, StepSettings] = dataclasses.field(default_factory=dict)
    deadline: str = ""
    ttl: str = ""
    cron_zone: str = "UTC"
    schedules: tuple[Schedule, ...] = ()

    def __post_init__(self) -> None:
        _name("name", self.name)
        if self.host and not _HOST.fullmatch(self.host):
            raise ValueError("host: expected a URL such as http://localhost:8080, without a user, found another")
        for key, value in (("namespace", self.namespace), ("service_account", self.service_account)):
            if value and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", value):
                raise ValueError(f"{key}: expected a name of Kubernetes such as recs, found {value!r}")
        if self.lake and not _LAKE.fullmatch(self.lake):
            raise ValueError("lake: expected a URI without credentials or an absolute path, as the steps see it")
        self._check_pods()
        for text in filter(None, (self.deadline, self.ttl)):
            duration_s(text)
        if self.cron_zone not in zoneinfo.available_timezones():
            raise ValueError(f"cron_zone: expected an IANA name such as UTC, found {self.cron_zone!r}")
        names = [one.name for one in self.schedules]
        twice = sorted({one for one in names if names.count(one) > 1})
        if twice:
            raise ValueError(f"schedules: expected each name once, found {', '.join(twice)} twice")

    def _check_pods(self) -> None:
        for role, image in self.images.items():
            if role not in IMAGE_ROLES:
                raise ValueError(f"images: expected {_any_of(IMAGE_ROLES)}, found {role!r}")
            if not _IMAGE.fullmatch(image):
                raise ValueError(f"images.{role}: expected an image such as ghcr.io/me/it@sha256:…, found {image!r}")
        for key in self.steps:
            if key not in ("all", *IMAGE_ROLES, *_STEPS):
                known = _any_of(("all", *IMAGE_ROLES, *_STEPS))
                raise ValueError(f"steps: expected {known}, found {key!r}")

    def lake_for(self, given: str | None = None) -> str:
        """The lake that runs are given.

        Raises:
            BadInput: nobody says which.
        """
        lake = given or self.lake
        if not _LAKE.fullmatch(lake):
            found = "another" if lake else "none"
            raise BadInput(
                "pipeline.lake: expected a URI without credentials or an absolute path, as the steps see it, "
                f"found {found}; set it"
            )
        return lake

    def pod(self, step: str, role: str) -> StepSettings:
        """The settings of a step's pod."""
        return joined([self.steps[key] for key in ("all", role, step) if key in self.steps])


def _name(key: str, value: str) -> None:
    if not _LABEL.fullmatch(value):
        raise ValueError(f"{key}: expected 1 to 40 of a-z, 0-9 and - (not first or last), found {value!r}")


def _any_of(names: Iterable[str]) -> str:
    *head, last = names
    return f"{', '.join(head)} or {last}" if head else last
