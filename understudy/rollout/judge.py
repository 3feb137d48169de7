"""The judge: a pure function from where a rollout stands and what was seen to where it stands next, and why.

Guardrails are read on every tick and end a rollout after several misses in a row. What people did is looked at once a
day: harm ends the rollout at any step; non-inferiority of all judged metrics is needed before everybody gets the
release. Each look has its share of the chance of error (Bonferroni over the looks that can be), which holds however
looks depend on each other: people return. Arms share features and people's histories, so a difference is understated.
What is not a number says nothing, for the release or against it; and what one user alone did shows no harm.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from understudy.experiments import Difference, difference, without_heaviest
from understudy.rollout.config import Rollout
from understudy.rollout.guardrails import readings
from understudy.rollout.state import Decision, Seen, State, steps_of
from understudy.section import duration_s

__all__ = ["abort", "harms", "judge", "pause", "promote", "resume"]


def judge(config: Rollout, judged: tuple[str, ...], state: State, seen: Seen) -> Decision:
    """One tick.

    Args:
        judged: metrics that must not be worse.
    """
    if state.ended or not state.data_s <= seen.now_s < math.inf:
        return Decision(state)
    seen = seen.known()
    if seen.canary.requests:
        state = replace(state, data_s=seen.now_s)
    for step in (_guard, _look, _limits, _advance):
        decision = step(config, judged, state, seen)
        if decision.sentences:
            return decision
        state = decision.state
    return Decision(state)


def _guard(config: Rollout, judged: tuple[str, ...], state: State, seen: Seen) -> Decision:
    strikes = dict(state.strikes)
    for one in readings(config.guardrails, judged, seen):
        strikes[one.name] = strikes.get(one.name, 0) + 1 if one.missed else 0
        if strikes[one.name] >= config.guardrails.ticks:
            return _end(state, "aborted", one.reason, f"{one.name}: {one.text}, {strikes[one.name]} ticks in a row")
    return Decision(replace(state, strikes=strikes))


def _look(config: Rollout, judged: tuple[str, ...], state: State, seen: Seen) -> Decision:
    """What people did: is harm shown?"""
    shown = harms(config, judged, seen)
    if shown is None or seen.now_s - state.looked_s < duration_s(config.look):
        return Decision(state)
    state = replace(state, looked_s=seen.now_s, looks=state.looks + 1)
    if shown:
        return _end(state, "aborted", "harm", f"harm: {shown[0]}")
    return Decision(replace(state, harmless=True))


def harms(config: Rollout, judged: tuple[str, ...], seen: Seen, against: str = "the baseline") -> list[str] | None:
    """What is shown to be worse with the canary, in words, at one of a rollout's looks; None: too few people.

    Args:
        against: what the baseline is called.
    """
    found = dict(_differences((*judged, *config.harmful), seen))
    if not found or _users(seen) < config.min_users:
        return None
    tail = config.harm_alpha / (_most_looks(config) * len(found))
    shown = []
    for metric, one in found.items():
        more_is_worse = metric in config.harmful
        if not _is_worse(one, tail, more_is_worse=more_is_worse):
            continue
        others = without_heaviest(seen.canary.outcomes[metric], seen.baseline.outcomes[metric])
        if all(other is not None and _is_worse(other, tail, more_is_worse=more_is_worse) for other in others):
            shown.append(_said(metric, one, tail, against) + ("; more of it is worse" if more_is_worse else ""))
    return shown


def _is_worse(one: Difference, tail: float, *, more_is_worse: bool) -> bool:
    low, high = one.bounds(tail)
    return low > 0 if more_is_worse else high < 0


def _limits(config: Rollout, _: tuple[str, ...], state: State, seen: Seen) -> Decision:
    if seen.now_s - state.data_s > duration_s(config.no_data):
        return _end(state, "rejected", "", f"no verdict: nobody was served for {config.no_data}")
    if seen.now_s - state.started_s > duration_s(config.max_duration):
        return _end(state, "rejected", "", f"no verdict after {config.max_duration}: the intervals are too wide")
    return Decision(state)


def _advance(config: Rollout, judged: tuple[str, ...], state: State, seen: Seen) -> Decision:
    users = _users(seen)
    waits = seen.now_s - state.step_s < duration_s(config.bake) or users < config.min_users or not state.harmless
    unheard = min(seen.canary.scored, seen.baseline.scored) < config.guardrails.min_scored
    if state.phase == "paused" or waits or unheard or any(state.strikes.values()):
        return Decision(state)
    steps = steps_of(state, config)
    if state.step + 1 < len(steps):
        buckets = steps[state.step + 1]
        text = f"step {state.step + 2}: {buckets}% of users, after {users} users in either arm without harm"
        state = replace(state, step=state.step + 1, step_s=seen.now_s, looked_s=seen.now_s, harmless=False)
        return Decision(state, (text,))
    if state.looked_s != seen.now_s:
        return Decision(state)  # only what was looked at now may promote
    tail = config.alpha / _most_looks(config)
    found = dict(_differences(judged, seen))
    if (
        not found
        or set(found) != set(judged)
        or not all(one.bounds(tail)[0] > -config.margin for one in found.values())
    ):
        return Decision(state)
    texts = "; ".join(_said(metric, one, tail) for metric, one in found.items())
    return _end(state, "promoted", "", f"no worse than the margin of {config.margin:.1%}: {texts}")


def pause(state: State, by: str) -> Decision:
    """Hold the step; guardrails and harm still end it."""
    return Decision(state if state.ended else replace(state, phase="paused"), _by(state, by, "paused"))


def resume(state: State, by: str) -> Decision:
    """Go on."""
    return Decision(state if state.ended else replace(state, phase="running"), _by(state, by, "resumed"))


def promote(state: State, by: str) -> Decision:
    """A person's word, whatever the figures say."""
    return Decision(state) if state.ended else _end(state, "promoted", "", f"promoted by {by}")


def abort(state: State, by: str) -> Decision:
    """A person's word; the release is rejected, not in quarantine."""
    return Decision(state) if state.ended else _end(state, "rejected", "", f"aborted by {by}")


def _by(state: State, by: str, what: str) -> tuple[str, ...]:
    return () if state.ended else (f"{what} by {by}",)


def _end(state: State, phase: str, reason: str, text: str) -> Decision:
    return Decision(replace(state, phase=phase, reason=reason), (f"{phase}: {text}",))


def _differences(metrics: Iterable[str], seen: Seen) -> Iterable[tuple[str, Difference]]:
    for metric in metrics:
        ours, theirs = seen.canary.outcomes.get(metric), seen.baseline.outcomes.get(metric)
        found = difference(ours, theirs) if ours is not None and theirs is not None else None
        if found is not None:
            yield metric, found


def _most_looks(config: Rollout) -> int:
    return math.ceil(duration_s(config.max_duration) / duration_s(config.look))


def _users(seen: Seen) -> int:
    """In the smaller arm."""
    return min(seen.canary.users or 0, seen.baseline.users or 0)


def _said(metric: str, one: Difference, tail: float, against: str = "the baseline") -> str:
    low, high = one.bounds(tail)
    return f"{metric} {one.value:+.2%} [{low:+.2%}, {high:+.2%}] against {against}"
