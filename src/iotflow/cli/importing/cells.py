"""Cells of a CSV file as typed values."""

import re
from collections.abc import Iterable
from math import isfinite

from iotflow.domain.points import INT64_MAX, INT64_MIN, Value
from iotflow.telemetry import verdicts
from iotflow.telemetry.verdicts import Rejection

_INTEGER = re.compile(r"[+-]?\d{1,400}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = frozenset({"nan", "inf", "infinity"})
_BOOLEANS = {"true": True, "false": False}


class Cells:
    """Reads numbers, booleans (true, false) and text, cell by cell.

    `missing` are words that mean "not measured", as an empty cell does.
    """

    def __init__(self, missing: Iterable[str] = (), decimal: str = ".") -> None:
        self._missing = frozenset(word.strip() for word in missing) | {""}
        self._decimal = decimal

    def is_missing(self, cell: str) -> bool:
        return cell.strip() in self._missing

    def value(self, name: str, cell: str) -> Value | Rejection:
        """The value of a cell that is not missing, or why it cannot be stored."""
        text = cell.strip()
        number = text.replace(",", ".", 1) if self._decimal == "," else text
        if _INTEGER.fullmatch(number):
            return _integer(name, number)
        if _NUMBER.fullmatch(number):
            return _finite(name, number)
        word = text.lower()
        if word in _BOOLEANS:
            return _BOOLEANS[word]
        if word.lstrip("+-") in _NOT_FINITE:
            return verdicts.reject_value(name, float("nan"))
        if verdicts.settled_value(cell) is None:
            return verdicts.reject_value(name, cell)
        return cell


def _integer(name: str, text: str) -> Value | Rejection:
    number = int(text)
    # What is no 64-bit integer is a float for the service as well.
    return number if INT64_MIN <= number <= INT64_MAX else _finite(name, text)


def _finite(name: str, text: str) -> Value | Rejection:
    number = float(text)
    return number if isfinite(number) else verdicts.reject_value(name, number)
