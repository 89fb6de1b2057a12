"""JSON as it is kept with an event: text that any parser reads back."""

import json
from typing import Any

import msgspec

_quick = msgspec.json.Encoder().encode
_strict = json.JSONEncoder(allow_nan=False).encode


def strict_json(value: Any) -> str:
    """`value` as JSON; halves of surrogate pairs are escaped.

    Raises:
        ValueError, TypeError: it has something that JSON has not, such as NaN or an object.
    """
    try:
        text = _quick(value).decode()
    except (ValueError, TypeError, OverflowError, RecursionError):
        return _strict(value)
    # What the quick encoder makes of NaN and infinities.
    return _strict(value) if "null" in text else text
