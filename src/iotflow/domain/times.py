"""Time as IoTFlow reads and writes it: epoch milliseconds inside, RFC 3339 outside."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

MAX_TIMESTAMP_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z, the last that RFC 3339 can say
MIN_INTEGER_MS = (
    10**11
)  # an integer below this is seconds: in milliseconds it would be before 1973-03

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?([Zz]|[+-]\d\d:\d\d)?", re.ASCII
)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_RELATIVE = re.compile(r"-(\d{1,9})([smhdw])", re.ASCII)
_UNIT_MS = {"s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}

HOW_TO_SEND = (
    "Send RFC 3339 with an offset (2026-01-31T14:30:00Z) or an integer of epoch milliseconds."
)


class InvalidTimeError(ValueError):
    """A time that cannot be used; the message says what to send."""


@dataclass(frozen=True, slots=True)
class TimeRange:
    """[start, end) in epoch milliseconds."""

    start_ms: int
    end_ms: int

    @property
    def length_ms(self) -> int:
        return self.end_ms - self.start_ms


def parse_integer_time(value: int) -> int:
    """Epoch milliseconds as sent.

    Raises:
        InvalidTimeError: for seconds, and for what lies outside of the calendar.
    """
    if value < MIN_INTEGER_MS:
        raise InvalidTimeError(f"This integer is too small to be epoch milliseconds. {HOW_TO_SEND}")
    if value > MAX_TIMESTAMP_MS:
        raise InvalidTimeError(f"This time lies after the year 9999. {HOW_TO_SEND}")
    return value


def parse_rfc3339(text: str) -> int:
    """Epoch milliseconds of an RFC 3339 time; finer than a millisecond is cut.

    Raises:
        InvalidTimeError: where it is none, has no offset or lies before 1970.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise InvalidTimeError(f"This is not a time. {HOW_TO_SEND}")
    if match[1] is None:
        raise InvalidTimeError(f"This time has no offset from UTC. {HOW_TO_SEND}")
    try:
        milliseconds = (datetime.fromisoformat(text.upper()) - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        raise InvalidTimeError(f"There is no such day, hour or offset. {HOW_TO_SEND}") from None
    if not 0 <= milliseconds <= MAX_TIMESTAMP_MS:
        raise InvalidTimeError("Times from 1970 to 9999 are stored.")
    return milliseconds


def parse_query_time(text: str, now_ms: int) -> int:
    """A time in a query: as in bodies, or `now`, or relative to it (`-24h`, `-15m`, `-7d`).

    A space where an offset's plus belongs is read as the plus: that is what
    an unescaped `+` in a URL becomes.

    Raises:
        InvalidTimeError: with what to send.
    """
    if text == "now":
        return now_ms
    if relative := _RELATIVE.fullmatch(text):
        return max(0, now_ms - int(relative[1]) * _UNIT_MS[relative[2]])
    if _INTEGER.fullmatch(text):
        return parse_integer_time(int(text))
    if len(text) > 6 and text[-6] == " ":
        text = f"{text[:-6]}+{text[-5:]}"
    try:
        return parse_rfc3339(text)
    except InvalidTimeError as error:
        raise InvalidTimeError(f"{error} Relative times work too: -24h, -15m, -7d, now.") from None


def format_ms(timestamp_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds and `Z`."""
    days, of_day_ms = divmod(timestamp_ms, DAY_MS)
    minute, second = _MINUTES[of_day_ms // MINUTE_MS], _SECONDS[of_day_ms // SECOND_MS % 60]
    return f"{_format_day(days)}{minute}{second}{_MILLISECONDS[of_day_ms % SECOND_MS]}"


# Pages of history hold many times, hardly any of them twice: looked up by their parts.
_MINUTES = [f"T{minute // 60:02d}:{minute % 60:02d}:" for minute in range(24 * 60)]
_SECONDS = [f"{second:02d}." for second in range(60)]
_MILLISECONDS = [f"{millisecond:03d}Z" for millisecond in range(1000)]


@lru_cache(maxsize=1024)
def _format_day(days: int) -> str:
    return (_EPOCH + timedelta(days=days)).strftime("%Y-%m-%d")


def to_ms(moment: datetime) -> int:
    """Epoch milliseconds of an aware datetime, cut."""
    return (moment - _EPOCH) // _MILLISECOND


def from_ms(timestamp_ms: int) -> datetime:
    """The aware UTC datetime of epoch milliseconds."""
    return _EPOCH + timedelta(milliseconds=timestamp_ms)
