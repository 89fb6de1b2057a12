from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotflow.domain.times import HOUR_MS, TimeRange, to_ms
from iotflow.errors import InvalidInputError
from iotflow.telemetry.windows import edges, parse_window, parse_zone

UTC_ZONE, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")


def at(*parts: int, zone: ZoneInfo = UTC_ZONE) -> int:
    return to_ms(datetime(*parts, tzinfo=zone).astimezone(UTC))  # type: ignore[arg-type]


def local_edges(window: str, zone: ZoneInfo, start: int, end: int) -> list[str]:
    found = edges(parse_window(window), zone, TimeRange(start, end))
    return [
        datetime.fromtimestamp(edge / 1000, UTC).astimezone(zone).strftime("%m-%d %H:%M")
        for edge in found
    ]


def hours(window: str, zone: ZoneInfo, start: int, end: int) -> list[float]:
    found = edges(parse_window(window), zone, TimeRange(start, end))
    return [(after - before) / HOUR_MS for before, after in pairwise(found)]


def test_days_have_23_and_25_hours_when_the_clocks_change() -> None:
    spring = hours("1d", BERLIN, at(2026, 3, 28, zone=BERLIN), at(2026, 3, 31, zone=BERLIN))
    autumn = hours("1d", BERLIN, at(2026, 10, 24, zone=BERLIN), at(2026, 10, 27, zone=BERLIN))
    assert spring == [24, 23, 24]
    assert autumn == [24, 25, 24]


def test_hours_stay_hours_when_one_is_skipped_or_repeated() -> None:
    start, end = at(2026, 10, 25, zone=BERLIN), at(2026, 10, 26, zone=BERLIN)
    assert hours("1h", BERLIN, start, end) == [1] * 25
    start, end = at(2026, 3, 29, zone=BERLIN), at(2026, 3, 30, zone=BERLIN)
    assert hours("1h", BERLIN, start, end) == [1] * 23


def test_six_hours_keep_to_the_wall_clock() -> None:
    start, end = at(2026, 3, 29, zone=BERLIN), at(2026, 3, 30, zone=BERLIN)
    assert local_edges("6h", BERLIN, start, end) == [
        "03-29 00:00",
        "03-29 06:00",
        "03-29 12:00",
        "03-29 18:00",
        "03-30 00:00",
    ]
    assert hours("6h", BERLIN, start, end) == [5, 6, 6, 6]


def test_the_first_window_carries_its_calendar_start() -> None:
    start, end = at(2026, 1, 15, 13, 20), at(2026, 2, 2)
    utc = ZoneInfo("UTC")
    assert local_edges("1w", utc, start, end)[0] == "01-12 00:00", "weeks begin on Monday"
    assert local_edges("1mo", utc, start, end) == ["01-01 00:00", "02-01 00:00", "03-01 00:00"]
    assert local_edges("1h", utc, start, start + HOUR_MS)[0] == "01-15 13:00"
    assert local_edges("15m", utc, start, start + HOUR_MS)[0] == "01-15 13:15"


def test_half_hour_zones_have_their_own_hours() -> None:
    india = ZoneInfo("Asia/Kolkata")
    start = at(2026, 1, 15, 10, 10)  # 15:40 there
    assert local_edges("1h", india, start, start + HOUR_MS)[:2] == ["01-15 15:00", "01-15 16:00"]


def test_where_midnight_is_skipped_the_day_begins_after_it() -> None:
    beirut = ZoneInfo("Asia/Beirut")  # 2026-03-29: 00:00 becomes 01:00
    start, end = at(2026, 3, 28, 12, zone=beirut), at(2026, 3, 30, zone=beirut)
    assert hours("1d", beirut, start, end) == [24, 23]


@given(
    st.sampled_from(["1m", "7m", "15m", "90m", "1h", "5h", "6h", "1d", "3d", "1w", "1mo"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata",
                     "Australia/Lord_Howe", "Asia/Beirut", "America/Sao_Paulo", "Pacific/Apia"]),
    st.integers(0, 2_000_000_000_000),
    st.integers(1, 3 * 86_400_000),
)  # fmt: skip
def test_edges_rise_and_cover_the_range(window: str, zone: str, start: int, length: int) -> None:
    within = TimeRange(start, start + length)
    found = edges(parse_window(window), ZoneInfo(zone), within)
    assert found == sorted(set(found))
    assert found[0] <= within.start_ms < found[1]
    assert found[-2] < within.end_ms <= found[-1]


def test_too_many_windows_are_refused() -> None:
    with pytest.raises(InvalidInputError) as refused:
        edges(parse_window("1m"), ZoneInfo("UTC"), TimeRange(0, 10_001 * 60_000))
    assert refused.value.errors[0].code == "too_many_windows"
    assert len(edges(parse_window("1m"), ZoneInfo("UTC"), TimeRange(0, 10_000 * 60_000))) == 10_001


@pytest.mark.parametrize("text", ["", "0m", "m", "1", "2w", "2mo", "1y", "-1h", "1.5h", "9999999m"])
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(InvalidInputError, match="Send minutes"):
        parse_window(text)


@pytest.mark.parametrize("name", ["Mars/Olympus", "../../etc/passwd", "", "CEST", "europe/berlin"])
def test_what_is_no_zone(name: str) -> None:
    with pytest.raises(InvalidInputError, match="IANA"):
        parse_zone(name)
