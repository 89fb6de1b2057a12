"""JSON as it is kept with an event."""

import json
from typing import Any

import pytest

from iotflow.domain.strict_json import strict_json


@pytest.mark.parametrize(
    "value",
    [
        {"measurements": ["temperature"], "count": 1},
        {"nothing": None, "text": "null", "list": [None, True, -0.0, 1e-7, 10**300, 2**70]},
        {"ü": "\0 \u2028 \U0001f600", "half": "\ud800"},
        [],
        None,
    ],
)
def test_it_is_read_back_as_it_was(value: Any) -> None:
    text = strict_json(value)
    assert repr(json.loads(text)) == repr(value)
    assert text.isascii()  # no halves of surrogate pairs but escaped ones


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), object(), b"x", {"deep": [{"er": object()}]}],
)
def test_what_json_has_not_is_refused(value: Any) -> None:
    for nested in (value, {"in": [value]}, {"null": None, "in": value}):
        with pytest.raises((ValueError, TypeError)):
            strict_json(nested)
