"""Pages of a device's history, oldest first."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import httpx
import msgspec

from iotflow.cli.client import NOT_IOTFLOW, ApiClient, ServerUnreachableError, require_success
from iotflow.cli.retrying import Retrying
from iotflow.domain.points import Value
from iotflow.domain.times import DAY_MS, InvalidTimeError, parse_query_time, to_ms
from iotflow.errors import ConfigurationError

PAGE_ROWS = 10_000
_QUERY_MS = 366 * DAY_MS  # the longest range that one query may span


class ExportedPoint(msgspec.Struct, frozen=True, gc=False):
    """A point as the API tells it; a number with a fraction or an exponent is a float."""

    timestamp: datetime
    measurement_name: str
    value: Value
    unit: str | None


class Page(msgspec.Struct):
    start_time: datetime
    end_time: datetime
    next_cursor: str | None
    data: list[ExportedPoint]

    @property
    def share(self) -> float:
        """How much of its query's range lies before the end of this page, 0 to 1."""
        if self.next_cursor is None or not self.data:
            return 1.0
        whole = (self.end_time - self.start_time).total_seconds()
        return (self.data[-1].timestamp - self.start_time).total_seconds() / whole


@dataclass(frozen=True, slots=True)
class Progressed:
    """A page, and how much of the whole export is done with it, 0 to 1."""

    points: list[ExportedPoint]
    share: float


class History:
    """Reads a device's points in a range of any length: query after query, page after page."""

    def __init__(
        self, client: ApiClient, retrying: Retrying, device_id: int, measurements: tuple[str, ...]
    ) -> None:
        self._client = client
        self._retrying = retrying
        self._path = f"/telemetry/{device_id}"
        self._measurements = list(measurements)

    def pages(self, start: str, end: str) -> Iterator[Progressed]:
        """Every point in [start, end), oldest first.

        Raises:
            ConfigurationError: `start` or `end` is no time, or the range is empty.
            ServerUnreachableError, RefusedError: a page could not be read.
        """
        ranges = split_range(start, end, to_ms(datetime.now(UTC)))
        for number, (begin, until) in enumerate(ranges):
            for page in self._query(begin, until):
                yield Progressed(page.data, (number + page.share) / len(ranges))

    def _query(self, start: str, end: str) -> Iterator[Page]:
        params: dict[str, str | int | list[str]] = {
            "start_time": start,
            "end_time": end,
            "order": "asc",
            "limit": PAGE_ROWS,
        }
        if self._measurements:
            params["measurement"] = self._measurements
        while True:
            page = self._page(params)
            yield page
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor

    def _page(self, params: dict[str, str | int | list[str]]) -> Page:
        def send() -> httpx.Response:
            return self._client.send("GET", self._path, params=params)

        answer = require_success(self._retrying.call(send))
        try:
            return msgspec.json.decode(answer.content, type=Page)
        except msgspec.DecodeError:
            raise ServerUnreachableError(NOT_IOTFLOW) from None


def split_range(start: str, end: str, now_ms: int) -> list[tuple[str, str]]:
    """A range as one query, as it was written; or as several, where it is longer than one may be.

    Raises:
        ConfigurationError: a time is none, or the range is empty.
    """
    start_ms, end_ms = _time("--start", start, now_ms), _time("--end", end, now_ms)
    if start_ms >= end_ms:
        raise ConfigurationError("--start: it must lie before --end.")
    if end_ms - start_ms < _QUERY_MS:
        return [(start, end)]
    edges = [*range(start_ms, end_ms, _QUERY_MS), end_ms]
    bounds = [str(moment_text(each)) for each in edges]
    if end == "now":
        bounds[-1] = _just_before_now(edges, now_ms)
    return list(pairwise(bounds))


def _just_before_now(edges: list[int], now_ms: int) -> str:
    """`now` for the last query, where the server's later clock cannot make it too long."""
    room = edges[-1] - edges[-2] < _QUERY_MS - DAY_MS
    return "now" if room else moment_text(now_ms)


def moment_text(timestamp_ms: int) -> str:
    moment = datetime.fromtimestamp(timestamp_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{timestamp_ms % 1000:03d}Z"


def _time(option: str, text: str, now_ms: int) -> int:
    try:
        return parse_query_time(text, now_ms)
    except InvalidTimeError as error:
        raise ConfigurationError(f"{option}: {error}") from None
