import pytest

from iotflow.domain.times import (
    InvalidTimeError,
    format_ms,
    parse_integer_time,
    parse_query_time,
    parse_rfc3339,
)

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T00:00:00Z", NOW_MS),
        ("2026-01-01t00:00:00z", NOW_MS),
        ("2026-01-01 00:00:00Z", NOW_MS),
        ("2026-01-01T01:00:00+01:00", NOW_MS),
        ("2025-12-31T18:30:00-05:30", NOW_MS),
        ("2026-01-01T00:00:00.5Z", NOW_MS + 500),
        ("2026-01-01T00:00:00.123999999Z", NOW_MS + 123),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_rfc3339_becomes_milliseconds(text: str, expected: int) -> None:
    assert parse_rfc3339(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2026-01-01T00:00:00", "offset"),
        ("2026-01-01", "not a time"),
        ("20260101T000000Z", "not a time"),
        ("2026-W01-1T00:00:00Z", "not a time"),
        ("2026-02-30T00:00:00Z", "no such day"),
        ("2026-01-01T25:00:00Z", "no such day"),
        ("2026-01-01T00:00:00+24:00", "no such day"),
        ("1969-12-31T23:59:59Z", "1970"),
        ("٢٠٢٦-01-01T00:00:00Z", "not a time"),
        ("", "not a time"),
    ],
)
def test_what_is_no_time_is_refused_with_a_reason(text: str, says: str) -> None:
    with pytest.raises(InvalidTimeError, match=says):
        parse_rfc3339(text)


def test_seconds_are_refused_where_milliseconds_belong() -> None:
    assert parse_integer_time(NOW_MS) == NOW_MS
    with pytest.raises(InvalidTimeError, match="milliseconds"):
        parse_integer_time(NOW_MS // 1000)
    with pytest.raises(InvalidTimeError, match="9999"):
        parse_integer_time(10**15)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW_MS),
        ("-24h", NOW_MS - 86_400_000),
        ("-15m", NOW_MS - 900_000),
        ("-7d", NOW_MS - 7 * 86_400_000),
        ("-30s", NOW_MS - 30_000),
        (str(NOW_MS), NOW_MS),
        ("2026-01-01T01:00:00+01:00", NOW_MS),
        ("2026-01-01T01:00:00 01:00", NOW_MS),
        ("-999999999w", 0),
    ],
)
def test_query_times(text: str, expected: int) -> None:
    assert parse_query_time(text, NOW_MS) == expected


@pytest.mark.parametrize("text", ["yesterday", "-5y", "24h", "-h", "1767225600", "+24h", "−24h"])
def test_query_times_that_are_none(text: str) -> None:
    with pytest.raises(InvalidTimeError, match="Send RFC 3339"):
        parse_query_time(text, NOW_MS)


def test_times_go_out_in_utc_with_milliseconds() -> None:
    assert format_ms(NOW_MS + 7) == "2026-01-01T00:00:00.007Z"
    assert format_ms(0) == "1970-01-01T00:00:00.000Z"
    assert parse_rfc3339(format_ms(NOW_MS + 999)) == NOW_MS + 999
