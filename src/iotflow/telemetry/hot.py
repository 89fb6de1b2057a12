"""The calls of telemetry that run most: submit and batch, close to the bytes."""

import msgspec

from iotflow.domain.devices import KeyRecord
from iotflow.domain.times import format_ms
from iotflow.errors import NotAuthenticatedError
from iotflow.http.bodies import read_body, too_large
from iotflow.http.hot_routes import Answer, HotRequest, HotRoute
from iotflow.http.paths import API
from iotflow.http.requests import declared_length, header
from iotflow.telemetry.ingest import Receipt

NDJSON_TYPES = (b"application/x-ndjson", b"application/ndjson", b"application/jsonl")

_encode = msgspec.json.Encoder().encode


async def submit(request: HotRequest) -> Answer:
    """POST /telemetry."""
    runtime = request.runtime
    key = await _authenticated(request)
    body = await _body(request, runtime.settings.ingest.max_body_bytes)
    return _receipt(await runtime.ingest.submit(key, body))


async def submit_batch(request: HotRequest) -> Answer:
    """POST /telemetry/batch."""
    runtime = request.runtime
    key = await _authenticated(request)
    body = await _body(request, runtime.settings.ingest.max_batch_bytes)
    media_type = (header(request.scope, b"content-type") or b"").partition(b";")[0]
    lines = media_type.strip().lower() in NDJSON_TYPES
    return _receipt(await runtime.ingest.submit_batch(key, body, lines=lines))


async def _authenticated(request: HotRequest) -> KeyRecord:
    key = request.api_key
    if key is None:
        raise NotAuthenticatedError("Send the device's key as X-API-Key: iotd_…")
    authenticator = request.runtime.keys
    return authenticator.known(key) or await authenticator.authenticate(key)


async def _body(request: HotRequest, max_bytes: int) -> bytes:
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


HOT_ROUTES = (
    HotRoute("POST", f"{API}/telemetry", submit),
    HotRoute("POST", f"{API}/telemetry/batch", submit_batch),
)
