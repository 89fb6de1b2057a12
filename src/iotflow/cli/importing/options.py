"""What an import was asked to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Layout = Literal["auto", "wide", "long"]
MissingHour = Literal["shift", "skip"]
RepeatedHour = Literal["in-order", "first", "second"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """The options of `iotflow import csv`, as they were given."""

    file: Path
    url: str = "http://127.0.0.1:8000"
    api_key: str | None = None
    layout: Layout = "auto"
    time_column: str | None = None
    time_format: str | None = None
    timezone: str | None = None
    missing_hour: MissingHour = "shift"
    repeated_hour: RepeatedHour = "in-order"
    measurement: tuple[str, ...] = ()
    value: str | None = None
    unit_column: str | None = None
    rename: tuple[str, ...] = ()
    unit: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    decimal: str = "."
    delimiter: str | None = None
    encoding: str | None = None
    batch_size: int = 5000
    patience_s: float = 60.0
    dry_run: bool = False
    state: Path | None = None
    report: Path | None = None

    @property
    def state_file(self) -> Path:
        return self.state or self.file.with_name(f"{self.file.name}.import-state.json")

    def reading(self) -> dict[str, object]:
        """Everything that decides which batches come of the file, for a state to be tied to."""
        return {
            "layout": self.layout,
            "time_column": self.time_column,
            "time_format": self.time_format,
            "timezone": self.timezone,
            "missing_hour": self.missing_hour,
            "repeated_hour": self.repeated_hour,
            "measurement": self.measurement,
            "value": self.value,
            "unit_column": self.unit_column,
            "rename": self.rename,
            "unit": self.unit,
            "missing": self.missing,
            "decimal": self.decimal,
            "delimiter": self.delimiter,
            "encoding": self.encoding,
            "batch_size": self.batch_size,
        }
