"""What the judge does with good and with bad releases: many simulated rollouts of each kind.

A feed of some 200,000 people, of whom each comes on some days and sees a heavy-tailed number of items; the same people
return, with their own taste. Traffic has nights and weekends. Every hour is a tick, every day a look; errors, latency
and predictions are drawn as servers would report them. The judge is the real one with its defaults. Exposure is users ×
days in the canary until the verdict.
"""

import argparse
import concurrent.futures
import os
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from understudy.cli.output import print_table
from understudy.experiments import Outcomes
from understudy.rollout.config import Rollout
from understudy.rollout.judge import judge
from understudy.rollout.state import ArmSeen, Seen, State, arms_of

HEAD = "click"
HOUR_S = 3600.0
RATE, PREDICTED_SD = 0.1, 0.08
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """What is true of a release.

    Args:
        effect: relative, on every user's rate.
        errors: share of requests that fail; p99_ms; predicted: times what is true.
        traffic: times the feed's; drift: relative a day, of both arms.
    """

    name: str
    effect: float = 0.0
    errors: float = 0.001
    p99_ms: float = 12.0
    predicted: float = 1.0
    traffic: float = 1.0
    drift: float = 0.0
    weekly: bool = True


KINDS = [
    Kind("no effect"),
    Kind("no effect, no nights or weekends", weekly=False),
    Kind("+2%", effect=0.02),
    Kind("−2%", effect=-0.02),
    Kind("−5%", effect=-0.05),
    Kind("−10%", effect=-0.1),
    Kind("latency: p99 80 ms", p99_ms=80.0),
    Kind("errors: 5% of requests", errors=0.05),
    Kind("miscalibrated by 30%", predicted=1.3),
    Kind("nobody comes", traffic=0.0),
    Kind("both arms drift by −1% a day", drift=-0.01),
]


@dataclass(frozen=True)
class Ended:
    """How one rollout ended: its phase, its step, days, users × days of exposure, and the sentence."""

    phase: str
    step: int
    days: float
    exposure: float
    sentence: str


class People:
    """Users of one arm, through the days of a step."""

    def __init__(self, users: int, random: np.random.Generator) -> None:
        self.random = random
        self.comes = random.beta(0.6, 1.4, users)  # the share of days on which they come
        self.items = random.lognormal(2.0, 1.0, users)  # seen on such a day
        self.taste = random.beta(4, 4 * (1 / RATE - 1), users)
        self.y, self.n, self.p = np.zeros(users), np.zeros(users), np.zeros(users)
        self.requests, self.predicted = 0, 0.0  # of the step; the sum of requests' mean predictions

    def day(self, kind: Kind, effect: float, predicted: float, share: float) -> int:
        """Let a day pass; how many came."""
        here = np.flatnonzero(self.random.random(len(self.comes)) < self.comes * share)
        seen = self.random.poisson(self.items[here])
        rate = np.minimum(self.taste[here] * (1 + effect), 1.0)
        self.y[here] += self.random.binomial(seen, rate)
        self.n[here] += seen
        self.p[here] += seen * self.taste[here] * predicted
        return len(here)

    def outcomes(self) -> tuple[Outcomes, Outcomes]:
        """Clicks a seen item, and clicks against predictions."""
        return Outcomes.of(self.y, self.n), Outcomes.of(self.y, self.p)


def share_of(kind: Kind, day: int) -> float:
    """Of the people who could come on a day."""
    weekend = 0.4 if kind.weekly and day % 7 in (5, 6) else 1.0
    return kind.traffic * weekend


def hourly(kind: Kind, hour: int) -> float:
    """Share of a day's requests that come in an hour."""
    return (0.02 + 0.98 * max(0.0, np.sin(np.pi * (hour - 7) / 16))) / 10.6 if kind.weekly else 1 / 24


def today(kind: Kind, hours: int) -> float:
    """Share of a day's requests that came in its first hours."""
    return min(1.0, sum(hourly(kind, hour) for hour in range(hours)))


def one(kind: Kind, config: Rollout, users: int, seed: int) -> Ended:
    """A rollout from its first bucket to its end."""
    random = np.random.default_rng(seed)
    state = State.begin(f"rollout-{seed}", "new", "old", 0.0)
    step, arms, exposure, day_done = -1, {}, 0.0, -1
    came = {"canary": 0, "baseline": 0}
    for hour in range(1, 24 * 40):
        now_s, day = hour * HOUR_S, (hour - 1) // 24
        if state.step != step:
            sizes = arms_of(state, config)
            arms = {arm: People(round(users * sizes.size(arm) / 100), random) for arm in ("canary", "baseline")}
            step = state.step
        if hour % 24 == 0 and day != day_done:
            share, drift = share_of(kind, day), (1 + kind.drift) ** day - 1
            for arm, people in arms.items():
                effect = (1 + drift) * (1 + (kind.effect if arm == "canary" else 0.0)) - 1
                came[arm] = people.day(kind, effect, kind.predicted if arm == "canary" else 1.0, share)
            exposure, day_done = exposure + came["canary"], day
        seen = Seen(now_s, *(arm_seen(kind, arm, arms[arm], users, config, state, hour, random) for arm in arms))
        decision = judge(config, (HEAD,), state, seen)
        state = decision.state
        if state.ended:
            if hour % 24:
                exposure += arms["canary"].comes.sum() * share_of(kind, day) * today(kind, hour % 24)
            return Ended(state.phase, state.step, hour / 24, exposure, decision.sentences[-1])
    raise AssertionError("a rollout ends")


def arm_seen(
    kind: Kind,
    arm: str,
    people: People,
    users: int,
    config: Rollout,
    state: State,
    hour: int,
    random: np.random.Generator,
) -> ArmSeen:
    """What its servers and its people show in an hour."""
    is_canary = arm == "canary"
    daily = len(people.comes) * 0.3 * 2 * share_of(kind, (hour - 1) // 24)  # two requests of everyone who comes
    requests = int(random.poisson(daily * hourly(kind, hour % 24)))
    outcomes, calibration = people.outcomes() if hour % 24 == 0 else (None, None)
    mean = RATE * (kind.predicted if is_canary else 1.0)
    people.requests += requests
    people.predicted += requests * mean + random.normal(0, PREDICTED_SD) * np.sqrt(requests)
    return ArmSeen(
        requests=requests,
        errors=int(random.binomial(requests, kind.errors if is_canary else 0.001)),
        p99_ms=(kind.p99_ms if is_canary else 12.0) * random.lognormal(0, 0.1),
        memory_mb=300.0 * random.lognormal(0, 0.02),
        restarts=0,
        scores={HEAD: people.predicted / max(people.requests, 1)},
        scored=people.requests,
        users=int((people.n > 0).sum()),
        outcomes={} if outcomes is None else {HEAD: outcomes},
        calibration={} if calibration is None else {HEAD: calibration},
    )


def many(kind: Kind, config: Rollout, users: int, seeds: range) -> list[Ended]:
    """Rollouts side by side, a process a core."""
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        count = len(seeds)
        return list(pool.map(one, [kind] * count, [config] * count, [users] * count, seeds, chunksize=8))


def row(name: str, ended: list[Ended]) -> tuple[Any, ...]:
    """What became of the rollouts of a kind."""
    count = len(ended)
    shares = [sum(one.phase == phase for one in ended) / count for phase in ("promoted", "aborted", "rejected")]
    first = sum(one.phase == "aborted" and one.step == 0 for one in ended) / count
    return (
        name,
        *(f"{share:.1%}" for share in shares),
        f"{first:.1%}",
        f"{np.median([one.days for one in ended]):.1f}",
        f"{np.median([one.exposure for one in ended]):,.0f}",
    )


def main() -> None:
    """Print the table of kinds, and the promoted share of −2% over traffic."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=1000, help="of each kind")
    parser.add_argument("--users", type=int, default=200_000, help="of the feed")
    options = parser.parse_args()
    config, rows = Rollout(), []
    for kind in KINDS:
        ended = many(kind, config, options.users, range(options.rollouts))
        rows.append(row(kind.name, ended))
        print(f"{kind.name}: {ended[0].sentence}", file=sys.stderr, flush=True)
    columns = ("release", "promoted", "aborted", "no verdict", "aborted in step 1", "days", "users × days exposed")
    print_table(f"{options.rollouts} rollouts of each kind, {options.users:,} users", columns, rows)
    curve = []
    for users in (25_000, 50_000, 100_000, 200_000, 400_000):
        ended = many(replace(KINDS[3], name=f"{users:,} users"), config, users, range(options.rollouts // 4))
        curve.append(row(f"{users:,} users", ended))
    print_table("−2% over traffic", ("feed", *columns[1:]), curve)


if __name__ == "__main__":
    main()
