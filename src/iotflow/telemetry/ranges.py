"""The range of a query: resolved once, then carried by its cursor."""

from typing import TypeVar

import msgspec

from iotflow.domain.clock import DeviceClock
from iotflow.domain.times import DAY_MS, InvalidTimeError, TimeRange, parse_query_time
from iotflow.errors import InvalidInputError
from iotflow.http.pagination import Cursors

MAX_DAYS = 366

K = TypeVar("K")


class Position(msgspec.Struct, frozen=True):
    """What a cursor carries: the resolved range, how it was written, and the page's last key."""

    start_ms: int
    end_ms: int
    start_time: str | None
    end_time: str | None
    after: msgspec.Raw


def resolve_range(
    start_time: str | None, end_time: str | None, now_ms: int, default_start: str = "-24h"
) -> TimeRange:
    """[start, end) of a query's two parameters.

    `now` takes in whatever the service has stamped until now, and those stamps may run up
    to DeviceClock.MAX_AHEAD_MS ahead: who has sent something finds it at once.

    Raises:
        InvalidInputError: what is no time, an empty range, or one of over 366 days.
    """
    end_ms = _time("end_time", end_time or "now", now_ms)
    start_ms = _time("start_time", start_time or default_start, now_ms)
    if start_ms >= end_ms:
        raise InvalidInputError.of_field(
            "start_time", "empty_range", "start_time must lie before end_time."
        )
    if end_ms - start_ms > MAX_DAYS * DAY_MS:
        raise InvalidInputError.of_field(
            "start_time", "range_too_long", f"A query spans at most {MAX_DAYS} days."
        )
    if end_time in (None, "now"):
        end_ms += DeviceClock.MAX_AHEAD_MS + 1
    return TimeRange(start_ms, end_ms)


def _time(field: str, text: str, now_ms: int) -> int:
    try:
        return parse_query_time(text, now_ms)
    except InvalidTimeError as error:
        raise InvalidInputError.of_field(field, "invalid_time", str(error)) from None


class RangeCursors:
    """Cursors that carry a resolved range, so that `-24h` means the same on every page."""

    def __init__(self, cursors: Cursors) -> None:
        self._cursors = cursors

    def encode(
        self,
        query: object,
        within: TimeRange,
        start_time: str | None,
        end_time: str | None,
        after: object,
    ) -> str:
        raw = msgspec.Raw(msgspec.json.encode(after))
        return self._cursors.encode(
            query, Position(within.start_ms, within.end_ms, start_time, end_time, raw)
        )

    def decode(
        self,
        query: object,
        cursor: str,
        start_time: str | None,
        end_time: str | None,
        kind: type[K],
    ) -> tuple[TimeRange, Position, K]:
        """The range and page key of a cursor. Its range parameters may be repeated or left out.

        Raises:
            InvalidInputError: the cursor belongs to another query.
        """
        position = self._cursors.decode(query, cursor, Position)
        repeated = start_time in (None, position.start_time)
        if not (repeated and end_time in (None, position.end_time)):
            raise InvalidInputError.of_field(
                "cursor",
                "invalid_cursor",
                "This cursor carries another range. Repeat start_time and end_time as they were, "
                "or leave them out.",
            )
        after = msgspec.json.decode(position.after, type=kind)
        return TimeRange(position.start_ms, position.end_ms), position, after
