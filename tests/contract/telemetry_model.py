"""What a telemetry store must hold of one device, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import fsum

from iotflow.domain.points import LatestPoint, Point, Value
from iotflow.domain.times import TimeRange
from iotflow.stores.telemetry.protocol import Slot


@dataclass(frozen=True)
class Deletion:
    within: TimeRange
    mark: int

    def covers(self, timestamp_ms: int, mark: int) -> bool:
        return self.within.start_ms <= timestamp_ms < self.within.end_ms and mark < self.mark


@dataclass
class TelemetryModel:
    """`shadows` is whether a delete also hides what arrives after it with an older mark."""

    shadows: bool
    rows: dict[tuple[int, str], LatestPoint] = field(default_factory=dict)
    deletions: list[Deletion] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def write(self, points: Sequence[Point], mark: int) -> None:
        for point in points:
            key = (point.timestamp_ms, point.measurement)
            self.names.add(point.measurement)
            held = self.rows.get(key)
            if held is not None and held.written_us > mark:
                continue
            if self.shadows and any(d.covers(point.timestamp_ms, mark) for d in self.deletions):
                continue
            self.rows[key] = LatestPoint(*key, point.value, point.unit, mark)

    def delete(self, within: TimeRange, mark: int) -> int:
        deletion = Deletion(within, mark)
        self.deletions.append(deletion)
        gone = [key for key, row in self.rows.items() if deletion.covers(key[0], row.written_us)]
        for key in gone:
            del self.rows[key]
        return len(gone)

    def history(self, within: TimeRange, names: Sequence[str] = ()) -> list[LatestPoint]:
        return [
            row
            for (timestamp_ms, name), row in sorted(self.rows.items())
            if within.start_ms <= timestamp_ms < within.end_ms and (not names or name in names)
        ]

    def latest(self) -> list[LatestPoint]:
        newest = {row.measurement: row for _, row in sorted(self.rows.items())}
        return [newest[name] for name in sorted(newest)]

    def slots(self, name: str, within: TimeRange, width_ms: int) -> list[Slot]:
        grouped: dict[int, list[LatestPoint]] = {}
        for row in self.history(within, [name]):
            grouped.setdefault(row.timestamp_ms // width_ms * width_ms, []).append(row)
        return [_slot(start_ms, rows) for start_ms, rows in grouped.items()]


def _slot(start_ms: int, rows: Sequence[LatestPoint]) -> Slot:
    numbers = numbers_of([row.value for row in rows])
    return Slot(
        start_ms,
        len(rows),
        len(numbers),
        fsum(numbers) if numbers else None,
        min(numbers, default=None),
        max(numbers, default=None),
        first=_point(rows[0]),
        last=_point(rows[-1]),
    )


def numbers_of(values: Sequence[Value]) -> list[float]:
    return [float(value) for value in values if not isinstance(value, str)]


def _point(row: LatestPoint) -> Point:
    return Point(row.timestamp_ms, row.measurement, row.value, row.unit)
