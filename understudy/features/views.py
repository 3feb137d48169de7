"""Names of the feature views: what building writes and retrieval reads."""

from dataclasses import dataclass

__all__ = ["CROSSES", "HISTORIES", "PROFILES", "VIEWS", "View", "cross_view", "views_of"]


@dataclass(frozen=True)
class View:
    """A feature view: its table, and the keys by which rows are looked up."""

    name: str
    keys: tuple[str, ...]


HISTORIES = ("user_history", "item_history", "creator_history", "topic_history")
CROSSES = ("creator", "topic")
PROFILES = ("user_profile", "item_profile")


def cross_view(cross: str) -> str:
    """The view that counts what a user did with each creator or topic."""
    return f"user_{cross}_history"


VIEWS = {
    **{name: View(name, (f"{name.removesuffix('_history')}_id",)) for name in HISTORIES},
    **{cross_view(cross): View(cross_view(cross), ("user_id", f"{cross}_id")) for cross in CROSSES},
    **{name: View(name, (f"{name.removesuffix('_profile')}_id",)) for name in PROFILES},
}


def views_of(crosses: tuple[str, ...]) -> tuple[View, ...]:
    """The views of a configuration: histories, crosses, profiles."""
    return tuple(VIEWS[name] for name in (*HISTORIES, *map(cross_view, crosses), *PROFILES))
