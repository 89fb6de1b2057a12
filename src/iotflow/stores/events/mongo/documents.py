"""Events as documents of the collection `events`.

`details` is kept as a document, so that it can be queried and aggregated. What no document can
hold, or would not give back as it was (integers past 64 bits, halves of surrogate pairs, keys
with NUL, keys that begin with $, very deep nesting), is kept as JSON text in `details_json`
instead, beside an empty `details`.
"""

import json
from collections.abc import Iterable
from typing import Any, cast

import bson
from bson.codec_options import CodecOptions, DatetimeConversion, TypeDecoder, TypeRegistry
from bson.datetime_ms import DatetimeMS
from bson.errors import BSONError
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from iotflow.domain.events import Event
from iotflow.domain.strict_json import strict_json

# The server's bounds are 100 levels and 16 MiB, whatever it needs itself included.
_MAX_LEVELS = 80
_MAX_BYTES = 15 * 1024 * 1024


class _PlainIntegers(TypeDecoder):
    """Without it integers past 32 bits come as a subclass that not every encoder takes."""

    @property
    def bson_type(self) -> type[Int64]:
        return Int64

    def transform_bson(self, value: Int64) -> int:
        return int(value)


# Dates as milliseconds: Python's own know fewer years, and are slower.
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    type_registry=TypeRegistry([_PlainIntegers()]),
)


def date_of(timestamp_ms: int) -> DatetimeMS:
    return DatetimeMS(timestamp_ms)


def to_document(event: Event) -> RawBSONDocument:
    """Raises ValueError or TypeError for an event that cannot be stored."""
    text = strict_json(event.details)
    encoded = _encoded(event, event.details) if _is_plain(event.details, text) else None
    if encoded is None:
        try:
            encoded = bson.encode(_fields(event, {}) | {"details_json": text})
        except (BSONError, OverflowError) as error:
            raise ValueError("an event's integers have 64 bits") from error
    if len(encoded) > _MAX_BYTES:
        raise ValueError(f"an event has at most {_MAX_BYTES} bytes")
    return RawBSONDocument(encoded)


def to_event(document: dict[str, Any]) -> Event:
    text = document.get("details_json")
    return Event(
        id=document["_id"],
        event_type=document["event_type"],
        timestamp_ms=int(document["timestamp"]),
        user_id=document["user_id"],
        device_id=document["device_id"],
        details=document["details"] if text is None else json.loads(text),
    )


def _fields(event: Event, details: dict[str, Any]) -> dict[str, Any]:
    return {
        "_id": event.id,
        "event_type": event.event_type,
        "device_id": event.device_id,
        "user_id": event.user_id,
        "timestamp": date_of(event.timestamp_ms),
        "details": details,
    }


def _encoded(event: Event, details: dict[str, Any]) -> bytes | None:
    try:
        return bson.encode(_fields(event, details))
    except (BSONError, OverflowError, UnicodeEncodeError):
        return None


def _is_plain(details: dict[str, Any], text: str) -> bool:
    """Whether no key begins with $ (as an operator does, or a reference), and it is not deep."""
    if '"$' not in text and text.count("{") + text.count("[") <= _MAX_LEVELS:
        return True
    return _is_plain_within(details, _MAX_LEVELS)


def _is_plain_within(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list | tuple):
        return True
    if not levels:
        return False
    parts: Iterable[Any] = cast("Iterable[Any]", value)
    if isinstance(value, dict):
        named = cast("dict[Any, Any]", value)
        if any(str(name).startswith("$") for name in named):
            return False
        parts = named.values()
    return all(_is_plain_within(part, levels - 1) for part in parts)
