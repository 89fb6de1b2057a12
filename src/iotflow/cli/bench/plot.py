"""The bar chart of a run, as SVG written by hand: no plotting library for some bars."""

from collections.abc import Sequence
from html import escape

from iotflow.cli.bench.scenarios import ECHO
from iotflow.cli.bench.systems import SYSTEMS, YARDSTICK
from iotflow.cli.bench.tables import Line, Table

_WIDTH, _LABELS, _BAR, _GAP, _TOP = 860, 260, 16, 12, 84
_NOTES = 130  # room for the figure behind the longest bar
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.muted { fill: #656d76; font-size: 12px }
.yardstick { fill: #9aa4ad; stroke: #9aa4ad } .embedded { fill: #2f6f9f; stroke: #2f6f9f }
.configured { fill: #2e8b57; stroke: #2e8b57 } .postgres { fill: #b5762a; stroke: #b5762a }
.naive { fill: #a8443c; stroke: #a8443c } .line { fill: none; stroke-width: 2 }
.grid { stroke: #d0d7de; stroke-width: 1 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .muted { fill: #9198a1 }
.grid { stroke: #3d444d } }
</style>"""


def plot(table: Table) -> str:
    """Requests a second for each row and system, with the ratio to the plain route.

    At the most connections that were measured. The echo row is left out: it says what the tools
    can do, and would dwarf the others.
    """
    most = max((line.connections for line in table.lines), default=0)
    lines = [
        line
        for line in table.lines
        if line.connections == most and line.name != ECHO and line.rate is not None
    ]
    height, bars = _bars(lines)
    about = f"{table.machine['processor']}, {table.machine['cores']} cores, {most} connections"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
            STYLE,
            '<text x="0" y="20" class="title">Requests a second (× plain FastAPI route)</text>',
            f'<text x="0" y="42" class="muted">{escape(about)}, {table.taken_at[:10]}</text>',
            *legend(dict.fromkeys(line.system for line in lines), 58),
            *bars,
            "</svg>\n",
        ]
    )


def legend(systems: "dict[str, None]", top: int) -> list[str]:
    """A square of its colour for each system, in a row."""
    known = [name for name in (YARDSTICK, *SYSTEMS) if name in systems]
    return [
        f'<rect class="{name}" x="{number * 120}" y="{top}" width="12" height="12"/>'
        f'<text x="{number * 120 + 18}" y="{top + 11}">{name}</text>'
        for number, name in enumerate(known)
    ]


def _bars(lines: Sequence[Line]) -> tuple[int, list[str]]:
    """The height of all, and the bars: a group for each row."""
    most = max((line.rate or 0.0 for line in lines), default=0.0) or 1.0
    top, bars = _TOP, list[str]()
    for name in dict.fromkeys(line.name for line in lines):
        group = [line for line in lines if line.name == name]
        bars.append(
            f'<text x="{_LABELS - 10}" y="{top + _BAR - 3}" text-anchor="end">'
            f"{escape(group[0].title)}</text>"
        )
        for line in group:
            bars.append(_bar(line, top, most))
            top += _BAR + 2
        top += _GAP
    return top, bars


def _bar(line: Line, top: int, most: float) -> str:
    rate = line.rate or 0.0
    width = (_WIDTH - _LABELS - _NOTES) * rate / most
    ratio = "" if line.ratio is None else f" (×{line.ratio:.2f})"
    return (
        f'<rect class="{line.system}" x="{_LABELS}" y="{top}" width="{width:.1f}" '
        f'height="{_BAR}" rx="3"/>'
        f'<text x="{_LABELS + width + 8:.1f}" y="{top + _BAR - 3}">{rate:,.0f}{ratio}</text>'
    )
