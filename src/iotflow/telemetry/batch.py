"""A batch between its decoding and its writing: readings, verdicts, and then points."""

from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from iotflow.domain.points import Point
from iotflow.telemetry.decoding import Reading
from iotflow.telemetry.verdicts import Rejection, in_future, rejection

MAX_EVENT_METADATA_BYTES = 64 * 1024
"""Of all records together; each has its own bound before (decoding.py)."""

_timestamp_ms = attrgetter("timestamp_ms")


class Batch:
    """What is good of a batch so far, and the verdicts on the rest.

    `points` are in order of time; of repeats within the batch the last stays. `accepted` counts
    repeats, too. `names` are the points' measurements.
    """

    points: tuple[Point, ...]
    accepted: int
    names: list[str]

    def __init__(self, judged: Sequence[Reading | Rejection], latest_allowed_ms: int) -> None:
        """Records later than `latest_allowed_ms` are refused."""
        self.rejected: list[Rejection] = []
        self._readings: list[tuple[int, Reading]] = []
        for index, each in enumerate(judged):
            if isinstance(each, Rejection):
                self.rejected.append(each)
            elif _time_of(each) > latest_allowed_ms:
                self.rejected.append(rejection(None, *in_future(None), index))
            else:
                self._readings.append((index, each))
                self.rejected += each.rejected
        self._collect()

    def refuse(self, names: Collection[str], message: str) -> None:
        """Refuse measurements that are too many for their device, wherever they occur."""
        for index, reading in self._readings:
            for point in reading.points:
                if point.measurement in names:
                    code = "too_many_measurements"
                    self.rejected.append(rejection(point.measurement, code, message, index))
            reading.points = [each for each in reading.points if each.measurement not in names]
        self._collect()

    def _collect(self) -> None:
        readings = [each for _, each in self._readings if each.points]
        readings.sort(key=_timestamp_ms)
        points: list[Point] = []
        for reading in readings:
            points += reading.points
        self.accepted = len(points)
        self.names = list(dict.fromkeys([point.measurement for point in points]))
        if len({each.timestamp_ms for each in readings}) < len(readings):
            last = {(point.timestamp_ms, point.measurement): point for point in points}
            points = list(last.values())
        self.points = tuple(points)
        self._stored = readings

    def details(self) -> dict[str, Any]:
        """The event's: names, counts, the range, and the metadata: all of it, or of how many
        records it had no room. There must be points."""
        details: dict[str, Any] = {
            "measurements": sorted(self.names),
            "count": len(self.points),
            "records": len(self._stored),
            "first_ms": self.points[0].timestamp_ms,
            "last_ms": self.points[-1].timestamp_ms,
        }
        metadata = [
            {"timestamp_ms": each.timestamp_ms, "metadata": each.metadata}
            for each in self._stored
            if each.metadata
        ]
        if metadata:
            if len(msgspec.json.encode(metadata)) <= MAX_EVENT_METADATA_BYTES:
                details["metadata"] = metadata
            else:
                details["metadata_omitted"] = len(metadata)
        return details


def _time_of(reading: Reading) -> int:
    return reading.timestamp_ms or 0  # a batch's records have one: decode_batch sees to it
