"""/events over HTTP."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from iotflow.domain.events import Event
from iotflow.domain.times import format_ms
from iotflow.events import examples
from iotflow.events.schemas import EventParameters, EventsOut
from iotflow.http.authentication import CurrentUser
from iotflow.http.paths import API
from iotflow.http.responses import problems
from iotflow.http.runtime import RuntimeDep
from iotflow.stores.events.protocol import EventPageKey, EventQuery
from iotflow.telemetry.ranges import resolve_range

router = APIRouter(prefix=f"{API}/events", tags=["events"])


@router.get(
    "",
    summary="Look back on what happened",
    response_model=EventsOut,
    responses=examples.EVENTS | problems(401, 403, 404, 422, 429, 503),
)
async def list_events(
    query: Annotated[EventParameters, Query()], caller: CurrentUser, runtime: RuntimeDep
) -> Response:
    """What happened, newest first: submissions, sign-ins, changes of keys, devices and roles.

    Your own events of the last 24 hours, if nothing else is asked for. An admin may name
    another user, or any device.
    """
    filters: list[Any] = ["events", caller.user.id, query.user_id, query.device_id]
    filters.append(query.event_type)
    start_time, end_time, after = query.start_time, query.end_time, None
    if query.cursor is None:
        within = resolve_range(start_time, end_time, runtime.now_ms())
    else:
        within, position, after = runtime.range_cursors.decode(
            filters, query.cursor, start_time, end_time, EventPageKey
        )
        start_time, end_time = position.start_time, position.end_time
    events, more = await runtime.events.page(
        caller,
        EventQuery(within, query.limit, query.user_id, query.device_id, query.event_type, after),
    )
    cursor = None
    if more:
        key = EventPageKey(events[-1].timestamp_ms, events[-1].id)
        cursor = runtime.range_cursors.encode(filters, within, start_time, end_time, key)
    return Response(_page(events, cursor), media_type="application/json")


def _page(events: list[Event], cursor: str | None) -> str:
    items = [
        {
            "id": event.id,
            "event_type": event.event_type,
            "device_id": event.device_id,
            "user_id": event.user_id,
            "timestamp": format_ms(event.timestamp_ms),
            "details": event.details,
        }
        for event in events
    ]
    # Not msgspec, which refuses what a store may hold: halves of surrogate pairs, large integers.
    return json.dumps({"items": items, "next_cursor": cursor}, separators=(",", ":"))
