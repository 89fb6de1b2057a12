"""What a reader must know before believing the figures."""

from collections.abc import Iterable

from iotflow.cli.bench.scenarios import ECHO
from iotflow.cli.bench.sections import count
from iotflow.cli.bench.tables import Line, Table

_LATE_MS, _LATE_SHARE = 1.0, 0.5


def notes(table: Table) -> list[str]:
    """The generator's ceiling first, then what went wrong."""
    found = [*_ceilings(table.lines), *(note for line in table.lines for note in _of(line))]
    if bound := [_name(line) for line in table.lines if line.generator_bound]:
        names = ", ".join(bound)
        found.append(f"The generator was the bottleneck, the server can do more: {names}.")
    if late := [_name(line) for line in table.lines if _sent_late(line)]:
        names = ", ".join(late)
        found.append(f"Much of the open loop's p99 is the generator's own lateness: {names}.")
    return found


def _ceilings(lines: Iterable[Line]) -> list[str]:
    return [
        f"The generator's own ceiling, against a raw ASGI echo at {line.connections} connections: "
        f"{count(line.rate)} requests/s."
        for line in lines
        if line.name == ECHO
    ]


def _of(line: Line) -> list[str]:
    found: list[str] = []
    for status, times in sorted(line.failures.items()):
        what = f"status {status}" if status else "a broken connection"
        found.append(f"{_name(line)}: {times:,} answers were {what}.")
    if line.unanswered:
        found.append(f"{_name(line)}: {line.unanswered:,} requests were never answered.")
    return found


def _name(line: Line) -> str:
    return f"{line.system} {line.name} at {line.connections}"


def _sent_late(line: Line) -> bool:
    if line.open_lag_p99 is None or line.open_p99 is None:
        return False
    return line.open_lag_p99 > max(_LATE_MS, _LATE_SHARE * line.open_p99)
