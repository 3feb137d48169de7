"""What clients and rank servers report, and the one answer they get. Decisions only, no I/O.

A rank server reports what it *served*; clients report what was *seen* and which *action* was done, with
ids only. All times are microseconds since 1970 on the sender's clock; a batch says when it was sent on
that same clock, so a wrong one is corrected.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

__all__ = ["Action", "Answer", "Batch", "Event", "Item", "Refused", "Seen", "Served", "corrected_us", "decode"]

Id = Annotated[str, Meta(min_length=1, max_length=200)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Micros = Annotated[int, Meta(ge=0, le=4_102_444_800_000_000)]  # to the year 2100
Share = Annotated[float, Meta(ge=0, le=1)]
Place = Annotated[int, Meta(ge=0, le=1_000_000)]
Value = Annotated[float, Meta(ge=-1e300, le=1e300)]  # finite


class Item(Struct, forbid_unknown_fields=True, gc=False):
    """A served candidate: its place from 0, and the probability per head that the release predicted."""

    item_id: Id
    position: Place
    p: Annotated[dict[Name, Share], Meta(max_length=64)] = {}
    propensity: Share | None = None


class Served(Struct, forbid_unknown_fields=True, tag_field="kind", tag="served", gc=False):
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


class Seen(Struct, forbid_unknown_fields=True, tag_field="kind", tag="seen", gc=False):
    """An item came on screen."""

    request_id: Id
    item_id: Id
    at: Micros


class Action(Struct, forbid_unknown_fields=True, tag_field="kind", tag="action", gc=False):
    """Somebody did something with an item; ``value``: 1, or seconds, or what the product measures."""

    request_id: Id
    item_id: Id
    action: Name
    at: Micros
    value: Value = 1.0


Event = Served | Seen | Action


class Refused(Struct):
    """An event that was not taken, by its place in the batch, and why; ``cause`` is for counting."""

    index: int
    reason: str
    cause: str = "form"


class Answer(Struct):
    """How many events are durable, and which were refused."""

    accepted: int
    refused: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one client sends at once. The same ``batch_id`` with the same events again changes nothing.

    Args:
        digest: of the events as they were sent.
        events: in their order; None where one is malformed.
        refused: why those are.
        size: bytes that it came in.
    """

    batch_id: str
    sent_at: int
    digest: bytes
    events: list[Event | None]
    refused: list[Refused]
    size: int


class _Envelope(Struct, forbid_unknown_fields=True):
    batch_id: Id
    sent_at: Micros
    events: msgspec.Raw


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_EVENTS: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[Event])
_RAW_EVENTS = msgspec.json.Decoder(list[msgspec.Raw])
_EVENT: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Event)


def decode(body: bytes) -> Batch:
    """A batch; a malformed event does not harm its neighbours.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError: the body is no batch.
    """
    envelope = _ENVELOPE.decode(body)
    refused: list[Refused] = []
    try:
        events = _EVENTS.decode(envelope.events)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raw = _RAW_EVENTS.decode(envelope.events)
        events = [_event(index, one, refused) for index, one in enumerate(raw)]
    digest = hashlib.blake2b(envelope.events, digest_size=16).digest()
    return Batch(envelope.batch_id, envelope.sent_at, digest, events, refused, len(body))


def _event(index: int, raw: msgspec.Raw, refused: list[Refused]) -> Event | None:
    try:
        found: Event = _EVENT.decode(raw)
        return found
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        refused.append(Refused(index, str(error)[:200]))
        return None


def corrected_us(at: int, sent_at: int, received_us: int, served_us: int = 0) -> int:
    """``at`` on the collector's clock: as long before now as the sender says it was before sending.

    Never after now, and never before the item was served.
    """
    return max(min(received_us - (sent_at - at), received_us), served_us)
