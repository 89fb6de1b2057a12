"""A run on the terminal, and the files that were asked for."""

import sys
from collections.abc import Callable, Sequence

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as TerminalTable

from iotflow.cli.bench.markdown import markdown
from iotflow.cli.bench.notes import notes
from iotflow.cli.bench.options import Outputs
from iotflow.cli.bench.plot import plot
from iotflow.cli.bench.sections import Section, sections
from iotflow.cli.bench.tables import Table

WIDTH = 100


def console() -> Console:
    """The terminal; where there is none, the width that all tables fit in."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def publish(table: Table, to: Console, outputs: Outputs) -> None:
    """Print a run's tables, and write the files that were asked for."""
    show(to, sections(table), notes(table))
    write(outputs, table, markdown=lambda: markdown(table), svg=lambda: plot(table))


def show(to: Console, found: Sequence[Section], notes: Sequence[str]) -> None:
    """Print tables, and what must be known of them."""
    for section in found:
        to.print(terminal(section))
    for note in notes:
        to.print(note, style="yellow", highlight=False)


def write(
    outputs: Outputs, found: object, markdown: Callable[[], str], svg: Callable[[], str]
) -> None:
    """Write the files that were asked for; `found` is the JSON."""
    if outputs.json:
        outputs.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    if outputs.markdown:
        outputs.markdown.write_text(markdown(), encoding="utf-8")
    if outputs.svg:
        outputs.svg.write_text(svg(), encoding="utf-8")


def terminal(section: Section) -> TerminalTable:
    """A section for the terminal; headings are short enough for 100 columns."""
    table = TerminalTable(
        title=section.title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for number, heading in enumerate(section.headings):
        table.add_column(
            heading, justify="left" if number < section.names else "right", no_wrap=True
        )
    _add_rows(table, section.rows)
    return table


def _add_rows(table: TerminalTable, rows: Sequence[tuple[str, ...]]) -> None:
    for row in rows:
        table.add_row(*row)
