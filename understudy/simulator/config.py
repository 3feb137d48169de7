"""What the configuration says of the simulated world."""

from understudy.section import number, section

__all__ = ["World"]


@section
class World:
    """A feed whose truth is known.

    Args:
        users: who exist on the first day.
        new_users_per_day: who join on each later day.
        creators, topics: who makes items, and what they are about.
        new_items_per_day: items that are born each day.
        item_life: days for which an item is a candidate.
        requests_per_day: on an average day; weekends have more.
        candidates: items that a request's ranker chooses from.
        slots: items that a request shows at most.
        shift_day: day (from 0) on which a share of the users turn to other topics at once; None: never.
        shift_share: that share.
        first_day: the calendar day of day 0.
        seed: another seed is another world.
    """

    users: int = number(3_000, low=10)
    new_users_per_day: int = number(40, low=0)
    creators: int = number(150, low=2)
    topics: int = number(24, low=2)
    new_items_per_day: int = number(120, low=1)
    item_life: int = number(10, low=1)
    requests_per_day: int = number(2_000, low=1)
    candidates: int = number(200, low=2)
    slots: int = number(16, low=1)
    shift_day: int | None = number(None, low=0)
    shift_share: float = number(0.6, low=0, high=1)
    first_day: str = "2026-01-05"
    seed: int = 0
