"""Pages of history, as JSON, CSV or NDJSON."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from iotflow.domain.points import DevicePoint, Point, Value
from iotflow.domain.times import format_ms

COLUMNS = ("timestamp", "measurement_name", "value", "unit")
_ROWS_A_CHUNK = 500


class Row(msgspec.Struct, gc=False):
    timestamp: str
    measurement_name: str
    value: Value
    unit: str | None


class FleetRow(Row, gc=False):
    device_id: int
    device_name: str


def rows(points: Sequence[Point]) -> list[Row]:
    """Points as they are told; no unit is null."""
    return [
        Row(format_ms(point.timestamp_ms), point.measurement, point.value, point.unit or None)
        for point in points
    ]


def fleet_rows(points: Sequence[DevicePoint], names: dict[int, str]) -> list[FleetRow]:
    return [
        FleetRow(
            format_ms(found.point.timestamp_ms),
            found.point.measurement,
            found.point.value,
            found.point.unit or None,
            found.device_id,
            names.get(found.device_id, ""),
        )
        for found in points
    ]


def ndjson(found: Sequence[Row]) -> Iterator[bytes]:
    """A row a line, in chunks."""
    encode_lines = msgspec.json.Encoder().encode_lines
    for begin in range(0, len(found), _ROWS_A_CHUNK):
        yield encode_lines(found[begin : begin + _ROWS_A_CHUNK])


def csv_text(found: Sequence[Row]) -> Iterator[bytes]:
    """A header line, then a row a line (RFC 4180), in chunks. Booleans are true and false."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for begin in range(0, max(1, len(found)), _ROWS_A_CHUNK):
        writer.writerows(_cells(row) for row in found[begin : begin + _ROWS_A_CHUNK])
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()


def _cells(row: Row) -> tuple[Any, ...]:
    value = row.value
    if isinstance(value, bool):
        value = "true" if value else "false"
    return row.timestamp, row.measurement_name, value, row.unit
