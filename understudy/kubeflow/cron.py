"""Cron in a person's time zone, as Kubeflow Pipelines reads it.

Its schedule controller reads every cron in one zone, the installation's (``CRON_SCHEDULE_TIMEZONE``, UTC where nobody
has set it), and knows no ``CRON_TZ=``. It wants six fields, and takes the first of five for seconds; Sunday is 0 only.
"""

import datetime
import re
import zoneinfo
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Cron", "parse", "server_cron"]

_SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}
_TWELVE = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_SEVEN = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = {name: at for at, name in enumerate(_TWELVE, 1)}
_WEEKDAYS = {name: at for at, name in enumerate(_SEVEN)}
_PART = re.compile(r"(\*|\?|\w+)(?:-(\w+))?(?:/(\d{1,4}))?")
_DAY_MINUTES = 24 * 60
_AHEAD_DAYS = 366
_EVER_DAYS = 5 * 366


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: dict[str, int]


_FIELDS = (
    _Field("seconds", 0, 59, {}),
    _Field("minutes", 0, 59, {}),
    _Field("hours", 0, 23, {}),
    _Field("day of month", 1, 31, {}),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _WEEKDAYS),
)
_EVERY_MONTH = frozenset(range(1, 13))


@dataclass(frozen=True)
class Cron:
    """Wall-clock times. Where both the day of month and the day of week are restricted, either will do.

    Args:
        fields: the six texts: seconds, minutes, hours, day of month, month, day of week.
        weekdays: 0 is Sunday.
    """

    fields: tuple[str, ...]
    second: int
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    @property
    def text(self) -> str:
        return " ".join(self.fields)

    @property
    def any_day(self) -> bool:
        return self.fields[3][0] in "*?"

    @property
    def any_weekday(self) -> bool:
        return self.fields[5][0] in "*?"

    def on(self, day: datetime.date) -> bool:
        """Whether there are times on that day."""
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        either = by_day and by_weekday if self.any_day or self.any_weekday else by_day or by_weekday
        return day.month in self.months and either

    def next(self, after: datetime.datetime, zone: zoneinfo.ZoneInfo) -> datetime.datetime | None:
        """The first time after a moment, in a zone; None: not within five years. An hour that clocks skip has none."""
        first = after.astimezone(zone).date()
        for ahead in range(_EVER_DAYS):
            day = first + datetime.timedelta(days=ahead)
            if not self.on(day):
                continue
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    moment = datetime.datetime(day.year, day.month, day.day, hour, minute, self.second, tzinfo=zone)
                    utc = moment.astimezone(datetime.UTC)
                    if utc > after and utc.astimezone(zone).hour == hour:
                        return moment
        return None


def parse(text: str) -> Cron:
    """Read five fields, or six with the seconds first.

    Raises:
        ValueError: says which field, what was expected and what was found.
    """
    if re.match(r"(CRON_)?TZ=", text):
        raise ValueError(f"cron: expected no time zone in it, found {text!r}; time_zone says it")
    fields = _SHORT.get(text, text).split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise ValueError(
            f"cron: expected five fields (minute, hour, day of month, month, day of week) or six with seconds first, "
            f"found {text!r}"
        )
    values = [_values(one, field) for one, field in zip(fields, _FIELDS, strict=True)]
    if len(values[0]) != 1:
        raise ValueError(f"cron: expected one second, found {fields[0]!r} in {text!r}")
    if 7 in values[5]:
        values[5] = frozenset(day % 7 for day in values[5])
        fields[5] = fields[5] if fields[5][0] in "*?" else _text(values[5], 0, 6)
    (second,) = values[0]
    cron = Cron(tuple(fields), second, *values[1:])
    if cron.next(datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), zoneinfo.ZoneInfo("UTC")) is None:
        raise ValueError(f"cron: expected a time that comes, found {text!r}, which has none")
    return cron


def _values(text: str, field: _Field) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span = _span(part, field)
        if span is None:
            raise ValueError(
                f"cron: {field.name}: expected numbers from {field.low} to {field.high} as in 1,3-5 or */2, "
                f"found {text!r}"
            )
        found.update(span)
    return frozenset(found)


def _span(part: str, field: _Field) -> range | None:
    """The numbers of ``*``, ``3``, ``3-5``, and of these with a step; None: it is none of them."""
    match = _PART.fullmatch(part)
    if match is None:
        return None
    first, last, step = match[1], match[2], int(match[3] or 1)
    if first in ("*", "?"):
        low, high = (field.low, 6 if field.names is _WEEKDAYS else field.high) if last is None else (None, None)
    else:
        low = _number(first, field)
        high = _number(last, field) if last else field.high if match[3] else low
    fits = low is not None and high is not None and low <= high and step > 0
    return range(low, high + 1, step) if fits else None  # type: ignore[operator,arg-type]


def _number(text: str, field: _Field) -> int | None:
    value = field.names.get(text.lower(), int(text) if text.isdecimal() else -1)
    return value if field.low <= value <= field.high else None


def _text(values: frozenset[int], low: int, high: int) -> str:
    """Values as a field: ``*``, or numbers and ranges of three and more."""
    if len(values) == high - low + 1:
        return "*"
    ordered, parts = sorted(values), []
    while ordered:
        length = next((at for at, one in enumerate(ordered) if one != ordered[0] + at), len(ordered))
        length = length if length > 2 else 1
        parts.append(str(ordered[0]) if length == 1 else f"{ordered[0]}-{ordered[length - 1]}")
        ordered = ordered[length:]
    return ",".join(parts)


def server_cron(text: str, zone: str, server_zone: str, now: datetime.datetime) -> tuple[str, str]:
    """A cron of one zone as six fields of the server's zone, and what must be said of it.

    A difference that does not change is moved into hours, minutes and days of the week. Where clocks change in one zone
    and not in the other, today's difference is taken, and the note says from which day on it is another.

    Raises:
        ValueError: no single cron of the server's zone has those times; says what to do.
    """
    cron = parse(text)
    if zone == server_zone:
        return cron.text, ""
    shift = _shift(zone, server_zone, now)
    moved = _moved(cron, shift, zone, server_zone)
    today = now.astimezone(zoneinfo.ZoneInfo(zone)).date()
    for day in (today + datetime.timedelta(days=ahead) for ahead in range(1, _AHEAD_DAYS + 1)):
        noon = datetime.datetime.combine(day, datetime.time(12), zoneinfo.ZoneInfo(zone))
        other = _shift(zone, server_zone, noon)
        if other != shift and _moved_or_none(cron, other, zone, server_zone) != moved:
            word = "later" if other < shift else "earlier"
            return moved, (
                f"clocks change in {zone}: from {day} on it runs {abs(other - shift)} minutes {word}; "
                "give `understudy schedule apply` again then"
            )
    return moved, ""


def _shift(zone: str, server_zone: str, now: datetime.datetime) -> int:
    """Minutes to add to a zone's wall clock to get the server's."""
    here, there = (now.astimezone(zoneinfo.ZoneInfo(one)).utcoffset() for one in (zone, server_zone))
    assert here is not None, "an aware time has an offset"
    assert there is not None, "an aware time has an offset"
    return int((there - here).total_seconds()) // 60


def _moved(cron: Cron, shift: int, zone: str, server_zone: str) -> str:
    by_day: dict[int, set[tuple[int, int]]] = {}
    every_day = cron.any_day and cron.any_weekday and cron.months == _EVERY_MONTH
    for minute in (hour * 60 + minute for hour in cron.hours for minute in cron.minutes):
        day, rest = divmod(minute + shift, _DAY_MINUTES)
        by_day.setdefault(0 if every_day else day, set()).add(divmod(rest, 60))
    day, times = next(iter(by_day.items()))
    hours, minutes = frozenset(h for h, _ in times), frozenset(m for _, m in times)
    fits = len(by_day) == 1 and len(hours) * len(minutes) == len(times)
    if not fits or (day and not (cron.any_day and cron.months == _EVERY_MONTH)):
        raise ValueError(
            f"cron: expected times that one cron of {server_zone} can say, found {cron.text!r} in {zone}; "
            f"choose other hours, write it in time_zone {server_zone}, or set pipeline.cron_zone to the zone of your "
            "installation (CRON_SCHEDULE_TIMEZONE of its ml-pipeline-scheduledworkflow)"
        )
    fields = list(cron.fields)
    if minutes != cron.minutes:
        fields[1] = _text(minutes, 0, 59)
    if hours != cron.hours:
        fields[2] = _text(hours, 0, 23)
    if day and not cron.any_weekday:
        fields[5] = _text(frozenset((one + day) % 7 for one in cron.weekdays), 0, 6)
    return " ".join(fields)


def _moved_or_none(cron: Cron, shift: int, zone: str, server_zone: str) -> str | None:
    try:
        return _moved(cron, shift, zone, server_zone)
    except ValueError:
        return None
