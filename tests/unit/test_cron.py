"""Cron in a person's zone, as Kubeflow Pipelines reads it: the same instants, or an error that says what to do."""

import datetime
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.kubeflow.cron import parse, server_cron

NOW = datetime.datetime(2026, 11, 27, 12, tzinfo=datetime.UTC)
UTC = zoneinfo.ZoneInfo("UTC")

MOVED = {
    "five fields get their seconds": ("0 3 * * 1", "UTC", "UTC", "0 0 3 * * 1"),
    "six stay": ("30 0 3 * * 1", "UTC", "UTC", "30 0 3 * * 1"),
    "Sunday is 0": ("0 3 * * 7", "UTC", "UTC", "0 0 3 * * 0"),
    "a range over Sunday": ("0 3 * * 5-7", "UTC", "UTC", "0 0 3 * * 0,5,6"),
    "a word": ("@weekly", "UTC", "UTC", "0 0 0 * * 0"),
    "the same zone is left to the server": ("0 3 1 * *", "Europe/Berlin", "Europe/Berlin", "0 0 3 1 * *"),
    "the day before": ("0 3 * * 1", "Asia/Shanghai", "UTC", "0 0 19 * * 0"),
    "the day after": ("30 20 * * sat", "Pacific/Honolulu", "UTC", "0 30 6 * * 0"),
    "half an hour": ("5 * * * *", "Asia/Kolkata", "UTC", "0 35 * * * *"),
    "every quarter": ("*/15 * * * *", "Asia/Shanghai", "UTC", "0 */15 * * * *"),
    "several hours of every day": ("0 4,20 * * *", "Asia/Shanghai", "UTC", "0 0 12,20 * * *"),
    "a day of the month that stays": ("0 9 1 * *", "Asia/Tokyo", "UTC", "0 0 0 1 * *"),
    "into a zone of the server": ("0 3 * * 1", "UTC", "Asia/Tokyo", "0 0 12 * * 1"),
    "working days": ("0 0 * * mon-fri", "Asia/Tokyo", "UTC", "0 0 15 * * 0-4"),
}


@pytest.mark.parametrize(("text", "zone", "server", "expected"), MOVED.values(), ids=MOVED.keys())
def test_the_server_is_given_its_own_wall_clock(text: str, zone: str, server: str, expected: str) -> None:
    assert server_cron(text, zone, server, NOW) == (expected, "")


REFUSED = {
    "the first of the month is another day there": ("0 3 1 * *", "Asia/Tokyo", "set pipeline.cron_zone to the zone"),
    "Monday's hours fall on two days": ("0 1,12 * * 1", "Asia/Tokyo", "expected times that one cron of UTC can say"),
    "minutes that part company": ("0,45 3,9 * * 1", "Asia/Kolkata", "expected times that one cron of UTC can say"),
}


@pytest.mark.parametrize(("text", "zone", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_what_no_single_cron_can_say_is_refused(text: str, zone: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        server_cron(text, zone, "UTC", NOW)


def test_where_clocks_change_the_day_is_told() -> None:
    cron, note = server_cron("0 3 * * 1", "Europe/Berlin", "UTC", NOW)
    assert cron == "0 0 2 * * 1"
    assert note == (
        "clocks change in Europe/Berlin: from 2027-03-28 on it runs 60 minutes later; "
        "give `understudy schedule apply` again then"
    )
    summer = datetime.datetime(2027, 4, 1, tzinfo=datetime.UTC)
    cron, note = server_cron("0 3 * * 1", "Europe/Berlin", "UTC", summer)
    assert cron == "0 0 1 * * 1"
    assert "from 2027-10-31 on it runs 60 minutes earlier" in note


def test_where_a_change_of_clocks_moves_nothing_nothing_is_said() -> None:
    assert server_cron("*/15 * * * *", "Europe/Berlin", "UTC", NOW) == ("0 */15 * * * *", "")


BAD = {
    "no fields": ("", "expected five fields"),
    "four": ("0 3 * *", "expected five fields"),
    "a zone": ("CRON_TZ=Europe/Berlin 0 3 * * 1", "expected no time zone in it"),
    "an hour too many": ("0 24 * * *", "hours: expected numbers from 0 to 23"),
    "a word that is none": ("0 3 * * someday", "day of week: expected numbers from 0 to 7"),
    "backwards": ("0 5-3 * * *", "hours: expected numbers"),
    "no step": ("*/0 * * * *", "minutes: expected numbers"),
    "no number": ("0 3 - * *", "day of month: expected numbers"),
    "each second": ("* * * * * *", "expected one second"),
    "a day that never comes": ("0 3 31 2 *", "expected a time that comes"),
    "every so often": ("@every 1h", "expected five fields"),
}


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD.keys())
def test_a_cron_that_is_none_is_one_clear_line(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_the_next_time_is_known() -> None:
    assert parse("0 3 * * 1").next(NOW, UTC) == datetime.datetime(2026, 11, 30, 3, tzinfo=UTC)
    assert parse("0 3 * * 1").next(datetime.datetime(2026, 11, 30, 3, tzinfo=UTC), UTC) == datetime.datetime(
        2026, 12, 7, 3, tzinfo=UTC
    )  # the next, not this one
    either = parse("0 0 13 * 5").next(NOW, UTC)  # the 13th, or a Friday
    assert either == datetime.datetime(2026, 12, 4, tzinfo=UTC)
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    spring = datetime.datetime(2027, 3, 27, 12, tzinfo=datetime.UTC)
    skipped = parse("30 2 * * *").next(spring, berlin)  # clocks go from 2 to 3 on the 28th
    assert skipped is not None
    assert skipped.day == 29


hours = st.lists(st.integers(0, 23), min_size=1, max_size=3).map(lambda one: ",".join(map(str, one)))
weekdays = st.one_of(
    st.just("*"), st.lists(st.integers(0, 7), min_size=1, max_size=3).map(lambda o: ",".join(map(str, o)))
)
zones = st.sampled_from(["Asia/Shanghai", "Asia/Kolkata", "Pacific/Honolulu", "Asia/Kathmandu", "Africa/Lagos", "UTC"])


@given(st.integers(0, 59), hours, weekdays, zones, zones)
def test_a_cron_that_was_moved_comes_at_the_same_instants(
    minute: int, hour: str, day: str, zone: str, server: str
) -> None:
    text = f"{minute} {hour} * * {day}"
    try:
        moved, note = server_cron(text, zone, server, NOW)
    except ValueError:
        return
    assert note == ""
    here, there, at = parse(text), parse(moved), NOW
    for _ in range(20):
        mine, theirs = here.next(at, zoneinfo.ZoneInfo(zone)), there.next(at, zoneinfo.ZoneInfo(server))
        assert mine is not None
        assert theirs is not None
        assert mine.astimezone(datetime.UTC) == theirs.astimezone(datetime.UTC)
        at = mine.astimezone(datetime.UTC)
