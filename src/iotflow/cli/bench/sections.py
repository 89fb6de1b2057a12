"""What a run has to say, as tables of text: the terminal and Markdown show the same."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from iotflow.cli.bench.tables import Line, Table

_KINDS = {"latest": "latest", "local_key": "key, process", "key": "key, cache"}


@dataclass(frozen=True, slots=True)
class Section:
    """The first `names` columns are names, the rest figures."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    names: int = 2


def sections(table: Table) -> list[Section]:
    """Those that hold something."""
    found = (
        _full_speed(table.lines),
        _open_loop(table.lines),
        _processors(table.lines),
        _memory(table.lines),
        _caches(table.lines),
        _validations(table),
    )
    return [section for section in found if section.rows]


_PLACE = ("system", "row", "conns")


def _place(line: Line) -> tuple[str, str, str]:
    return line.system, line.name, str(line.connections)


def _full_speed(lines: Iterable[Line]) -> Section:
    headings = (*_PLACE, "req/s", "points/s", "× plain", "p50 ms", "p99 ms", "CPU µs/req")
    rows = [
        (
            *_place(line),
            at_least(line.rate, bound=line.generator_bound),
            count(line.points_per_s),
            figure(line.ratio, 2),
            figure(line.p50, 2),
            figure(line.p99, 2),
            figure(line.cpu_us, 0),
        )
        for line in lines
        if line.rate is not None
    ]
    return Section("At full speed (closed loop)", headings, rows)


def _open_loop(lines: Iterable[Line]) -> Section:
    headings = (*_PLACE, "at rate/s", "p50 ms", "p99 ms", "generator's part")
    rows = [
        (
            *_place(line),
            count(line.at_rate),
            figure(line.open_p50, 2),
            figure(line.open_p99, 2),
            figure(line.open_lag_p99, 2),
        )
        for line in lines
        if line.at_rate is not None
    ]
    return Section("At a fixed rate (open loop: from when a request was due)", headings, rows)


def _processors(lines: Sequence[Line]) -> Section:
    names = list(dict.fromkeys(name for line in lines for name in line.cpu_shares))
    rows = [
        (
            *_place(line),
            *(percent(line.cpu_shares.get(name)) for name in names),
        )
        for line in lines
        if line.cpu_shares
    ]
    return Section("Processor, % of one core", (*_PLACE, *names), rows)


def _memory(lines: Sequence[Line]) -> Section:
    """The most that each process of a system held after any of its rows."""
    most: dict[str, dict[str, int]] = {}
    for line in lines:
        for name, size in line.memory_bytes.items():
            of = most.setdefault(line.system, {})
            of[name] = max(size, of.get(name, 0))
    names = list(dict.fromkeys(name for of in most.values() for name in of))
    rows = [
        (system, *(figure(of[name] / 1e6 if name in of else None, 0) for name in names))
        for system, of in most.items()
    ]
    return Section("Resident memory, MB", ("system", *names), rows, names=1)


def _caches(lines: Iterable[Line]) -> Section:
    rows = [
        (
            *_place(line),
            *(percent(line.hit_rates.get(kind), 1) for kind in _KINDS),
        )
        for line in lines
        if line.hit_rates
    ]
    return Section("Cache hits, %", (*_PLACE, *_KINDS.values()), rows)


def _validations(table: Table) -> Section:
    headings = ("system", "its own cache", "tasks", "validations/s", "p50 ms", "p99 ms")
    rows = [
        (
            line.system,
            line.cache,
            str(line.tasks),
            count(line.rate),
            figure(line.p50, 4),
            figure(line.p99, 4),
        )
        for line in table.validations
    ]
    return Section("Key validation without HTTP", headings, rows)


def count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def at_least(value: float | None, *, bound: bool) -> str:
    """A count that is a lower bound where the generator was the bottleneck."""
    return f"{'≥' if bound else ''}{count(value)}"


def figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def percent(share: float | None, digits: int = 0) -> str:
    return "" if share is None else f"{share * 100:,.{digits}f}"
