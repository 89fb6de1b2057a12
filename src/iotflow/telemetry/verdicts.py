"""What a measurement must look like, and what is said of one that does not."""

import re
from functools import lru_cache
from math import isfinite

import msgspec

from iotflow.domain.points import INT64_MAX, INT64_MIN, Value

MAX_NAME_LENGTH = 64
MAX_TEXT_BYTES = 1024
MAX_UNIT_LENGTH = 32

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_./-]{0,63}", re.ASCII)


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """A measurement, or in a batch a whole record (`measurement` None), that was refused."""

    measurement: str | None
    code: str
    message: str
    index: int | msgspec.UnsetType = msgspec.UNSET


@lru_cache(maxsize=65_536)
def shared_name(name: str) -> str | None:
    """`canonical_name` of at most MAX_NAME_LENGTH characters: the cache must not keep megabytes
    that somebody sends as a name."""
    return name if _NAME.fullmatch(name) else None


def canonical_name(name: str) -> str | None:
    """The one shared string for a valid measurement name, None for an invalid one."""
    return shared_name(name) if len(name) <= MAX_NAME_LENGTH else None


def settled_value(value: object) -> Value | None:
    """The value as it is stored, or None where it cannot be.

    Integers beyond 64 bits become floats, as JSON knows but one kind of number.
    """
    kind = type(value)
    if kind is float:
        return value if isfinite(value) else None  # type: ignore[arg-type]
    if kind is int:
        return value if INT64_MIN <= value <= INT64_MAX else _as_float(value)  # type: ignore
    if kind is bool:
        return value  # type: ignore[return-value]
    if kind is str and _storable_text(value, MAX_TEXT_BYTES):  # type: ignore[arg-type]
        return value  # type: ignore[return-value]
    return None


def _as_float(value: int) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def _storable_text(text: str, max_bytes: int) -> bool:
    if "\x00" in text:
        return False
    try:
        return len(text) <= max_bytes and len(text.encode()) <= max_bytes
    except UnicodeEncodeError:
        return False


def valid_unit(unit: object) -> bool:
    return (
        isinstance(unit, str)
        and _storable_text(unit, MAX_UNIT_LENGTH * 4)
        and (len(unit) <= MAX_UNIT_LENGTH)
    )


def reject_name(name: str, index: int | None = None) -> Rejection:
    message = "A name has 1 to 64 of letters, digits and _ . - / and begins with a letter."
    return rejection(name, "invalid_name", message, index)


def reject_value(name: str, value: object, index: int | None = None) -> Rejection:
    """Why a value that `settled_value` refused cannot be stored."""
    if isinstance(value, float | int):
        code, message = "not_finite", "Send a finite number; leave out what could not be measured."
    elif isinstance(value, str):
        code = "text_too_long" if len(value.encode("utf-8", "replace")) > 1024 else "invalid_text"
        message = "Text has at most 1 KiB of UTF-8 and no NUL character."
    else:
        code = "invalid_value"
        message = 'Send a number, a boolean, text, or {"value": ..., "unit": "..."}.'
    return rejection(name, code, message, index)


def reject_unit(name: str, index: int | None = None) -> Rejection:
    return rejection(name, "invalid_unit", "A unit is text of at most 32 characters.", index)


def in_future(max_future_ms: int | None) -> tuple[str, str]:
    """Code and message for a time that lies too far ahead."""
    limit = f" more than {max_future_ms // 1000} s" if max_future_ms is not None else " too far"
    return "timestamp_in_future", f"This time lies{limit} in the future."


def rejection(name: str | None, code: str, message: str, index: int | None = None) -> Rejection:
    """A rejection whose name is fit to be sent back: bounded, and encodable."""
    if name is not None:
        name = name[:MAX_NAME_LENGTH].encode("utf-8", "replace").decode()
    return Rejection(name, code, message, msgspec.UNSET if index is None else index)
