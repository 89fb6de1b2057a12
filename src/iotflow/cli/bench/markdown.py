"""A run as Markdown, for docs/benchmarks.md."""

from collections.abc import Mapping, Sequence
from typing import cast

from iotflow.cli.bench.notes import notes
from iotflow.cli.bench.sections import Section, sections
from iotflow.cli.bench.tables import Table


def markdown(table: Table) -> str:
    """All tables, with the rows' titles and what they were taken on."""
    titles = dict.fromkeys(f"- `{line.name}`: {line.title}" for line in table.lines)
    parts = [
        "\n".join(titles),
        *(markdown_table(section) for section in sections(table)),
        taken_on(table.taken_at, table.machine, table.options),
        "\n".join(f"- {note}" for note in notes(table)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(section: Section) -> str:
    """A section under its title."""
    figures = len(section.headings) - section.names
    rule = ["---"] * section.names + ["---:"] * figures
    lines = [section.headings, tuple(rule), *section.rows]
    return "\n".join([f"**{section.title}**", "", *(f"| {' | '.join(it)} |" for it in lines)])


def taken_on(taken_at: str, machine: Mapping[str, str], options: Mapping[str, object]) -> str:
    """When, on what, and how."""
    taken = ", ".join(f"{name} {value}" for name, value in machine.items())
    how = ", ".join(f"{name} {_text(value)}" for name, value in options.items() if value)
    return f"Taken {taken_at} on: {taken}.\n\nOptions: {how}."


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return "/".join(map(str, cast("Sequence[object]", value)))
    return str(value)
