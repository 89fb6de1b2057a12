"""Entries as Redis keeps them, and the names of their keys."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from iotflow.domain.devices import KeyRecord
from iotflow.domain.points import VALUE_TYPES, LatestPoint, Point, Submission, Value
from iotflow.stores.cache.protocol import Hit, KeyEntry, WindowCount

REFUSED = KeyEntry(None)
_REVOKED, _FORGOTTEN = b"revoked", b"forgotten"
_ENTRY_MARKS = b"#"

_encode = msgspec.json.Encoder().encode
_point = msgspec.json.Decoder(tuple[int, Value, int, str, int]).decode
_record = msgspec.json.Decoder(KeyRecord | None).decode


def key_key(digest: str) -> str:
    return f"device:apikey:{digest}"


def latest_key(device_id: int) -> str:
    return f"device:latest:{{{device_id}}}"


def guard_key(device_id: int) -> str:
    return f"device:guard:{{{device_id}}}"


def online_key(device_id: int) -> str:
    return f"device:online:{{{device_id}}}"


def device_counts_key(device_id: int | str) -> str:
    return f"ratelimit:device:{{{device_id}}}"


def device_logs_key(device_id: int | str) -> str:
    return f"ratelimit:logs:{{{device_id}}}"


def counter(hit: Hit) -> tuple[str, str]:
    """The hash that a hit is counted in, and its field: all of a device's are in one."""
    policy, device, device_id = hit.subject.rpartition(":device:")
    if device and device_id.isdecimal():
        return device_counts_key(device_id), f"{policy}:{hit.window_s}"
    return f"ratelimit:{{{hit.subject}}}", str(hit.window_s)


def log_keys(hit: Hit) -> list[str]:
    """The log, and for a device's the set in which `forget_device` finds it."""
    _, device, device_id = hit.subject.rpartition(":device:")
    if device and device_id.isdecimal():
        log = f"ratelimit:log:{{{device_id}}}:{hit.subject}:{hit.window_s}"
        return [log, device_logs_key(device_id)]
    return [f"ratelimit:log:{{{hit.subject}}}:{hit.window_s}"]


def counts(reply: Sequence[int], hits: Sequence[Hit]) -> list[WindowCount]:
    """What a script counted: its clock in milliseconds, then two buckets a hit."""
    now_ms = reply[0]
    return [
        WindowCount(reply[at], reply[at + 1], now_ms % (hit.window_s * 1000) / 1000)
        for at, hit in zip(range(1, len(reply), 2), hits, strict=True)
    ]


def encode_submission(submission: Submission) -> list[Any]:
    """Measurement, entry, measurement, entry ... with the newest point of each measurement."""
    points = submission.points
    newest: dict[str, Point] = {}
    for point in points:
        held = newest.get(point.measurement)
        if held is None or point.timestamp_ms > held.timestamp_ms:
            newest[point.measurement] = point
    written_us = submission.written_us
    encoded: list[Any] = []
    for name, point in newest.items():
        value = point.value
        entry = (point.timestamp_ms, value, VALUE_TYPES[type(value)], point.unit, written_us)
        encoded += (name, _encode(entry))
    return encoded


def encode_points(points: Iterable[LatestPoint]) -> list[Any]:
    """The same of what a store knows."""
    encoded: list[Any] = []
    for point in points:
        value = point.value
        kind = VALUE_TYPES[type(value)]
        entry = (point.timestamp_ms, value, kind, point.unit, point.written_us)
        encoded += (point.measurement, _encode(entry))
    return encoded


def decode_latest(flat: Sequence[bytes], epoch: int) -> tuple[LatestPoint, ...] | None:
    """An entry's points, sorted; None unless it is complete and of the epoch.

    Raises:
        ValueError: this is no entry.
    """
    found: list[LatestPoint] = []
    marks: dict[bytes, bytes] = {}
    for at in range(0, len(flat), 2):
        name = flat[at]
        if name[:1] == _ENTRY_MARKS:
            marks[name] = flat[at + 1]
            continue
        timestamp_ms, value, _, unit, written_us = _point(flat[at + 1])
        found.append(LatestPoint(timestamp_ms, name.decode(), value, unit, written_us))
    if b"#x" not in marks or marks.get(b"#e") != b"%d" % epoch:
        return None
    found.sort(key=_measurement)
    return tuple(found)


def _measurement(point: LatestPoint) -> str:
    return point.measurement


def entry_mark(epoch: int) -> str:
    """What a key's entry of an epoch begins with."""
    return f"{epoch}:"


def encode_key(entry: KeyEntry) -> bytes:
    return _encode(entry.record)


def decode_key(held: bytes | None, epoch: int | None) -> KeyEntry | None:
    """A tombstone counts whatever the epoch; a hold says nothing."""
    if held == _REVOKED:
        return REFUSED
    if held is None or held == _FORGOTTEN:
        return None
    mark, _, record = held.partition(b":")
    if epoch is None or mark != b"%d" % epoch:
        return None
    try:
        return KeyEntry(_record(record))
    except ValueError:
        return None  # not written by us: the registry knows
