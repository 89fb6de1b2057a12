"""A batch between its decoding and its writing: readings, verdicts, and then points."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from iotflow.domain.points import Point
from iotflow.telemetry.decoding import Reading
from iotflow.telemetry.verdicts import Rejection, in_future, rejection

MAX_EVENT_METADATA_BYTES = 64 * 1024
"""Of all records together; each has its own bound before (decoding.py)."""


class Batch:
    """The readings that are good so far, each with its place in the batch."""

    def __init__(self, readings: list[tuple[int, Reading]], rejected: list[Rejection]) -> None:
        self.rejected = rejected
        self._readings = readings

    @classmethod
    def of(cls, judged: Sequence[Reading | Rejection], latest_allowed_ms: int) -> "Batch":
        """Records later than `latest_allowed_ms` are refused."""
        readings: list[tuple[int, Reading]] = []
        rejected: list[Rejection] = []
        for index, each in enumerate(judged):
            if isinstance(each, Rejection):
                rejected.append(each)
            elif _time_of(each) > latest_allowed_ms:
                rejected.append(rejection(None, *in_future(None), index))
            else:
                readings.append((index, each))
                rejected += each.rejected
        return cls(readings, rejected)

    def names(self) -> list[str]:
        """The measurements, in the order in which they first occur."""
        return list(
            dict.fromkeys([name for _, each in self._readings for name, _, _ in each.values])
        )

    def refuse(self, names: Collection[str], message: str) -> None:
        """Refuse measurements that are too many for their device, wherever they occur."""
        for index, reading in self._readings:
            for name, _, _ in reading.values:
                if name in names:
                    code = "too_many_measurements"
                    self.rejected.append(rejection(name, code, message, index))
            reading.values = [value for value in reading.values if value[0] not in names]

    @property
    def accepted(self) -> int:
        """How many measurements are good."""
        return sum([len(each.values) for _, each in self._readings])

    def points(self) -> tuple[Point, ...]:
        """Of repeats within the batch the last stays."""
        points = [
            Point(_time_of(each), name, value, unit)
            for _, each in self._readings
            for name, value, unit in each.values
        ]
        if len({each.timestamp_ms for _, each in self._readings}) < len(self._readings):
            points = {(point.timestamp_ms, point.measurement): point for point in points}.values()
        return tuple(points)

    def details(self, points: Sequence[Point]) -> dict[str, Any]:
        """The event's: names, counts, the range, and the metadata: all of it, or of how many
        records it had no room."""
        times = [_time_of(each) for _, each in self._readings if each.values]
        details: dict[str, Any] = {
            "measurements": sorted(self.names()),
            "count": len(points),
            "records": len(times),
            "first_ms": min(times),
            "last_ms": max(times),
        }
        metadata = [
            {"timestamp_ms": each.timestamp_ms, "metadata": each.metadata}
            for _, each in self._readings
            if each.metadata and each.values
        ]
        if metadata:
            if len(msgspec.json.encode(metadata)) <= MAX_EVENT_METADATA_BYTES:
                details["metadata"] = metadata
            else:
                details["metadata_omitted"] = len(metadata)
        return details


def _time_of(reading: Reading) -> int:
    return reading.timestamp_ms or 0  # a batch's records have one: decode_batch sees to it
