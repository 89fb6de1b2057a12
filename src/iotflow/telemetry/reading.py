"""What the reading calls answer: the same for the declared routes and the hot ones."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from iotflow.domain.callers import Caller
from iotflow.domain.times import TimeRange, format_ms
from iotflow.runtime import Runtime
from iotflow.stores.telemetry.protocol import HistoryQuery, Order, PageKey
from iotflow.telemetry import history, schemas
from iotflow.telemetry.latest import CacheVerdict, latest_document
from iotflow.telemetry.ranges import resolve_range

K = TypeVar("K")

encode = msgspec.json.Encoder().encode


class HistoryPage(msgspec.Struct, frozen=True):
    """A page of one device's history. `cursor` is None on the last."""

    within: TimeRange
    rows: Sequence[history.Row]
    cursor: str | None


async def latest(runtime: Runtime, caller: Caller, device_id: int) -> tuple[bytes, CacheVerdict]:
    """A device's newest values, encoded, and where they came from.

    Raises:
        NotFoundError: there is no such device for this caller, or it has sent nothing.
    """
    await runtime.devices.require_readable(caller, [device_id])
    found = await runtime.latest.of(device_id)
    return encode(latest_document(device_id, found.points)), found.cache


async def device_page(
    runtime: Runtime, caller: Caller, device_id: int, query: schemas.HistoryParameters
) -> HistoryPage:
    """A page of a device's points.

    Raises:
        NotFoundError: there is no such device for this caller.
        InvalidInputError: the range or the cursor cannot be used.
    """
    await runtime.devices.require_readable(caller, [device_id])
    measurements = tuple(sorted(set(query.measurement)))
    filters: list[Any] = ["device", device_id, measurements, query.order]
    within, after, start_time, end_time = page_of(runtime, filters, query, PageKey)
    page = await runtime.telemetry.history(
        HistoryQuery(device_id, within, query.limit, Order(query.order), measurements, after)
    )
    cursor = None
    if page.more:
        key = PageKey(page.items[-1].timestamp_ms, page.items[-1].measurement)
        cursor = runtime.range_cursors.encode(filters, within, start_time, end_time, key)
    return HistoryPage(within, history.rows(page.items), cursor)


def page_of(
    runtime: Runtime,
    filters: list[Any],
    query: schemas.HistoryParameters | schemas.FleetHistoryParameters,
    kind: type[K],
) -> tuple[TimeRange, K | None, str | None, str | None]:
    """The range of a page, the key it begins after, and the range as it was first written."""
    if query.cursor is None:
        within = resolve_range(query.start_time, query.end_time, runtime.now_ms())
        return within, None, query.start_time, query.end_time
    within, position, after = runtime.range_cursors.decode(
        filters, query.cursor, query.start_time, query.end_time, kind
    )
    return within, after, position.start_time, position.end_time


def history_json(whose: str, identifier: int, page: HistoryPage) -> bytes:
    """A page as JSON; `whose` says what the identifier is of."""
    return encode(
        {
            whose: identifier,
            "start_time": format_ms(page.within.start_ms),
            "end_time": format_ms(page.within.end_ms),
            "count": len(page.rows),
            "truncated": page.cursor is not None,
            "next_cursor": page.cursor,
            "data": page.rows,
        }
    )
