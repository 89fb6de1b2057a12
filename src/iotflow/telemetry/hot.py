"""The calls of telemetry that run most, close to the bytes."""

from functools import lru_cache
from time import monotonic
from urllib.parse import parse_qsl

import msgspec
from pydantic import ValidationError

from iotflow.domain.callers import Caller
from iotflow.domain.devices import KeyRecord
from iotflow.domain.times import format_ms
from iotflow.errors import NotAuthenticatedError
from iotflow.http.authentication import bearer_token
from iotflow.http.authorisation import admit
from iotflow.http.bodies import checked_body, read_body, too_large
from iotflow.http.hot_routes import Answer, HotRequest, HotRoute
from iotflow.http.paths import API
from iotflow.http.requests import declared_length, header
from iotflow.telemetry import reading
from iotflow.telemetry.ingest import Receipt
from iotflow.telemetry.schemas import HistoryParameters

NDJSON_TYPES = (b"application/x-ndjson", b"application/ndjson", b"application/jsonl")

_SLOW_BODY_S = 1.0
_encode = msgspec.json.Encoder().encode


async def submit(request: HotRequest) -> Answer:
    """POST /telemetry."""
    runtime = request.runtime
    key, body = await _key_and_body(request, runtime.settings.ingest.max_body_bytes)
    return _receipt(await runtime.ingest.submit(key, body))


async def submit_batch(request: HotRequest) -> Answer:
    """POST /telemetry/batch."""
    runtime = request.runtime
    key, body = await _key_and_body(request, runtime.settings.ingest.max_batch_bytes)
    media_type = (header(request.scope, b"content-type") or b"").partition(b";")[0]
    lines = media_type.strip().lower() in NDJSON_TYPES
    return _receipt(await runtime.ingest.submit_batch(key, body, lines=lines))


async def _key_and_body(request: HotRequest, max_bytes: int) -> tuple[KeyRecord, bytes]:
    """The key is checked before the body is read, and again where the body took its time: the
    device may be gone by then."""
    sent, keys = _key(request), request.runtime.keys
    key = keys.known(sent) or await keys.authenticate(sent)
    body = request.arrived_body()
    if body is not None:
        return key, checked_body(body, request.encoding, max_bytes)
    began_s = monotonic()
    body = await _awaited_body(request, max_bytes)
    if monotonic() - began_s > _SLOW_BODY_S:
        key = keys.known(sent) or await keys.authenticate(sent)
    return key, body


def _key(request: HotRequest) -> str:
    if request.api_key is None:
        raise NotAuthenticatedError("Send the device's key as X-API-Key: iotd_…")
    return request.api_key


async def _awaited_body(request: HotRequest, max_bytes: int) -> bytes:
    if declared_length(request.scope) > max_bytes:
        raise too_large(max_bytes)
    return await read_body(request.receive, request.encoding, max_bytes)


def _receipt(receipt: Receipt) -> Answer:
    timestamp = format_ms(receipt.timestamp_ms).encode("ascii")
    rejected = _encode(receipt.rejected) if receipt.rejected else b"[]"
    body = b'{"device_id":%d,"timestamp":"%b","accepted":%d,"rejected":%b}' % (
        receipt.device_id,
        timestamp,
        receipt.accepted,
        rejected,
    )
    return Answer(207 if receipt.rejected else 201, body)


async def latest(request: HotRequest) -> Answer | None:
    """GET /telemetry/{device_id}/latest."""
    if request.scope["query_string"]:
        return None
    caller = await _caller(request, "device_latest")
    body, verdict = await reading.latest(request.runtime, caller, request.id)
    return Answer(200, body, headers=((b"x-cache", verdict.encode("ascii")),))


async def history(request: HotRequest) -> Answer | None:
    """GET /telemetry/{device_id} as JSON."""
    query = _history_query(request.scope["query_string"])
    if query is None or request.accept not in (b"", b"*/*", b"application/json"):
        return None
    caller = await _caller(request, "device_history")
    page = await reading.device_page(request.runtime, caller, request.id, query)
    return Answer(200, reading.history_json("device_id", request.id, page))


async def _caller(request: HotRequest, operation: str) -> Caller:
    token = bearer_token(request.authorization)
    return await admit(request.runtime, operation, token, request.api_key)


@lru_cache(maxsize=1024)
def _history_query(query_string: bytes) -> HistoryParameters | None:
    """The parameters, or None where something is wrong with them that an answer must explain."""
    given: dict[str, str | list[str]] = {}
    measurements: list[str] = []
    for name, value in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
        if name == "measurement":
            measurements.append(value)
        else:
            given[name] = value
    if measurements:
        given["measurement"] = measurements
    try:
        return HistoryParameters.model_validate(given)
    except ValidationError:
        return None


HOT_ROUTES = (
    HotRoute("POST", f"{API}/telemetry", submit),
    HotRoute("POST", f"{API}/telemetry/batch", submit_batch),
    HotRoute("GET", f"{API}/telemetry/{{device_id}}/latest", latest),
    HotRoute("GET", f"{API}/telemetry/{{device_id}}", history),
)
