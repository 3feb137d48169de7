"""What clients and rank servers report, and the one answer they get. Decisions only, no I/O.

A rank server reports what it *served*; clients report what was *seen* and which *action* was done, with
ids only. All times are microseconds since 1970 on the sender's clock; a batch says when it was sent on
that same clock, so a wrong one is corrected.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "Action",
    "Answer",
    "Batch",
    "Event",
    "Item",
    "Refused",
    "Seen",
    "Served",
    "corrected_us",
    "decode",
    "events_of",
]

Id = Annotated[str, Meta(min_length=1, max_length=200)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Micros = Annotated[int, Meta(ge=0, le=4_102_444_800_000_000)]  # to the year 2100
Share = Annotated[float, Meta(ge=0, le=1)]
Place = Annotated[int, Meta(ge=0, le=1_000_000)]


class Item(Struct, forbid_unknown_fields=True):
    """A served candidate: its place from 0, and the probability per head that the release predicted."""

    item_id: Id
    position: Place
    p: Annotated[dict[Name, Share], Meta(max_length=64)] = {}
    propensity: Share | None = None


class Served(Struct, forbid_unknown_fields=True, tag_field="kind", tag="served"):
    """What a request was answered with, and by whom."""

    request_id: Id
    user_id: Id
    at: Micros
    items: Annotated[list[Item], Meta(min_length=1, max_length=10_000)]
    candidate_count: Annotated[int, Meta(ge=1, le=10_000_000)]
    surface: Name | None = None
    release: Name | None = None
    arm: Name | None = None
    bucket: Annotated[int, Meta(ge=0, le=99)] | None = None


class Seen(Struct, forbid_unknown_fields=True, tag_field="kind", tag="seen"):
    """An item came on screen."""

    request_id: Id
    item_id: Id
    at: Micros


class Action(Struct, forbid_unknown_fields=True, tag_field="kind", tag="action"):
    """Somebody did something with an item; ``value``: 1, or seconds, or what the product measures."""

    request_id: Id
    item_id: Id
    action: Name
    at: Micros
    value: float = 1.0


Event = Served | Seen | Action


class Batch(Struct, forbid_unknown_fields=True):
    """What one client sends at once. The same ``batch_id`` again changes nothing."""

    batch_id: Id
    sent_at: Micros
    events: list[msgspec.Raw]


class Refused(Struct):
    """An event that was not taken, by its place in the batch, and why."""

    index: int
    reason: str


class Answer(Struct):
    """How many events are durable, and which were refused."""

    accepted: int
    refused: list[Refused]


_BATCH = msgspec.json.Decoder(Batch)
_EVENT: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Event)


def decode(body: bytes) -> Batch:
    """A batch whose events are not looked at yet.

    Raises:
        msgspec.DecodeError: the body is no such JSON.
    """
    return _BATCH.decode(body)


def events_of(batch: Batch) -> tuple[list[tuple[int, Event]], list[Refused]]:
    """Events with their places, and those that are none. A bad event does not harm its neighbours."""
    good: list[tuple[int, Event]] = []
    refused = []
    for index, raw in enumerate(batch.events):
        try:
            good.append((index, _EVENT.decode(raw)))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            refused.append(Refused(index, str(error)[:200]))
    return good, refused


def corrected_us(at: int, sent_at: int, received_us: int, served_us: int = 0) -> int:
    """``at`` on the collector's clock: as long before now as the sender says it was before sending.

    Never after now, and never before the item was served.
    """
    return max(min(received_us - (sent_at - at), received_us), served_us)
