"""/telemetry: points in and out over HTTP."""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from iotflow.domain.callers import Caller, DeviceCaller
from iotflow.domain.times import TimeRange, format_ms
from iotflow.errors import InvalidInputError
from iotflow.groups.service import no_such_group
from iotflow.http.authentication import CurrentCaller, CurrentUser, device_key_scheme
from iotflow.http.examples import JSON, Responses, shown
from iotflow.http.hot_routes import as_endpoint
from iotflow.http.paths import API
from iotflow.http.problems import MEDIA_TYPE
from iotflow.http.responses import problems
from iotflow.http.runtime import RuntimeDep
from iotflow.runtime import Runtime
from iotflow.stores.telemetry.protocol import FleetHistoryQuery, FleetPageKey
from iotflow.telemetry import examples, history, hot, lttb, schemas
from iotflow.telemetry.aggregates import AggregateQuery, Aggregation
from iotflow.telemetry.latest import latest_document
from iotflow.telemetry.ranges import resolve_range
from iotflow.telemetry.reading import (
    HistoryPage,
    device_page,
    encode,
    history_json,
    latest,
    page_of,
)
from iotflow.telemetry.windows import parse_window, parse_zone

router = APIRouter(prefix=f"{API}/telemetry", tags=["telemetry"])

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]
_MAX_USER_DEVICES = 10_000
_MAX_GROUP_DEVICES = 500
_RECEIPTS: Responses = {
    201: {**examples.STORED[201], "model": schemas.ReceiptOut, "description": "All is stored"},
    207: {
        **examples.PARTLY_STORED[207],
        "model": schemas.ReceiptOut,
        "description": "Some is stored; `rejected` names the rest",
    },
    **problems(400, 401, 403, 413, 415, 429, 503),
    **problems(422, model=schemas.NothingAcceptedOut),
}
_RECEIPTS[422]["content"][MEDIA_TYPE] |= examples.NOTHING_STORED


def _body_of(schema: schemas.Document) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


_BATCH = shown(_body_of(schemas.BATCH), examples.BATCH)
_BATCH["requestBody"]["content"] |= examples.BATCH_LINES

router.add_api_route(
    "",
    as_endpoint(hot.submit),
    methods=["POST"],
    name="submit_telemetry",
    summary="Submit measurements",
    status_code=201,
    response_model=None,
    responses=_RECEIPTS,
    dependencies=[device_key_scheme],
    description=(
        "Store the measurements of one moment: 1 to 256 of them by name. What is accepted is "
        "durable when the answer comes; what is not is named in `rejected` and costs no other.\n\n"
        "Send a `timestamp`: then sending again after a lost answer changes nothing. Without one "
        "the server's clock is taken, and every submission is a new point.\n\n"
        "A body without Content-Type is read as JSON; `Content-Encoding: gzip` is welcome."
    ),
    openapi_extra=shown(_body_of(schemas.SUBMISSION), examples.SUBMISSION),
)
router.add_api_route(
    "/batch",
    as_endpoint(hot.submit_batch),
    methods=["POST"],
    name="submit_telemetry_batch",
    summary="Submit many records",
    status_code=201,
    response_model=None,
    responses=_RECEIPTS,
    dependencies=[device_key_scheme],
    description=(
        "Store up to 5,000 records or 20,000 points at once, as JSON or as NDJSON (a record a "
        "line). Here every record needs its `timestamp`. A bad record never costs another: "
        "`rejected` has its `index`. `Content-Encoding: gzip` is welcome."
    ),
    openapi_extra=_BATCH,
)


@router.get(
    "/latest",
    summary="Latest values of many devices",
    response_model=schemas.LatestManyOut,
    responses=examples.LATEST_OF_MANY | problems(401, 403, 404, 422, 429, 503),
)
async def latest_of_many(
    query: Annotated[schemas.LatestManyParameters, Query()],
    caller: CurrentCaller,
    runtime: RuntimeDep,
) -> Response:
    """The newest values of several devices (`device_id`, up to 500), or of a group's (`group_id`).

    One that has sent nothing has a null timestamp.
    """
    device_ids, cursor = await _devices_of(query, caller, runtime)
    found = await runtime.latest.of_many(device_ids)
    items = [latest_document(device_id, latest.points) for device_id, latest in found.items()]
    return _json(encode({"items": items, "next_cursor": cursor}))


async def _devices_of(
    query: schemas.LatestManyParameters, caller: Caller, runtime: Runtime
) -> tuple[list[int], str | None]:
    """Which devices are asked for, and the cursor of those that had no room."""
    if (query.group_id is None) == (not query.device_id):
        raise InvalidInputError.of_field(
            "device_id", "missing", "Send device_id (once or several times), or group_id."
        )
    filters: list[Any] = ["latest", query.group_id]
    after_id = runtime.cursors.decode(filters, query.cursor, int) if query.cursor else 0
    if query.group_id is None:
        device_ids = list(dict.fromkeys(query.device_id))
        await runtime.devices.require_readable(caller, device_ids)
        return device_ids, None
    if isinstance(caller, DeviceCaller):
        raise no_such_group()
    device_ids, more = await runtime.groups.device_ids(
        caller, query.group_id, _MAX_GROUP_DEVICES, after_id
    )
    return device_ids, runtime.cursors.encode(filters, device_ids[-1]) if more else None


@router.get(
    "/user/{user_id}",
    summary="Points of all devices of a user",
    response_model=schemas.FleetHistoryOut,
    responses=examples.FLEET | problems(401, 404, 422, 429, 503),
)
async def user_history(
    user_id: Id,
    query: Annotated[schemas.FleetHistoryParameters, Query()],
    caller: CurrentUser,
    runtime: RuntimeDep,
) -> Response:
    """Points of all devices of a user, newest first; the last 24 hours if nothing is said."""
    filters: list[Any] = ["user", user_id]
    within, after, start_time, end_time = page_of(runtime, filters, query, FleetPageKey)
    names = await runtime.devices.names(user_id, _MAX_USER_DEVICES + 1)
    if len(names) > _MAX_USER_DEVICES:
        raise InvalidInputError(
            f"The user has more than {_MAX_USER_DEVICES} devices. "
            "Ask for the points of each device by itself.",
            code="fleet_too_large",
        )
    page = await runtime.telemetry.fleet_history(
        FleetHistoryQuery(tuple(names), within, query.limit, after)
    )
    cursor = None
    if page.more:
        last = page.items[-1]
        key = FleetPageKey(last.point.timestamp_ms, last.device_id, last.point.measurement)
        cursor = runtime.range_cursors.encode(filters, within, start_time, end_time, key)
    found = HistoryPage(within, history.fleet_rows(page.items, names), cursor)
    return _json(history_json("user_id", user_id, found))


@router.get(
    "/{device_id}",
    summary="Points of a device",
    response_model=schemas.HistoryOut,
    responses=examples.HISTORY | problems(401, 403, 404, 422, 429, 503),
)
async def device_history(
    device_id: Id,
    query: Annotated[schemas.HistoryParameters, Query()],
    request: Request,
    caller: CurrentCaller,
    runtime: RuntimeDep,
) -> Response:
    """Points of a device in a range of at most 366 days; the last 24 hours if nothing is said.

    As JSON, CSV or NDJSON: say which in `Accept`. Where `truncated` is true there is more: repeat
    the query with `cursor`.
    """
    page = await device_page(runtime, caller, device_id, query)
    match _wanted(request):
        case "text/csv":
            return _stream(history.csv_text(page.rows), "text/csv; charset=utf-8", page.cursor)
        case "application/x-ndjson":
            return _stream(history.ndjson(page.rows), "application/x-ndjson", page.cursor)
        case _:
            return _json(history_json("device_id", device_id, page))


@router.get(
    "/{device_id}/latest",
    summary="Latest values of a device",
    response_model=schemas.LatestOut,
    responses=examples.LATEST | problems(401, 403, 404, 422, 429, 503),
)
async def device_latest(device_id: Id, caller: CurrentCaller, runtime: RuntimeDep) -> Response:
    """The newest value of every measurement of a device, by the time of the event.

    A measurement that comes late never hides a newer one.
    """
    body, verdict = await latest(runtime, caller, device_id)
    return _json(body, {"X-Cache": verdict})


@router.get(
    "/{device_id}/aggregated",
    summary="Statistics and charts",
    response_model=schemas.WindowsOut | schemas.ChartOut,
    responses=examples.AGGREGATED | problems(401, 403, 404, 422, 429, 503),
)
async def device_aggregated(
    device_id: Id,
    query: Annotated[schemas.AggregateParameters, Query()],
    caller: CurrentCaller,
    runtime: RuntimeDep,
) -> Response:
    """Statistics by window (`aggregation`, `window`), or a range thinned for a chart (`points`).

    Windows follow the calendar of `timezone`, across changes of the clock; weeks begin on Monday.
    `points` picks existing points so that the line keeps its shape (LTTB).
    """
    await runtime.devices.require_readable(caller, [device_id])
    within = resolve_range(query.start_time, query.end_time, runtime.now_ms())
    if query.points is not None:
        return _json(encode(await _chart(device_id, query, query.points, within, runtime)))
    if query.window is None or not query.aggregation:
        raise InvalidInputError.of_field(
            "window" if query.window is None else "aggregation",
            "missing",
            "Send aggregation and window (aggregation=mean&window=1h), or points (points=500).",
        )
    return _json(encode(await _windows(device_id, query, query.window, within, runtime)))


@router.delete(
    "/{device_id}",
    summary="Delete points of a range",
    response_model=schemas.DeletedOut,
    responses=examples.DELETED | problems(401, 403, 404, 422, 429, 503),
)
async def delete_history(
    device_id: Id,
    query: Annotated[schemas.DeleteParameters, Query()],
    caller: CurrentCaller,
    runtime: RuntimeDep,
) -> Response:
    """Delete the points of a range, for good. Latest values are worked out anew.

    Both ends must be said. A device's key gets 403: its owner may do this.
    """
    await runtime.devices.require_readable(caller, [device_id])
    within = resolve_range(query.start_time, query.end_time, runtime.now_ms())
    return _json(encode({"deleted": await runtime.deletion.delete_range(device_id, within)}))


async def _windows(
    device_id: int,
    query: schemas.AggregateParameters,
    window: str,
    within: TimeRange,
    runtime: Runtime,
) -> dict[str, Any]:
    wanted = tuple(dict.fromkeys(query.aggregation))
    found = await runtime.aggregates.windows(
        AggregateQuery(
            device_id,
            query.field,
            within,
            parse_window(window),
            parse_zone(query.timezone),
            wanted,
            fill=query.fill == "null",
        )
    )
    data = [
        {"timestamp": format_ms(stats.start_ms), Aggregation.COUNT.value: stats.count}
        | {aggregation.value: stats.value(aggregation) for aggregation in wanted}
        for stats in found
    ]
    return {"device_id": device_id, "field": query.field, "window": window, "data": data}


async def _chart(
    device_id: int,
    query: schemas.AggregateParameters,
    points: int,
    within: TimeRange,
    runtime: Runtime,
) -> dict[str, Any]:
    if query.window is not None or query.aggregation:
        raise InvalidInputError.of_field(
            "points", "conflicting", "Send points, or aggregation and window; not both."
        )
    samples = await runtime.aggregates.samples(device_id, query.field, within)
    thinned = lttb.thin(samples, points)
    return {
        "device_id": device_id,
        "field": query.field,
        "points": len(thinned),
        "data": [
            {"timestamp": format_ms(sample.timestamp_ms), "value": sample.value}
            for sample in thinned
        ],
    }


def _wanted(request: Request) -> str:
    """The first media type of Accept that we have; JSON where it names none."""
    for each in request.headers.get("accept", "").split(","):
        media_type = each.partition(";")[0].strip().lower()
        if media_type in ("text/csv", "application/x-ndjson", "application/json"):
            return media_type
    return "application/json"


def _json(body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, media_type="application/json", headers=headers)


def _stream(chunks: Iterator[bytes], media_type: str, cursor: str | None) -> Response:
    headers = {"X-Next-Cursor": cursor} if cursor else None
    return StreamingResponse(chunks, media_type=media_type, headers=headers)
