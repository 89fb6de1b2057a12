"""Submissions, put together again from the points that they have left in the telemetry store."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from iotflow.domain.events import TELEMETRY_SUBMITTED, Event, submission_id
from iotflow.domain.times import DAY_MS, TimeRange
from iotflow.maintenance.pace import Pace
from iotflow.stores.telemetry.protocol import MarkedPoint, MarkQuery, PageKey, TelemetryStore

_POINTS_A_PAGE = 5_000
_MAX_HELD = 100_000
"""Names of measurements of submissions, that are in memory at once."""


class MarkRange(NamedTuple):
    """Submissions that were written from `from_us` on and before `to_us`."""

    from_us: int
    to_us: int


class StoredSubmission:
    """What is left of a submission: later ones may have overwritten some of its points."""

    __slots__ = ("count", "first_ms", "last_ms", "measurements", "records", "user_id", "written_us")

    def __init__(self, point: MarkedPoint) -> None:
        self.user_id = point.user_id
        self.written_us = point.written_us
        self.last_ms = self.first_ms = point.timestamp_ms
        self.measurements = {point.measurement}
        self.records = 1
        self.count = 1

    def add(self, point: MarkedPoint) -> None:
        """Add its next point; they come newest first."""
        if point.timestamp_ms != self.first_ms:
            self.first_ms = point.timestamp_ms
            self.records += 1
        self.measurements.add(point.measurement)
        self.count += 1

    def event(self, device_id: int) -> Event:
        """The event that was logged when it was stored, as far as the points tell.

        Of a batch with one record they cannot tell that it was none alone; `metadata` is lost.
        """
        written_ms = self.written_us // 1000
        details: dict[str, Any] = {"measurements": sorted(self.measurements), "count": self.count}
        if self.records > 1:
            details["records"] = self.records
        if self.records > 1 or self.first_ms < written_ms - DAY_MS:
            details |= {"first_ms": self.first_ms, "last_ms": self.last_ms}
        return Event(
            submission_id(self.written_us, device_id),
            TELEMETRY_SUBMITTED,
            written_ms,
            self.user_id,
            device_id,
            details,
        )


class Found(NamedTuple):
    """Whole submissions, by their marks; `next_us` is where further ones begin, if there are."""

    submissions: list[StoredSubmission]
    next_us: int | None


class SubmissionReader:
    """Reads submissions of devices at its pace.

    Its memory is bounded: where a device has too many for it, the first of them by their marks
    are found, and its points are walked again for the next. So every submission found is whole.
    """

    def __init__(
        self,
        store: TelemetryStore,
        pace: Pace,
        *,
        page: int = _POINTS_A_PAGE,
        max_held: int = _MAX_HELD,
    ) -> None:
        self._store = store
        self._pace = pace
        self._page = page
        self._max_held = max_held

    async def read(
        self,
        device_id: int,
        points: TimeRange,
        written: MarkRange,
        between: Callable[[], Awaitable[None]],
        see: Callable[[MarkedPoint], None] | None = None,
    ) -> Found:
        """The first submissions among the points of a range.

        `between` is awaited after each page; `see` is shown every point, newest first.

        Raises:
            StoreUnavailableError: the store is away.
        """
        collected = _Collected(written.to_us, self._max_held)
        after: PageKey | None = None
        while True:
            query = MarkQuery(
                device_id, points, written.from_us, collected.to_us, self._page, after
            )
            with self._pace.working():
                page = await self._store.marks(query)
                for point in page.points:
                    collected.add(point)
                    if see is not None:
                        see(point)
            await self._pace.rest()
            await between()
            if page.after is None:
                return collected.found(written.to_us)
            after = page.after


class _Collected:
    """The submissions with the lowest marks, those at and above `to_us` left for later."""

    def __init__(self, to_us: int, max_held: int) -> None:
        self.to_us = to_us
        self._max_held = max_held
        self._held = 0
        self._by_mark: dict[int, StoredSubmission] = {}

    def add(self, point: MarkedPoint) -> None:
        if point.written_us >= self.to_us:
            return
        held = self._by_mark.get(point.written_us)
        if held is None:
            self._by_mark[point.written_us] = StoredSubmission(point)
            self._held += 1
        else:
            before = len(held.measurements)
            held.add(point)
            self._held += len(held.measurements) - before
        if self._held > self._max_held and len(self._by_mark) > 1:
            self._leave_half()

    def _leave_half(self) -> None:
        marks = sorted(self._by_mark)
        self.to_us = marks[len(marks) // 2]
        for mark in marks[len(marks) // 2 :]:
            self._held -= len(self._by_mark.pop(mark).measurements)

    def found(self, end_us: int) -> Found:
        submissions = [self._by_mark[mark] for mark in sorted(self._by_mark)]
        return Found(submissions, None if self.to_us == end_us else self.to_us)
