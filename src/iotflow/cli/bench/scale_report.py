"""Curves on the terminal, as JSON, Markdown, and a plot."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from rich.console import Console

from iotflow.cli.bench.curves import Curve, Mark, ScaleTable
from iotflow.cli.bench.markdown import markdown_table, taken_on
from iotflow.cli.bench.options import Outputs
from iotflow.cli.bench.plot import STYLE
from iotflow.cli.bench.report import show, write
from iotflow.cli.bench.sections import Section, at_least, count, figure

_WIDTH, _PANEL_WIDTH, _PANEL_HEIGHT, _TOP = 860, 430, 240, 56
_LEFT, _RIGHT, _ABOVE, _BELOW = 48, 24, 30, 40


def publish(table: ScaleTable, to: Console, outputs: Outputs) -> None:
    """Print the curves, and write the files that were asked for."""
    show(to, [section(curve) for curve in table.curves], notes(table))
    write(outputs, table, markdown=lambda: markdown(table), svg=lambda: plot(table))


def section(curve: Curve) -> Section:
    """A curve as a table."""
    headings = (curve.axis, "req/s", "points/s", "× plain", "p50 ms", "p99 ms")
    rows = [
        (
            count(mark.x),
            at_least(mark.rate, bound=mark.generator_bound),
            count(mark.points_per_s),
            figure(mark.ratio, 3),
            figure(mark.p50, 2),
            figure(mark.p99, 2),
        )
        for mark in curve.marks
    ]
    return Section(f"{curve.title}, by {curve.axis}", headings, rows, names=0)


def notes(table: ScaleTable) -> list[str]:
    """What a reader must know before believing the figures."""
    ceiling = (
        f"The generator's own ceiling, against a raw ASGI echo: {count(table.ceiling)} requests/s."
    )
    found = (note for curve in table.curves for mark in curve.marks for note in _of(curve, mark))
    return [ceiling, *found]


def _of(curve: Curve, mark: Mark) -> Iterator[str]:
    at = f"{curve.name} at {mark.x:,}"
    for status, times in sorted(mark.failures.items()):
        yield f"{at}: {times:,} answers were {f'status {status}' if status else 'broken'}."
    if mark.generator_bound:
        yield f"{at}: the generator was the bottleneck; the server can do more."
    if mark.unanswered:
        yield f"{at}: {mark.unanswered:,} requests were never answered."


def markdown(table: ScaleTable) -> str:
    """All curves as tables, and what they were taken on."""
    parts = [
        *(markdown_table(section(curve)) for curve in table.curves),
        taken_on(table.taken_at, table.machine, table.options),
        "\n".join(f"- {note}" for note in notes(table)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plot(table: ScaleTable) -> str:
    """A panel for each curve: the ratio to the plain route over what grows, on a log scale."""
    height = _TOP + math.ceil(len(table.curves) / 2) * _PANEL_HEIGHT
    panels = [
        f'<g transform="translate({number % 2 * _PANEL_WIDTH},'
        f'{_TOP + number // 2 * _PANEL_HEIGHT})">{_panel(curve, table.system)}</g>'
        for number, curve in enumerate(table.curves)
    ]
    about = f"{table.system}: {table.machine['processor']}, {table.machine['cores']} cores"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
            STYLE,
            '<text x="0" y="20" class="title">× plain FastAPI route, as something grows</text>',
            f'<text x="0" y="42" class="muted">{escape(about)}, {table.taken_at[:10]}</text>',
            *panels,
            "</svg>\n",
        ]
    )


def _panel(curve: Curve, system: str) -> str:
    marks = [mark for mark in curve.marks if mark.ratio is not None]
    places = _places(marks)
    bottom, right = _PANEL_HEIGHT - _BELOW, _PANEL_WIDTH - _RIGHT
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [
        f'<text x="{_LEFT}" y="16">{escape(curve.title)}</text>',
        f'<line class="grid" x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>',
        f'<polyline class="{system} line" points="{line}" style="fill: none"/>',
    ]
    for mark, (x, y) in zip(marks, places, strict=True):
        parts += [
            f'<circle class="{system}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>',
            _label(x, y - 8, f"{mark.ratio:.2g}"),
            _label(x, bottom + 16, _short(mark.x)),
        ]
    parts.append(_label((_LEFT + right) / 2, bottom + 34, escape(curve.axis)))
    return "".join(parts)


def _places(marks: Sequence[Mark]) -> list[tuple[float, float]]:
    """Where marks stand in a panel: x logarithmic, y from nought to the highest."""
    if not marks:
        return []
    logs = [math.log10(max(1, mark.x)) for mark in marks]
    least, span = min(logs), (max(logs) - min(logs)) or 1.0
    highest = max(mark.ratio or 0.0 for mark in marks) or 1.0
    width = _PANEL_WIDTH - _LEFT - _RIGHT - 32
    depth = _PANEL_HEIGHT - _ABOVE - _BELOW - 14
    return [
        (
            _LEFT + 16 + width * (at - least) / span,
            _PANEL_HEIGHT - _BELOW - depth * (mark.ratio or 0.0) / highest,
        )
        for at, mark in zip(logs, marks, strict=True)
    ]


def _label(x: float, y: float, text: str) -> str:
    return f'<text class="muted" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{text}</text>'


def _short(value: int) -> str:
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return str(value)
