"""Times as CSV files write them."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone

from iotflow.domain.times import MAX_TIMESTAMP_MS, MIN_INTEGER_MS
from iotflow.errors import ConfigurationError

EPOCH_SECONDS = "epoch-seconds"

ParsedTime = int | datetime
"""Epoch milliseconds where a time says its offset; else a naive local time."""

TimeParser = Callable[[str], ParsedTime]
"""Raises UnknownTimeError."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CLOCK = r"(?:[T ]\s*(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?"
_OFFSET = r"\s*(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?"
_YEAR_FIRST = re.compile(
    rf"(\d{{4}})([-/.])(\d{{1,2}})\2(\d{{1,2}}){_CLOCK}{_OFFSET}", re.ASCII | re.IGNORECASE
)
_DAY_FIRST = re.compile(
    rf"(\d{{1,2}})\.(\d{{1,2}})\.(\d{{4}}){_CLOCK}{_OFFSET}", re.ASCII | re.IGNORECASE
)
_INTEGER = re.compile(r"\d{1,18}", re.ASCII)
_DECIMAL = re.compile(r"-?\d{1,18}(?:\.\d{1,9})?", re.ASCII)
_EITHER_WAY = re.compile(r"\d{1,2}[/-]\d{1,2}[/-]\d{2,4}\b.*", re.ASCII)
_HOUR_ALONE = re.compile(r"\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?", re.ASCII)


class UnknownTimeError(ValueError):
    """Text that is no usable time; the message says what would help."""


def parser_for(time_format: str | None) -> TimeParser:
    """How to read the times of a file.

    Raises:
        ConfigurationError: the format is none.
    """
    if time_format is None:
        return parse_common
    if time_format == EPOCH_SECONDS:
        return _parse_seconds
    try:
        then = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
        datetime.strptime(then.strftime(time_format), time_format)  # noqa: DTZ007 - only tried
    except (ValueError, re.error):
        raise ConfigurationError(
            "--time-format: not a format that strptime reads, such as '%d.%m.%Y %H:%M'."
        ) from None
    return lambda text: _parse_format(text, time_format)


def parse_common(text: str) -> ParsedTime:
    """A time in a form that can be read in one way only.

    ISO 8601 with `T` or a space, `-`, `/` or `.` in the date, the clock optional; day first
    where dots divide it (31.12.2010); an integer of epoch milliseconds.

    Raises:
        UnknownTimeError: none of these.
    """
    if match := _YEAR_FIRST.fullmatch(text):
        year, _, month, day, *rest = match.groups()
        return _assemble(year, month, day, rest)
    if match := _DAY_FIRST.fullmatch(text):
        day, month, year, *rest = match.groups()
        return _assemble(year, month, day, rest)
    if _INTEGER.fullmatch(text):
        return _milliseconds(int(text))
    raise UnknownTimeError(_advice(text))


def is_clock_alone(text: str) -> bool:
    """Whether it is a time of day without a date."""
    return _HOUR_ALONE.fullmatch(text) is not None


def is_date_alone(text: str) -> bool:
    """Whether it is a date without a time of day."""
    return ":" not in text and not _INTEGER.fullmatch(text) and _is_time(text)


def _is_time(text: str) -> bool:
    try:
        parse_common(text)
    except UnknownTimeError:
        return False
    return True


def _assemble(year: str, month: str, day: str, rest: list[str | None]) -> ParsedTime:
    hour, minute, second, fraction, offset = rest
    # 24:00 is how many loggers write the end of a day (ISO 8601 has it too).
    ends_day = hour == "24" and int(minute or 0) == 0 and int(second or 0) == 0
    try:
        clock = time(
            0 if ends_day else int(hour or 0),
            int(minute or 0),
            int(second or 0),
            int((fraction or "0")[:3].ljust(3, "0")) * 1000,
        )
        moment = datetime.combine(date(int(year), int(month), int(day)), clock)
        moment += timedelta(days=ends_day)
        return moment if offset is None else _in_range_ms(moment, _offset(offset))
    except (ValueError, OverflowError):
        raise UnknownTimeError("There is no such day, hour or offset.") from None


def _offset(text: str) -> timezone:
    if text.upper() in ("Z", "UTC", "GMT"):
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    delta = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-delta if text[0] == "-" else delta)


def _in_range_ms(naive: datetime, zone: timezone) -> int:
    return check_range((naive.replace(tzinfo=zone) - _EPOCH) // timedelta(milliseconds=1))


def check_range(timestamp_ms: int) -> int:
    """The timestamp itself.

    Raises:
        UnknownTimeError: IoTFlow does not store such a time.
    """
    if not 0 <= timestamp_ms <= MAX_TIMESTAMP_MS:
        raise UnknownTimeError("Times from 1970 to 9999 are stored.")
    return timestamp_ms


def _milliseconds(number: int) -> int:
    if number < MIN_INTEGER_MS:
        raise UnknownTimeError(
            "This integer is too small to be epoch milliseconds. For seconds give "
            f"--time-format {EPOCH_SECONDS}."
        )
    return check_range(number)


def _parse_seconds(text: str) -> int:
    if not _DECIMAL.fullmatch(text):
        raise UnknownTimeError("This is not a number of epoch seconds.")
    seconds, _, fraction = text.partition(".")
    return check_range(int(seconds) * 1000 + int(fraction[:3].ljust(3, "0")))


def _parse_format(text: str, time_format: str) -> ParsedTime:
    try:
        moment = datetime.strptime(text, time_format)  # noqa: DTZ007 - naive until its zone is known
        if moment.tzinfo is None:
            return moment
        return check_range((moment - _EPOCH) // timedelta(milliseconds=1))
    except UnknownTimeError:
        raise
    except (ValueError, OverflowError):
        raise UnknownTimeError("This time is not as --time-format says.") from None


def _advice(text: str) -> str:
    if _EITHER_WAY.fullmatch(text):
        return (
            "Day first or month first? Give --time-format, such as '%d/%m/%Y %H:%M' or "
            "'%m/%d/%Y %H:%M'."
        )
    return "This is not a time that is known. Give --time-format, such as '%Y%m%d %H%M'."
