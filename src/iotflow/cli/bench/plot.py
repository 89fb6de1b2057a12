"""The bar chart of a run, as SVG written by hand: no plotting library for ten bars."""

from html import escape

from iotflow.cli.bench.scenarios import PLAIN
from iotflow.cli.bench.tables import Line, Table

_WIDTH, _LABELS, _BAR, _GAP, _TOP = 860, 330, 22, 12, 64
_NOTES = 130  # room for the figure behind the longest bar
_CEILING = "echo"
_STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.muted { fill: #656d76; font-size: 12px }
.bar { fill: #2f6f9f } .yardstick { fill: #9aa4ad }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .muted { fill: #9198a1 } }
</style>"""


def plot(table: Table) -> str:
    """Requests a second for each row, with the ratio to the plain route.

    The echo row is left out: it says what the tools can do, and would dwarf the others.
    """
    lines = [line for line in table.lines if line.name != _CEILING]
    most = max((line.rate for line in lines), default=0.0) or 1.0
    height = _TOP + len(lines) * (_BAR + _GAP) + 8
    bars = (_bar(line, number, most) for number, line in enumerate(lines))
    about = f"{table.machine['processor']}, {table.machine['cores']} cores, one server process"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
            _STYLE,
            '<text x="0" y="20" class="title">Requests a second (× plain FastAPI route)</text>',
            f'<text x="0" y="42" class="muted">{escape(about)}, {table.taken_at[:10]}</text>',
            *bars,
            "</svg>\n",
        ]
    )


def _bar(line: Line, number: int, most: float) -> str:
    top = _TOP + number * (_BAR + _GAP)
    width = (_WIDTH - _LABELS - _NOTES) * line.rate / most
    baseline = top + _BAR - 6
    kind = "yardstick" if line.name == PLAIN else "bar"
    ratio = "" if line.ratio is None else f" (×{line.ratio:.2f})"
    return (
        f'<text x="{_LABELS - 10}" y="{baseline}" text-anchor="end">{escape(line.title)}</text>'
        f'<rect class="{kind}" x="{_LABELS}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="3"/>'
        f'<text x="{_LABELS + width + 8:.1f}" y="{baseline}">{line.rate:,.0f}{ratio}</text>'
    )
