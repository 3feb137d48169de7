"""What the configuration says of features."""

from dataclasses import replace

from understudy.features.views import CROSSES
from understudy.section import duration_s, number, section

__all__ = ["Features"]

_MAX_HALF_LIVES = 900


@section
class Features:
    """How features are counted, and how fresh serving reads them.

    Args:
        refresh: how often features are refreshed: ``event`` (at once), or a duration that divides
            a day. Training sees exactly what serving could have read.
        half_lives: counters forget with these half-lives.
        history: events older than this before the window are not counted.
        recent_events: length of the user's event sequence.
        max_surfaces: counters per surface, for the most frequent surfaces.
        crosses: counters of each user with each ``creator``, ``topic`` or both: worth their room where people
            meet the same ones again and again.
    """

    refresh: str = "1h"
    half_lives: tuple[str, ...] = ("1d", "14d")
    history: str = "56d"
    recent_events: int = number(50, low=1, high=1000)
    max_surfaces: int = number(16, low=1, high=256)
    crosses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.refresh != "event" and 86400 % max(1, duration_s(self.refresh)):
            raise ValueError(f"refresh: expected event, or a duration that divides a day, found {self.refresh!r}")
        if len(set(self.crosses) & set(CROSSES)) != len(self.crosses):
            raise ValueError(f"crosses: expected some of {', '.join(CROSSES)}, each once, found {list(self.crosses)}")
        if not self.half_lives:
            raise ValueError("half_lives: expected at least one duration, found none")
        for text in (*self.half_lives, self.history):
            if duration_s(text) < 1:
                raise ValueError(f"half_lives, history: expected durations above zero, found {text!r}")

        shortest = min(duration_s(text) for text in self.half_lives)
        if duration_s(self.history) > _MAX_HALF_LIVES * shortest:
            raise ValueError(
                f"history: expected at most {_MAX_HALF_LIVES} of the shortest half-life, found {self.history!r}; "
                "older events have no weight left"
            )

    def united(self, other: "Features") -> "Features":
        """These features and what another configuration has beside them, for a model that reads those.

        What both count stays as it is here: refresh, history, surfaces. A half-life too short for the history is
        left out.
        """
        shortest = duration_s(self.history) / _MAX_HALF_LIVES
        fitting = [text for text in other.half_lives if duration_s(text) >= shortest]
        return replace(
            self,
            # The last half-life is that of the counters per surface.
            half_lives=tuple(dict.fromkeys([*(h for h in fitting if h not in self.half_lives), *self.half_lives])),
            recent_events=max(self.recent_events, other.recent_events),
            crosses=tuple(cross for cross in CROSSES if cross in (*self.crosses, *other.crosses)),
        )

    def refresh_s(self) -> int:
        """Seconds between refreshes; 0 for ``event``."""
        return 0 if self.refresh == "event" else duration_s(self.refresh)
