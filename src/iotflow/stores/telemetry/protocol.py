"""The telemetry role: every point, and the newest of each measurement.

Rules that hold for every adapter (tests/contract/test_telemetry_store.py):

* (device, timestamp, measurement) identifies a point. A later write replaces it
  whole: value, type and unit never mix. Of two writes the higher `written_us` is later.
* Types survive: floats exact, integers of 64 bits exact, booleans, text.
* Latest is the newest by event time, for every measurement, also after late data,
  range deletes and re-imports into a deleted range.
* Nothing is unbounded: pages have limits, aggregates a row budget.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

import msgspec

from iotflow.domain.points import DevicePoint, LatestPoint, Point, Submission, Value
from iotflow.domain.times import TimeRange
from iotflow.errors import InvalidInputError
from iotflow.stores.lifecycle import Store

T = TypeVar("T")


class Order(StrEnum):
    """Order of a page by timestamp. Within one timestamp measurements ascend either way."""

    ASC = "asc"
    DESC = "desc"


class PageKey(msgspec.Struct, frozen=True, gc=False):
    """The last point of a page; the next page begins after it."""

    timestamp_ms: int
    measurement: str


class HistoryQuery(msgspec.Struct, frozen=True, gc=False):
    """Points of one device in a range. No `measurements` means all of them."""

    device_id: int
    range: TimeRange
    limit: int
    order: Order = Order.DESC
    measurements: tuple[str, ...] = ()
    after: PageKey | None = None


class FleetPageKey(msgspec.Struct, frozen=True, gc=False):
    """The last point of a page across devices."""

    timestamp_ms: int
    device_id: int
    measurement: str


class FleetHistoryQuery(msgspec.Struct, frozen=True, gc=False):
    """Points of several devices, newest first, then by device, then by measurement."""

    device_ids: tuple[int, ...]
    range: TimeRange
    limit: int
    after: FleetPageKey | None = None


class Page(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """Items up to the limit; `more` where the range holds further ones."""

    items: list[T]
    more: bool


class SlotQuery(msgspec.Struct, frozen=True, gc=False):
    """One measurement's statistics in slots of `width_ms`, counted from the epoch.

    Points outside of `range` are left out, so the first and last slot may be cut.
    `edges` asks for the first and last value of each slot, which costs two reads more.
    """

    device_id: int
    measurement: str
    range: TimeRange
    width_ms: int
    row_budget: int
    edges: bool = False


class Slot(msgspec.Struct, frozen=True, gc=False):
    """Statistics of the points with start_ms <= timestamp < start_ms + width_ms.

    `count` is of all points; `numeric_count`, `total`, `minimum` and `maximum` of numbers
    and booleans (0/1) alone, as floats (so a sum of integers cannot overflow), None where
    there are none. `first` and `last` are given where the query asked for `edges`.
    """

    start_ms: int
    count: int
    numeric_count: int
    total: float | None
    minimum: float | None
    maximum: float | None
    first: Point | None = None
    last: Point | None = None


class Sample(msgspec.Struct, frozen=True, gc=False):
    """A numeric value at a time."""

    timestamp_ms: int
    value: float


class MarkQuery(msgspec.Struct, frozen=True, gc=False):
    """Of a device's points in a range those with from_us <= written_us < to_us.

    A page looks at `limit` points at most, newest first, whatever they were written with.
    """

    device_id: int
    range: TimeRange
    from_us: int
    to_us: int
    limit: int
    after: PageKey | None = None


class MarkedPoint(msgspec.Struct, frozen=True, gc=False):
    """Which point it is, and which submission wrote it: `written_us` names it for the device."""

    timestamp_ms: int
    measurement: str
    user_id: int
    written_us: int


class MarkPage(msgspec.Struct, frozen=True, gc=False):
    """What was found, newest first, and where to go on; the range is done where that is None."""

    points: list[MarkedPoint]
    after: PageKey | None


class DevicePage(msgspec.Struct, frozen=True, gc=False):
    """Devices in the store's own order, and where to go on; None after the last of them."""

    device_ids: list[int]
    after: int | None


class RangeTooLargeError(InvalidInputError):
    """A query would read more rows than its budget."""

    code = "range_too_large"

    def __init__(self, row_budget: int) -> None:
        super().__init__(f"The range holds more than {row_budget} points. Ask for a shorter range.")


class TelemetryStore(Store, Protocol):
    """Durable points. Every method raises StoreUnavailableError while the store is away."""

    async def write(self, submission: Submission) -> None:
        """Store all points of a submission; returning means that they are durable.

        The order of writes is fixed when the call is made, before its first await.
        After an error it is unknown what was stored: send the submission again.

        Raises:
            OverloadedError: too much is waiting to be written; nothing was begun.
        """
        ...

    async def history(self, query: HistoryQuery) -> Page[Point]:
        """One page of points."""
        ...

    async def fleet_history(self, query: FleetHistoryQuery) -> Page[DevicePoint]:
        """One page of points across devices."""
        ...

    async def latest(self, device_ids: Sequence[int]) -> Mapping[int, list[LatestPoint]]:
        """The newest point of every measurement, by measurement name.

        Devices without points are missing from the answer.
        """
        ...

    async def measurements(self, device_id: int) -> Collection[str]:
        """The names that a device has used; after deletions it may hold some too many."""
        ...

    async def slots(self, query: SlotQuery) -> list[Slot]:
        """Statistics of the slots that hold points, in order of time.

        Raises:
            RangeTooLargeError: the range holds more than `row_budget` points
                (of all the device's measurements).
        """
        ...

    async def samples(
        self, device_id: int, measurement: str, within: TimeRange, row_budget: int
    ) -> list[Sample]:
        """One measurement's numbers and booleans in order of time, text left out.

        Raises:
            RangeTooLargeError: as `slots`.
        """
        ...

    async def marks(self, query: MarkQuery) -> MarkPage:
        """One page of a walk over points by the submissions that wrote them."""
        ...

    async def devices(self, after: int | None, limit: int) -> DevicePage:
        """One page of the devices that have points; deletions may leave some too many."""
        ...

    async def delete_range(self, device_id: int, within: TimeRange, written_us: int) -> int | None:
        """Delete the points in a range that were written before `written_us`.

        Returns how many, or None where the store cannot know. The order against
        writes is fixed when the call is made, as with `write`.
        """
        ...

    async def delete_device(self, device_id: int) -> int | None:
        """Delete everything of a device; returns the number of points, or None."""
        ...


def value_of(kind: int, value: float, integer: int | None, text: str | None) -> Value:
    """The typed value from the columns that adapters keep; only what `kind` names is read.

    `kind` is a ValueType.
    """
    if kind == 0:
        return value
    if kind == 1:
        return integer if integer is not None else int(value)
    if kind == 2:
        return value != 0
    return text if text is not None else ""
