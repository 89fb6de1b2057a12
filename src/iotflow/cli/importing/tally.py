"""What a file holds, summed up while it is read."""

from dataclasses import dataclass, field

from rich.table import Table

from iotflow.cli.importing.records import Record
from iotflow.cli.terminal import plain
from iotflow.domain.times import format_ms

_KINDS: dict[type, str] = {float: "numbers", int: "numbers", bool: "booleans", str: "texts"}
_MOST_NAMES = 1024
_MOST_SHOWN = 40


@dataclass(slots=True)
class _Measurement:
    first_ms: int
    last_ms: int
    kinds: dict[str, int] = field(default_factory=dict[str, int])


def _minute(timestamp_ms: int) -> str:
    return f"{format_ms(timestamp_ms)[:16].replace('T', ' ')} UTC"


class Tally:
    """Counts records and points, and by name their kinds and their range of time."""

    def __init__(self) -> None:
        self.records = 0
        self.points = 0
        self._measurements: dict[str, _Measurement] = {}

    def add(self, record: Record) -> None:
        self.records += 1
        self.points += len(record.values)
        for name, value in record.values.items():
            found = self._measurements.get(name)
            if found is None:
                if len(self._measurements) >= _MOST_NAMES:
                    continue
                found = _Measurement(record.timestamp_ms, record.timestamp_ms)
                self._measurements[name] = found
            kind = _KINDS[type(value)]
            found.kinds[kind] = found.kinds.get(kind, 0) + 1
            found.first_ms = min(found.first_ms, record.timestamp_ms)
            found.last_ms = max(found.last_ms, record.timestamp_ms)

    def table(self) -> Table:
        """A row each measurement, in the order of the file."""
        table = Table("Measurement", "Values", "From", "To", title="Read", title_justify="left")
        for name, found in list(self._measurements.items())[:_MOST_SHOWN]:
            values = ", ".join(f"{number:,} {kind}" for kind, number in found.kinds.items())
            table.add_row(plain(name), values, _minute(found.first_ms), _minute(found.last_ms))
        if len(self._measurements) > _MOST_SHOWN:
            table.add_row(f"and {len(self._measurements) - _MOST_SHOWN} more", "", "", "")
        return table
