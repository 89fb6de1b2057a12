"""Results as a table on the terminal, JSON, a Markdown table, and a plot."""

from typing import TYPE_CHECKING

import msgspec
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as TerminalTable

from iotflow.cli.bench.plot import plot
from iotflow.cli.bench.tables import Line, Table

if TYPE_CHECKING:
    from iotflow.cli.bench.runner import Outputs

HEADINGS = (
    "row",
    "requests/s",
    "points/s",
    "× plain",
    "p50 ms",
    "p99 ms",
    "at rate/s",
    "p50 ms",
    "p99 ms",
    "CPU µs/req",
    "RSS MB",
)


def publish(table: Table, console: Console, outputs: "Outputs") -> None:
    """Print the table, and write the files that were asked for."""
    for line in table.lines:
        console.print(f"{line.name:12} {line.title}", highlight=False)
    console.print(_full_speed(table))
    if any(line.at_rate is not None for line in table.lines):
        console.print(_fixed_rate(table))
    for note in notes(table):
        console.print(note, style="yellow")
    if outputs.json:
        outputs.json.write_bytes(msgspec.json.format(msgspec.json.encode(table)))
    if outputs.markdown:
        outputs.markdown.write_text(markdown(table), encoding="utf-8")
    if outputs.svg:
        outputs.svg.write_text(plot(table), encoding="utf-8")


def cells(line: Line) -> tuple[str, ...]:
    """A line as text, a cell for each of HEADINGS."""
    return (
        line.title,
        _count(line.rate),
        _count(line.points_per_s),
        _figure(line.ratio, 2),
        _figure(line.p50, 2),
        _figure(line.p99, 2),
        _count(line.at_rate),
        _figure(line.open_p50, 2),
        _figure(line.open_p99, 2),
        _figure(line.cpu_us, 0),
        _figure(line.rss_bytes / 1e6 if line.rss_bytes else None, 0),
    )


def notes(table: Table) -> list[str]:
    """What a reader must know before believing the figures."""
    found: list[str] = []
    for line in table.lines:
        for status, count in sorted(line.failures.items()):
            what = f"status {status}" if status else "a broken connection"
            found.append(f"{line.name}: {count} answers were {what}.")
        if line.unanswered:
            found.append(f"{line.name}: {line.unanswered} requests were never answered.")
        if line.generator_bound:
            found.append(f"{line.name}: the load generator was busy; the server can do more.")
    return found


def markdown(table: Table) -> str:
    """The table with what it was taken on, for docs/benchmarks.md."""
    rows = [HEADINGS, tuple(["---"] + ["---:"] * (len(HEADINGS) - 1)), *map(cells, table.lines)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    taken_on = ", ".join(f"{name} {value}" for name, value in table.machine.items())
    how = ", ".join(
        f"{name} {value}" for name, value in table.options.items() if value and name != "rows"
    )
    about = [f"Taken {table.taken_at} on: {taken_on}.", "", f"Options: {how}."]
    return (
        "\n".join([*lines, "", *about, "", *(f"- {note}" for note in notes(table))]).rstrip() + "\n"
    )


def _full_speed(table: Table) -> TerminalTable:
    columns = ("req/s", "points/s", "× plain", "p50 ms", "p99 ms", "CPU µs", "RSS MB")
    picked = (1, 2, 3, 4, 5, 9, 10)
    return _terminal("at full speed", columns, picked, table)


def _fixed_rate(table: Table) -> TerminalTable:
    return _terminal(
        "at a fixed rate, latency from when a request was due",
        ("req/s", "p50 ms", "p99 ms"),
        (6, 7, 8),
        table,
    )


def _terminal(
    title: str, columns: tuple[str, ...], picked: tuple[int, ...], table: Table
) -> TerminalTable:
    """Some of the cells, narrow enough for 80 columns."""
    terminal = TerminalTable("row", title=title, title_justify="left", box=SIMPLE)
    for column in columns:
        terminal.add_column(column, justify="right", no_wrap=True)
    for line in table.lines:
        found = cells(line)
        terminal.add_row(line.name, *(found[i] for i in picked))
    return terminal


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
