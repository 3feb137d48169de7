"""After a promotion: do people do worse with production than the holdout does, which keeps the release before it?

They are looked at as often, and by the same rule, as in a rollout, for as long as one may take. What is shown is told,
once; a person rolls back, since the holdout is small and what it shows may have other causes than the release.
"""

from dataclasses import dataclass, field, replace

from understudy.rollout.config import Rollout
from understudy.rollout.engagement import Look
from understudy.rollout.judge import harms
from understudy.rollout.state import ArmSeen, Seen, State
from understudy.section import duration_s

__all__ = ["ARMS", "Aftermath"]

ARMS = ("stable", "previous")


@dataclass
class Aftermath:
    """A watch over what was promoted last.

    Args:
        judged: metrics that must not be worse.
        look: at the arms ``ARMS``.
    """

    config: Rollout
    judged: tuple[str, ...]
    look: Look
    _looked_s: float = 0.0
    _told: set[str] = field(default_factory=set)  # rollouts

    def watch(self, last: State, production: str, now_s: float) -> str | None:
        """A look, where it is time for one; in words what is shown to be worse.

        Args:
            last: the rollout that has ended last.
            production: digest; where it is not what was promoted, somebody has rolled back.
        """
        if last.phase != "promoted" or production != last.candidate or last.id in self._told:
            return None
        early = now_s - self._looked_s < duration_s(self.config.look)
        if early or now_s - last.data_s > duration_s(self.config.max_duration):
            return None
        self._looked_s = now_s
        found = self.look(replace(last, step_s=last.data_s), now_s, {arm: ArmSeen() for arm in ARMS})
        seen = Seen(now_s, found["stable"], found["previous"])
        shown = harms(self.config, self.judged, seen, f"{last.stable[:12]}, which the holdout keeps")
        if not shown:
            return None
        self._told.add(last.id)
        return (
            f"production {production[:12]} is shown to be worse: {'; '.join(shown)}; "
            "`understudy releases rollback` takes it back"
        )
