"""Names of the feature views: what building writes and retrieval reads."""

from dataclasses import dataclass

__all__ = ["PROFILES", "VIEWS", "View"]


@dataclass(frozen=True)
class View:
    """A feature view: its table, and the key by which rows are looked up."""

    name: str
    key: str


VIEWS = (
    View("user_history", "user_id"),
    View("item_history", "item_id"),
    View("creator_history", "creator_id"),
    View("topic_history", "topic_id"),
    View("user_profile", "user_id"),
    View("item_profile", "item_id"),
)
PROFILES = ("user_profile", "item_profile")
