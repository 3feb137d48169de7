"""Arms as sets of buckets, and what may be said of their difference."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh64_intdigest

from understudy.experiments import Outcomes, difference, ramp
from understudy.experiments.arms import HOLDOUTS, order
from understudy.hashing import bucket

ROOT = Path(__file__).resolve().parent.parent.parent

ids = st.text(min_size=1, max_size=20)
held = st.integers(0, 10)


@given(ids, held, st.integers(0, 120))
def test_every_bucket_is_in_one_arm(rollout: str, held: int, canary: int) -> None:
    arms = ramp(rollout, canary, held)
    sizes = {arm: arms.size(arm) for arm in ("stable", "canary", "baseline", *HOLDOUTS)}
    assert sum(sizes.values()) == 100
    assert sizes["canary"] == min(canary, 100 - 2 * held)
    assert all(sizes[name] == held for name in HOLDOUTS)
    assert sizes["baseline"] == (0 if canary >= 100 - 2 * held else min(canary, 20, 100 - 2 * held - canary))
    seen = [arms.of(bucket) for bucket in range(100)]
    assert {arm: seen.count(arm) for arm in sizes} == sizes


@given(ids, held, st.integers(0, 100), st.integers(0, 100))
def test_the_canary_only_takes_more(rollout: str, held: int, one: int, other: int) -> None:
    few, many = (set(ramp(rollout, count, held).buckets.get("canary", ())) for count in sorted((one, other)))
    assert few <= many


@given(ids, held, st.integers(1, 40))
def test_the_canary_begins_at_the_front_and_the_baseline_at_the_back(rollout: str, held: int, canary: int) -> None:
    """So that nobody goes from the one to the other while there is room between them."""
    arms, row = ramp(rollout, canary, held), order(rollout, held)
    assert set(arms.buckets["canary"]) == set(row[:canary])
    assert set(arms.buckets["baseline"]) == set(row[-min(canary, 20) :])


@given(held, st.integers(0, 100), ids, ids)
def test_holdouts_are_the_same_in_every_rollout(held: int, canary: int, one: str, other: str) -> None:
    for name in HOLDOUTS:
        assert ramp(one, canary, held, "may").buckets.get(name) == ramp(other, canary, held, "may").buckets.get(name)


def test_only_the_holdout_of_the_month_is_drawn_anew() -> None:
    may, june = (ramp("one", 5, 2, month).buckets for month in ("may", "june"))
    assert may["previous"] == june["previous"]
    assert may["month"] != june["month"]


def test_which_buckets_come_first_differs_by_rollout() -> None:
    first = [order(f"rollout-{number}", 2)[0] for number in range(400)]
    assert len(set(first)) > 80
    assert len(set(order("one", 2))) == 96


VECTORS = {  # salt:user → XXH64 mod 100, by the reference library
    ("understudy", "u1"): 73,
    ("understudy", "a user whose name is longer than thirty-two bytes"): 36,
    ("", ""): 81,
    ("salt", "Zoë"): 40,
    ("salt", "12345678"): 48,
}


@pytest.mark.needs("node")
def test_the_bucket_is_the_same_in_python_and_in_the_readmes_javascript() -> None:
    for (salt, user), expected in VECTORS.items():
        assert xxh64_intdigest(f"{salt}:{user}".encode()) % 100 == expected
        assert bucket(salt, [user])[0] == expected
    code = re.findall(r"```js\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    users = [[salt, user] for salt, user in VECTORS] + [["salt", "x" * length] for length in range(100)]
    code += f"console.log(JSON.stringify({json.dumps(users)}.map(([salt, user]) => bucket(salt, user))))"
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [int(bucket(salt, [user])[0]) for salt, user in users]


def test_a_difference_by_hand() -> None:
    ours = Outcomes.of(np.array([2.0, 0, 1]), np.array([4.0, 2, 4]))
    theirs = Outcomes.of(np.array([1.0, 1, 0]), np.array([4.0, 4, 2]))
    found = difference(ours, theirs)
    assert found is not None
    assert found.value == pytest.approx(0.3 / 0.2 - 1)
    residual = np.array([2.0, 0, 1]) - 0.3 * np.array([4.0, 2, 4])
    assert ours.relative_variance() == pytest.approx(3 * residual.var(ddof=1) / 10**2 / 0.3**2)


@pytest.mark.parametrize("empty", [([], []), ([1.0], [2.0]), ([0.0, 0.0], [2.0, 2.0])])
def test_too_little_gives_no_difference(empty: tuple[list[float], list[float]]) -> None:
    some = Outcomes.of(np.array([2.0, 1.0]), np.array([4.0, 4.0]))
    other = Outcomes.of(np.array(empty[0]), np.array(empty[1]))
    assert difference(some, other) is None
    assert difference(other, some) is None


@pytest.mark.parametrize("users", [40, 800])
def test_intervals_hold_the_truth_as_often_as_they_say_though_users_differ_and_return(users: int) -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(400):
        arms = []
        for effect in (1.1, 1.0):
            seen = random.poisson(random.lognormal(2, 1, users)).astype(float)
            arms.append(
                Outcomes.of(random.binomial(seen.astype(int), random.beta(4, 36, users) * effect).astype(float), seen)
            )
        found = difference(*arms)
        assert found is not None
        low, high = found.bounds(0.025)
        held += low <= 0.1 <= high
    assert 0.92 < held / 400 < 0.98
