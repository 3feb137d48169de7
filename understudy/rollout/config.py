"""What the configuration says of bringing a release into production."""

import dataclasses
import re

from understudy.section import duration_s, number, section

__all__ = ["Guardrails", "Rollout"]


@section
class Guardrails:
    """What ends a canary within ticks.

    Args:
        ticks: in a row that a bound must be missed.
        error_rate: share of failed requests, and never less than three times the baseline's.
        p99_ms: of a request.
        memory_mb: of a process.
        restarts: of the canary's processes since the rollout began.
        score_shift: relative difference of a judged head's mean prediction from the baseline's.
        calibration_shift: relative difference of a head's Σp / Σy from the baseline's, where it is more than chance.
        min_requests: in a tick, or it says nothing of errors and latency.
        min_scored: requests of an arm in a step, before its mean prediction says something; no step ends before that.
    """

    ticks: int = number(3, low=1, high=1000)
    error_rate: float = number(0.01, low=0, high=1)
    p99_ms: float = number(50.0, low=0.001)
    memory_mb: float = number(1024.0, low=1)
    restarts: int = number(2, low=0, high=10_000)
    score_shift: float = number(0.2, low=0.001, high=100)
    calibration_shift: float = number(0.1, low=0.001, high=100)
    min_requests: int = number(50, low=1)
    min_scored: int = number(500, low=1)


@section
class Rollout:
    """How a candidate becomes production.

    Args:
        mode: what a run does with a release whose every verdict is a pass: ``direct`` moves the alias; ``canary``
            begins a rollout; ``none`` leaves the candidate for a person.
        wait: in mode ``canary``, the run ends with the rollout: on this machine it drives it, on a cluster it watches
            the driver there. Without it the run only begins it.
        approval: ``required``: before its release gets near anybody, a run waits for `understudy releases approve`.
        approval_wait: for so long; then the step says no.
        namespace: of the cluster where rollouts take place; empty: processes of the machine that drives.
        port: of the router, on this machine.
        prometheus: URL of the Prometheus that scrapes the servers; empty: they are asked themselves. Its token, where
            it wants one: the variable UNDERSTUDY_PROMETHEUS_TOKEN.
        steps: buckets of the canary, of 100, rising; then come all but the holdouts.
        held: buckets of each of the two holdouts.
        tick: between two looks at the guardrails.
        look: between two looks at what people did.
        bake: the least time of a step.
        min_users: that the canary and the baseline must each have had in a step before what they did says anything,
            and before the step is left.
        max_duration: of a rollout; one without a verdict until then is rejected.
        no_data: a rollout that nobody uses for so long ends without a verdict.
        judged: metrics that must not be worse: a head is how often it is done per seen item, ``click.value`` the sum of
            the values of clicks, such as seconds of dwell; empty: the primary heads of ``evaluation``.
        harmful: metrics of which more is worse, such as ``hide``; they end a rollout, and can't promote one.
        margin: relative loss of a judged head that a release may have against the baseline.
        alpha: chance to promote a release that loses the margin.
        harm_alpha: chance to call a release harmful that is not.
        guardrails: what ends a canary within ticks.
    """

    mode: str = "direct"
    wait: bool = True
    approval: str = "none"
    approval_wait: str = "7d"
    namespace: str = ""
    port: int = number(8800, low=0, high=65535)
    prometheus: str = ""
    steps: tuple[int, ...] = (1, 5, 20, 40)
    held: int = number(2, low=0, high=10)
    tick: str = "1m"
    look: str = "1d"
    bake: str = "1d"
    min_users: int = number(500, low=2)
    max_duration: str = "21d"
    no_data: str = "1d"
    judged: tuple[str, ...] = ()
    harmful: tuple[str, ...] = ()
    margin: float = number(0.03, low=0.0001, high=0.5)
    alpha: float = number(0.05, low=1e-6, high=0.5)
    harm_alpha: float = number(0.02, low=1e-6, high=0.5)
    guardrails: Guardrails = dataclasses.field(default_factory=Guardrails)

    def __post_init__(self) -> None:
        if self.mode not in ("direct", "canary", "none"):
            raise ValueError(f"mode: expected direct, canary or none, found {self.mode!r}")
        if self.approval not in ("none", "required"):
            raise ValueError(f"approval: expected none or required, found {self.approval!r}")
        if self.prometheus and not re.fullmatch(r"https?://[^\s@]+", self.prometheus):
            raise ValueError("prometheus: expected a URL such as http://prometheus.monitoring.svc:9090, found another")
        rising = all(a < b for a, b in zip((0, *self.steps), self.steps, strict=False))
        if not self.steps or not rising or self.steps[-1] > 50 - self.held:
            raise ValueError(f"steps: expected rising numbers from 1 to {50 - self.held}, found {list(self.steps)}")
        for text in (self.tick, self.look, self.bake, self.max_duration, self.no_data, self.approval_wait):
            duration_s(text)
        both = sorted(set(self.judged) & set(self.harmful))
        if both:
            raise ValueError(f"harmful: expected heads that are not judged, found {', '.join(both)}")
