"""From the bytes of a submission to readings, and a verdict on each measurement.

A strict decoder reads nearly everything in under a microsecond. What it refuses
(NaN, 1e400, odd types) is read again with patience, so that each measurement gets its own
verdict and a bad one costs no other.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from iotflow.domain.json_levels import MAX_LEVELS, is_too_deep
from iotflow.domain.points import Point
from iotflow.domain.strict_json import strict_json
from iotflow.domain.times import InvalidTimeError, parse_integer_time, parse_rfc3339
from iotflow.errors import FieldError, InvalidInputError, UnreadableBodyError
from iotflow.telemetry import verdicts
from iotflow.telemetry.verdicts import MAX_NAME_LENGTH, Rejection, shared_name

MAX_MEASUREMENTS = 256
MAX_RECORDS = 5_000
MAX_POINTS = 20_000
MAX_METADATA_BYTES = 16 * 1024


class _Measured(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    value: float | int | bool | str
    unit: str = ""


class _Record(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    data: dict[str, float | int | bool | str | _Measured]
    timestamp: str | int | None = None
    metadata: dict[str, Any] | None = None


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    records: list[_Record]


class Reading(msgspec.Struct, gc=False):
    """The good measurements of one record, and the verdicts on the others.

    Without a `timestamp_ms` its points are at 0.
    """

    points: list[Point]
    rejected: list[Rejection]
    timestamp_ms: int | None
    metadata: Mapping[str, Any] | None


class RefusedRecordError(InvalidInputError):
    """A whole record that is of no use: its fields are at fault, not one measurement."""


_decode_record = msgspec.json.Decoder(_Record).decode
_decode_batch = msgspec.json.Decoder(_Batch).decode
_encode = msgspec.json.Encoder().encode
# What the strict decoder says of a body that it cannot read, or refuses.
_REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_TOO_DEEP = f"At most {MAX_LEVELS} levels of JSON may be nested."


def decode_submission(body: bytes) -> Reading:
    """Read the body of a single submission.

    Raises:
        UnreadableBodyError: it is not JSON.
        RefusedRecordError: what is wrong is not one measurement's fault.
    """
    try:
        record = _decode_record(body)
    except _REFUSALS:
        return _reading_of(_patient_loads(body))
    return _reading(record.data, record.timestamp, record.metadata)


def decode_batch(body: bytes, *, lines: bool) -> list[Reading | Rejection]:
    """Read a batch, as one JSON document or, with `lines`, as one record a line (NDJSON).

    The answer has an entry for each record, a Rejection for one that is refused whole.

    Raises:
        UnreadableBodyError: it is not JSON. (A bad line of NDJSON costs that line alone.)
        InvalidInputError: it is not a batch, or it has no or too many records or points.
    """
    if lines:
        return _bounded(list(_lines(body)))
    try:
        records = _decode_batch(body).records
    except _REFUSALS:
        return _bounded([_judged(index, _reading_of, raw) for index, raw in _patient_batch(body)])
    _check_count(len(records))
    return _bounded([_judged(index, _typed, record) for index, record in enumerate(records)])


def _lines(body: bytes) -> Iterator[Reading | Rejection]:
    lines = [line for line in body.splitlines() if line.strip()]
    _check_count(len(lines))
    for index, line in enumerate(lines):
        try:
            record = _decode_record(line)
        except _REFUSALS:
            yield _judged(index, _from_line, line)
        else:
            yield _judged(index, _typed, record)


def _typed(record: _Record, index: int) -> Reading:
    return _reading(record.data, record.timestamp, record.metadata, index)


def _from_line(line: bytes, index: int) -> Reading:
    return _reading_of(_patient_loads(line), index)


def _judged(index: int, read: Any, record: Any) -> Reading | Rejection:
    try:
        reading: Reading = read(record, index)
    except (InvalidInputError, UnreadableBodyError) as error:
        code = error.errors[0].code if isinstance(error, InvalidInputError) else error.error_code
        return verdicts.rejection(None, code, error.message, index)
    if reading.timestamp_ms is None:
        message = "Every record of a batch needs a timestamp."
        return verdicts.rejection(None, "missing_timestamp", message, index)
    return reading


def _patient_batch(body: bytes) -> Iterator[tuple[int, Any]]:
    document = _object(_patient_loads(body))
    if document is None:
        raise _refused("records", "invalid_batch", 'Send {"records": [...]}.')
    _refuse_unknown(document, ("records",))
    records: Any = document.get("records")
    if not isinstance(records, list):
        raise _refused("records", "invalid_batch", "Send a list of records.")
    found = cast("list[Any]", records)
    _check_count(len(found))
    return enumerate(found)


def _check_count(records: int) -> None:
    if not records:
        raise _refused("records", "empty_batch", "Send at least one record.")
    if records > MAX_RECORDS:
        raise _refused("records", "too_many_records", f"A batch has at most {MAX_RECORDS} records.")


def _bounded(readings: list[Reading | Rejection]) -> list[Reading | Rejection]:
    points = sum([len(each.points) for each in readings if isinstance(each, Reading)])
    if points > MAX_POINTS:
        raise _refused("records", "too_many_points", f"A batch has at most {MAX_POINTS} points.")
    return readings


def _reading_of(raw: Any, index: int | None = None) -> Reading:
    """A reading from whatever JSON there was."""
    record = _object(raw)
    if record is None:
        raise _refused("", "invalid_record", 'Send an object: {"data": {...}, "timestamp": "..."}.')
    _refuse_unknown(record, ("data", "timestamp", "metadata"))
    data, metadata = _object(record.get("data")), _object(record.get("metadata"))
    if data is None:
        raise _refused("data", "invalid_data", 'Send an object: {"temperature": 23.5}.')
    if metadata is None and record.get("metadata") is not None:
        raise _refused("metadata", "invalid_metadata", "Send an object.")
    _check_finite(metadata)
    return _reading(data, record.get("timestamp"), metadata, index)


def _object(value: Any) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _refuse_unknown(found: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for field in found:
        if field not in known:
            raise _refused(_shown(field), "unknown_field", "There is no such field. Leave it out.")


def _reading(
    data: Mapping[str, Any],
    timestamp: Any,
    metadata: Mapping[str, Any] | None,
    index: int | None = None,
) -> Reading:
    if not 0 < len(data) <= MAX_MEASUREMENTS:
        code = "too_many_measurements" if data else "empty_data"
        raise _refused("data", code, f"Send 1 to {MAX_MEASUREMENTS} measurements.")
    timestamp_ms = None if timestamp is None else _timestamp_ms(timestamp)
    if metadata is not None:
        _check_metadata(metadata)
    at_ms = timestamp_ms or 0
    points: list[Point] = []
    rejected: list[Rejection] = []
    for name, sent in data.items():
        # Nearly all are plain numbers: they need none of the questions that follow. (A number less
        # itself is nothing, but for NaN and infinities; and this calls no function.)
        if type(sent) is float and sent - sent == 0.0 and len(name) <= MAX_NAME_LENGTH:
            canonical = shared_name(name)
            if canonical is not None:
                points.append(Point(at_ms, canonical, sent))
                continue
        judged = _judge(at_ms, name, sent, index)
        if isinstance(judged, Point):
            points.append(judged)
        else:
            rejected.append(judged)
    return Reading(points, rejected, timestamp_ms, metadata)


def _judge(at_ms: int, sent_name: str, sent: Any, index: int | None) -> Point | Rejection:
    unit: Any = ""
    if type(sent) is _Measured:
        unit, sent = sent.unit, sent.value
    elif (measured := _object(sent)) is not None and _is_measured(measured):
        unit, sent = measured.get("unit"), measured["value"]
        unit = "" if unit is None else unit
    name = verdicts.canonical_name(sent_name)
    if name is None:
        return verdicts.reject_name(sent_name, index)
    value = verdicts.settled_value(sent)
    if value is None:
        return verdicts.reject_value(sent_name, sent, index)
    if unit != "" and not verdicts.valid_unit(unit):
        return verdicts.reject_unit(sent_name, index)
    return Point(at_ms, name, value, unit)


def _is_measured(sent: Mapping[str, Any]) -> bool:
    return "value" in sent and sent.keys() <= {"value", "unit"}


def _timestamp_ms(timestamp: Any) -> int:
    try:
        if type(timestamp) is int:
            return parse_integer_time(timestamp)
        if isinstance(timestamp, str):
            return parse_rfc3339(timestamp)
    except InvalidTimeError as error:
        raise _refused("timestamp", "invalid_timestamp", str(error)) from None
    raise _refused(
        "timestamp",
        "invalid_timestamp",
        "Send RFC 3339 with an offset (2026-01-31T14:30:00Z) or an integer of epoch milliseconds.",
    )


def _check_finite(metadata: Mapping[str, Any] | None) -> None:
    try:
        strict_json(metadata)
    except RecursionError:
        raise _refused("metadata", "too_deep", _TOO_DEEP) from None
    except ValueError:
        message = "Send plain JSON, without NaN and infinities."
        raise _refused("metadata", "invalid_metadata", message) from None


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    try:
        text = _encode(metadata)
    except RecursionError:
        raise _refused("metadata", "too_deep", _TOO_DEEP) from None
    except (UnicodeEncodeError, msgspec.EncodeError, OverflowError):
        raise _refused("metadata", "invalid_metadata", "Send plain JSON.") from None
    if len(text) > MAX_METADATA_BYTES:
        raise _refused("metadata", "metadata_too_large", "Metadata has at most 16 KiB.")
    if is_too_deep(metadata, text):
        raise _refused("metadata", "too_deep", _TOO_DEEP)


def _refused(field: str, code: str, message: str) -> RefusedRecordError:
    errors = (FieldError(field or "body", code, message),)
    return RefusedRecordError(f"{field}: {message}" if field else message, errors=errors)


def _shown(field: str) -> str:
    return field[:64].encode("utf-8", "replace").decode()


# Strings are matched first, so that the words inside of them are left alone.
_LOOSE_NUMBERS = re.compile(r'"(?:[^"\\]|\\.)*"|-?\b(?:nan|inf(?:inity)?)\b', re.IGNORECASE)
_LONGEST_INTEGER = 400  # digits: more is beyond any float, and Python refuses to convert 4,300


def _parse_integer(digits: str) -> int | float:
    return int(digits) if len(digits) < _LONGEST_INTEGER else float("inf")


def _patient_loads(body: bytes) -> Any:
    """JSON as devices write it: with NaN, Infinity, C's nan and inf, numbers past all bounds."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableBodyError("The body is not UTF-8. Send UTF-8 encoded JSON.") from None
    try:
        try:
            return json.loads(text, parse_int=_parse_integer)
        except json.JSONDecodeError:
            loose = _LOOSE_NUMBERS.sub(
                lambda found: found[0] if found[0].startswith('"') else "NaN", text
            )
            return json.loads(loose, parse_int=_parse_integer)
    except RecursionError:
        raise UnreadableBodyError(f"The body is nested too deep. {_TOO_DEEP}") from None
    except json.JSONDecodeError as error:
        where = f" (line {error.lineno}, column {error.colno})"
        raise UnreadableBodyError(f"The body is not valid JSON{where}.") from None
