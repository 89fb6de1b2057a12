"""The formats of an export.

CSV has the columns timestamp, measurement_name, value, unit; a value's type is not in it.
NDJSON has the same four fields, a row a line, and keeps the types. Parquet has
- `timestamp`: milliseconds, UTC; `measurement_name`, `unit`: text;
- `value`: every number, and booleans as 0 and 1, as a double, for calculating with;
- `value_int`, `value_bool`, `value_text`: the exact value where it is a 64-bit integer, a
  boolean or text. So a row's true value is the one of these three that is not null, and
  `value` where all are.
"""

import csv
import importlib
import io
from collections.abc import Sequence
from typing import Any, BinaryIO, Literal, Protocol

import msgspec

from iotflow.cli.exporting.pages import ExportedPoint
from iotflow.domain.times import format_ms, to_ms
from iotflow.errors import ConfigurationError

Format = Literal["csv", "ndjson", "parquet"]


class Writer(Protocol):
    """Writes points to a file that is open for bytes."""

    def write(self, points: Sequence[ExportedPoint]) -> None: ...

    def finish(self) -> None:
        """Write what a complete file ends with."""
        ...


def writer_for(kind: Format, file: BinaryIO) -> Writer:
    """Raises ConfigurationError where a library is missing."""
    match kind:
        case "csv":
            return CsvWriter(file)
        case "ndjson":
            return NdjsonWriter(file)
        case "parquet":
            return ParquetWriter(file)


class CsvWriter:
    def __init__(self, file: BinaryIO) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        self._writer = csv.writer(self._text)
        self._writer.writerow(("timestamp", "measurement_name", "value", "unit"))

    def write(self, points: Sequence[ExportedPoint]) -> None:
        self._writer.writerows(
            (_time(point), point.measurement_name, _cell(point.value), point.unit)
            for point in points
        )

    def finish(self) -> None:
        self._text.flush()
        self._text.detach()


class NdjsonWriter:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._encode_lines = msgspec.json.Encoder().encode_lines

    def write(self, points: Sequence[ExportedPoint]) -> None:
        rows = [
            {
                "timestamp": _time(point),
                "measurement_name": point.measurement_name,
                "value": point.value,
                "unit": point.unit,
            }
            for point in points
        ]
        self._file.write(self._encode_lines(rows))

    def finish(self) -> None:
        pass


class ParquetWriter:
    """A row group a page, so that memory stays bounded."""

    def __init__(self, file: BinaryIO) -> None:
        self._pa = pa = require_pyarrow()
        self._schema: Any = pa.schema(
            [
                ("timestamp", pa.timestamp("ms", tz="UTC")),
                ("measurement_name", pa.string()),
                ("value", pa.float64()),
                ("value_int", pa.int64()),
                ("value_bool", pa.bool_()),
                ("value_text", pa.string()),
                ("unit", pa.string()),
            ]
        )
        parquet: Any = importlib.import_module("pyarrow.parquet")
        self._writer: Any = parquet.ParquetWriter(file, self._schema, compression="zstd")

    def write(self, points: Sequence[ExportedPoint]) -> None:
        if not points:
            return
        columns: dict[str, list[Any]] = {
            "timestamp": [to_ms(point.timestamp) for point in points],
            "measurement_name": [point.measurement_name for point in points],
            "value": [_number(point.value) for point in points],
            "value_int": [_only(int, point.value) for point in points],
            "value_bool": [_only(bool, point.value) for point in points],
            "value_text": [_only(str, point.value) for point in points],
            "unit": [point.unit for point in points],
        }
        self._writer.write_table(self._pa.table(columns, schema=self._schema))

    def finish(self) -> None:
        self._writer.close()


def require_pyarrow() -> Any:
    """Raises ConfigurationError with how to install it."""
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        raise ConfigurationError(
            "--format parquet needs pyarrow: pip install 'iotflow[parquet]'."
        ) from None


def _time(point: ExportedPoint) -> str:
    return format_ms(to_ms(point.timestamp))


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _only(kind: type, value: object) -> object:
    return value if type(value) is kind else None
