"""Configurations as bytes: kept as they came, so that no number loses a digit on the way."""

from typing import Annotated, Any

import msgspec
from fastapi import Request
from pydantic import Field

from iotflow.domain.configs import DeviceConfig, ReportedConfig
from iotflow.domain.json_levels import MAX_LEVELS, is_too_deep
from iotflow.domain.times import format_ms, to_ms
from iotflow.errors import InvalidInputError, UnreadableBodyError, UnsupportedMediaError
from iotflow.http.bodies import read_body
from iotflow.http.schemas import Model, Time

MAX_CONFIG_BYTES = 64 * 1024
# Beside its configuration a report has a few bytes more.
_MAX_REPORT_BYTES = MAX_CONFIG_BYTES + 1024
_MAX_VERSION = 2**53 - 1  # as far as every JSON reader counts exactly

_encode = msgspec.json.Encoder().encode
CONFIG_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": True,
    "example": {"interval_s": 60, "unit": "celsius"},
}
REPORT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["version", "config"],
    "additionalProperties": False,
    "properties": {
        "version": {"type": "integer", "minimum": 0, "maximum": _MAX_VERSION},
        "config": CONFIG_SCHEMA,
    },
    "example": {"version": 3, "config": {"interval_s": 60, "unit": "celsius"}},
}


class ReportedConfigOut(Model):
    """All null until the device has reported."""

    version: int | None
    config: Annotated[dict[str, Any] | None, Field(description="What the device has applied")]
    at: Time | None


class DeviceConfigOut(Model):
    version: Annotated[int, Field(description="Rises with every change; 0: none was ever set")]
    config: dict[str, Any]
    reported: ReportedConfigOut


class OwnConfigOut(Model):
    version: int
    config: dict[str, Any]


class _Report(msgspec.Struct, forbid_unknown_fields=True):
    # JSON has one kind of number: 3.0 is as whole as 3.
    version: Annotated[int, msgspec.Meta(ge=0)] | Annotated[float, msgspec.Meta(ge=0)]
    config: msgspec.Raw


def body_of(schema: dict[str, Any]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads such a body itself."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def read_config(request: Request) -> str:
    """The body's JSON object, as text.

    Raises:
        UnreadableBodyError, InvalidInputError, TooLargeError, UnsupportedMediaError: it is none.
    """
    body = await _read(request, MAX_CONFIG_BYTES)
    _require_config(body)
    return body.decode()


async def read_report(request: Request) -> tuple[int, str]:
    """The version and the configuration of a device's report. Raises as `read_config`."""
    body = await _read(request, _MAX_REPORT_BYTES)
    _object(body, "body")
    try:
        report = msgspec.json.decode(body, type=_Report)
    except msgspec.ValidationError as error:
        raise InvalidInputError.of_field("body", "invalid_report", f"{error}.") from None
    version = int(report.version)
    if version != report.version:
        raise InvalidInputError.of_field("version", "not_whole", "Send a whole number.")
    if version > _MAX_VERSION:
        raise InvalidInputError.of_field("version", "too_large", "A version has at most 53 bits.")
    config = bytes(report.config)
    _require_config(config)
    if len(config) > MAX_CONFIG_BYTES:
        message = f"A configuration has at most {MAX_CONFIG_BYTES} bytes."
        raise InvalidInputError.of_field("config", "too_large", message)
    return version, config.decode()


async def _read(request: Request, max_bytes: int) -> bytes:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # Small devices send sloppy headers: none at all is as good as the right one.
    if media_type not in ("", "application/json") and not media_type.endswith("+json"):
        raise UnsupportedMediaError("Send the body as Content-Type: application/json.")
    encoding = request.headers.get("content-encoding", "").encode("latin-1")
    return await read_body(request.receive, encoding, max_bytes)


def _require_config(body: bytes) -> None:
    if is_too_deep(_object(body, "config"), body):
        raise _too_deep("config")


def _object(body: bytes, field: str) -> dict[str, Any]:
    try:
        body.decode()
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.ValidationError:
        message = "Send a JSON object, with numbers that a double can hold."
        raise InvalidInputError.of_field(field, "not_an_object", message) from None
    except RecursionError:
        raise _too_deep(field) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnreadableBodyError("The body is not valid JSON. Send UTF-8 encoded JSON.") from None


def _too_deep(field: str) -> InvalidInputError:
    message = f"At most {MAX_LEVELS} levels of JSON may be nested."
    return InvalidInputError.of_field(field, "too_deep", message)


def config_document(found: DeviceConfig) -> bytes:
    """As its owner sees it."""
    return _encode(_desired(found) | {"reported": _reported(found.reported)})


def own_document(found: DeviceConfig) -> bytes:
    """As its device sees it."""
    return _encode(_desired(found))


def reported_document(found: DeviceConfig) -> bytes:
    """What the device has just reported."""
    return _encode(_reported(found.reported))


def _desired(found: DeviceConfig) -> dict[str, Any]:
    return {"version": found.version, "config": msgspec.Raw(found.config.encode())}


def _reported(reported: ReportedConfig | None) -> dict[str, Any]:
    if reported is None:
        return {"version": None, "config": None, "at": None}
    return {
        "version": reported.version,
        "config": msgspec.Raw(reported.config.encode()),
        "at": format_ms(to_ms(reported.at)),
    }
