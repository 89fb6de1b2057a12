"""Windows of an aggregation: fixed and calendar ones, true across clock changes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from iotflow.domain.times import DAY_MS, HOUR_MS, MINUTE_MS, TimeRange, to_ms
from iotflow.errors import InvalidInputError

MAX_WINDOWS = 10_000
_WINDOW = re.compile(r"([1-9]\d{0,5})(m|h|d|w|mo)", re.ASCII)
_EPOCH_DAY = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Window:
    """`count` of a unit: m, h and d any number, w and mo one."""

    count: int
    unit: str


def parse_window(text: str) -> Window:
    """Raises InvalidInputError for what is no window."""
    match = _WINDOW.fullmatch(text)
    if match is None or (match[2] in ("w", "mo") and match[1] != "1"):
        raise InvalidInputError.of_field(
            "window", "invalid_window", "Send minutes, hours or days (15m, 6h, 1d), 1w or 1mo."
        )
    return Window(int(match[1]), match[2])


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones())


def parse_zone(name: str) -> ZoneInfo:
    """Raises InvalidInputError for what is no IANA time zone."""
    if name not in _zone_names():
        raise InvalidInputError.of_field(
            "timezone", "invalid_timezone", "Send an IANA time zone, for instance Europe/Berlin."
        )
    return ZoneInfo(name)


def edges(window: Window, zone: ZoneInfo, within: TimeRange) -> list[int]:
    """Where windows begin, and where the last one ends, in epoch milliseconds.

    The first edge is the calendar start of the window that holds the range's start; the
    last is not before the range's end.

    Raises:
        InvalidInputError: `too_many_windows`.
    """
    found: list[int] = []
    for edge_ms in _edges_from(window, zone, within.start_ms):
        found.append(edge_ms)
        if edge_ms >= within.end_ms:
            return found
        if len(found) > MAX_WINDOWS:
            break
    raise InvalidInputError.of_field(
        "window",
        "too_many_windows",
        f"The range has more than {MAX_WINDOWS} windows. Ask for longer ones or a shorter range.",
    )


def _edges_from(window: Window, zone: ZoneInfo, start_ms: int) -> Iterator[int]:
    if window.unit in ("m", "h"):
        return _clock_edges(window, zone, start_ms)
    first = datetime.fromtimestamp(start_ms / 1000, UTC).astimezone(zone).date()
    return (_midnight_ms(day, zone) for day in _calendar_days(window, first))


def _clock_edges(window: Window, zone: ZoneInfo, start_ms: int) -> Iterator[int]:
    width_ms = window.count * (MINUTE_MS if window.unit == "m" else HOUR_MS)
    if DAY_MS % width_ms:
        # It does not divide the day, so no midnight can be its origin: count from the epoch.
        return _fixed_edges(start_ms, width_ms)
    return _edges_within_days(width_ms, zone, start_ms)


def _fixed_edges(start_ms: int, width_ms: int) -> Iterator[int]:
    edge_ms = start_ms - start_ms % width_ms
    while True:
        yield edge_ms
        edge_ms += width_ms


def _edges_within_days(width_ms: int, zone: ZoneInfo, start_ms: int) -> Iterator[int]:
    """Edges that restart at each local midnight.

    Up to an hour, windows run on through a clock change (the repeated hour is a window of its
    own). Longer ones keep to the wall clock: 6h begins at 00, 06, 12 and 18 on every day.
    """
    day = datetime.fromtimestamp(start_ms / 1000, UTC).astimezone(zone).date()
    pending: int | None = None
    while True:
        tomorrow_ms = _midnight_ms(day + timedelta(days=1), zone)
        for edge_ms in _edges_of_day(width_ms, zone, day, tomorrow_ms):
            if pending is not None and (edge_ms > start_ms or pending > start_ms):
                yield pending
            pending = edge_ms
        day += timedelta(days=1)


def _edges_of_day(width_ms: int, zone: ZoneInfo, day: date, tomorrow_ms: int) -> Iterator[int]:
    midnight_ms = _midnight_ms(day, zone)
    if width_ms <= HOUR_MS:
        yield from range(midnight_ms, tomorrow_ms, width_ms)
        return
    last_ms = midnight_ms - 1
    for offset_ms in range(0, DAY_MS, width_ms):
        local = datetime(day.year, day.month, day.day, offset_ms // HOUR_MS, tzinfo=zone)
        local += timedelta(milliseconds=offset_ms % HOUR_MS)
        edge_ms = to_ms(local.astimezone(UTC))
        if edge_ms > last_ms:  # a skipped hour has no start of its own
            yield edge_ms
            last_ms = edge_ms


def _calendar_days(window: Window, first: date) -> Iterator[date]:
    if window.unit == "mo":
        year, month = first.year, first.month
        while True:
            yield date(year, month, 1)
            year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    if window.unit == "w":
        start, step = first - timedelta(days=first.weekday()), 7
    else:
        start = first - timedelta(days=(first - _EPOCH_DAY).days % window.count)
        step = window.count
    while True:
        yield start
        start += timedelta(days=step)


def _midnight_ms(day: date, zone: ZoneInfo) -> int:
    """When a local day begins; where midnight is skipped, the first moment after it."""
    return to_ms(datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC))
