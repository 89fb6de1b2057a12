"""The figures of a run, worked out from its slices."""

import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from iotflow.cli.bench.plan import Result
from iotflow.cli.bench.scenarios import PLAIN, Row

_PACKAGES = ("iotflow", "fastapi", "uvicorn", "uvloop", "httptools", "sqlalchemy", "msgspec")
_BUSY_GENERATOR = 0.9


class Slice(msgspec.Struct, frozen=True):
    """One slice of a row: at full speed, and at a fixed rate below it."""

    closed: Result
    cpu_s_per_request: float | None
    opened: Result | None


class Line(msgspec.Struct, frozen=True):
    """A row's figures: medians over its slices; latencies in milliseconds.

    `ratio` to the plain route is the median of the ratios of neighbouring slices.
    `at_rate` is the fixed rate of `open_p50` and `open_p99`, which count from the time
    a request was due. `failures` counts, by status, whatever was no success.
    """

    name: str
    title: str
    rate: float
    points_per_s: float | None
    ratio: float | None
    p50: float
    p99: float
    worst: float
    at_rate: float | None
    open_p50: float | None
    open_p99: float | None
    cpu_us: float | None
    rss_bytes: int | None
    failures: dict[int, int]
    unanswered: int
    generator_bound: bool
    slices: list[Slice]


class Table(msgspec.Struct, frozen=True):
    """A whole run."""

    taken_at: str
    machine: dict[str, str]
    options: dict[str, Any]
    lines: list[Line]

    @classmethod
    def of(
        cls,
        rows: Mapping[Row, Sequence[Slice]],
        rss_bytes: Mapping[str, int | None],
        machine: dict[str, str],
        options: dict[str, Any],
    ) -> "Table":
        """Work out every row's line."""
        plain = next((slices for row, slices in rows.items() if row.name == PLAIN), ())
        lines = [_line(row, list(its), plain, rss_bytes[row.name]) for row, its in rows.items()]
        taken_at = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(taken_at, machine, options, lines)


def _line(row: Row, slices: list[Slice], plain: Sequence[Slice], rss_bytes: int | None) -> Line:
    closed = [it.closed for it in slices]
    opened = [it.opened for it in slices if it.opened is not None]
    rate = median(it.rate for it in closed)
    return Line(
        name=row.name,
        title=row.title,
        rate=rate,
        points_per_s=rate * row.points if row.points else None,
        ratio=_ratio(slices, plain),
        p50=median(it.latency.p50 for it in closed),
        p99=median(it.latency.p99 for it in closed),
        worst=max(it.latency.max for it in closed),
        at_rate=_median(opened, lambda it: it.rate),
        open_p50=_median(opened, lambda it: it.latency.p50),
        open_p99=_median(opened, lambda it: it.latency.p99),
        cpu_us=_cpu_us(slices),
        rss_bytes=rss_bytes,
        failures=_failures(closed + opened),
        unanswered=sum(it.unanswered for it in closed + opened),
        generator_bound=any(it.generator_cpu_s > _BUSY_GENERATOR * it.seconds for it in closed),
        slices=slices,
    )


def _ratio(slices: Sequence[Slice], plain: Sequence[Slice]) -> float | None:
    pairs = [(own.closed.rate, base.closed.rate) for own, base in zip(slices, plain, strict=False)]
    return median(own / base for own, base in pairs if base) if any(b for _, b in pairs) else None


def _median(results: Sequence[Result], value: Callable[[Result], float]) -> float | None:
    return median(value(it) for it in results) if results else None


def _cpu_us(slices: Sequence[Slice]) -> float | None:
    known = [it.cpu_s_per_request for it in slices if it.cpu_s_per_request is not None]
    return median(known) * 1e6 if known else None


def _failures(results: Sequence[Result]) -> dict[int, int]:
    total: dict[int, int] = {}
    for result in results:
        for status, count in result.failures.items():
            total[status] = total.get(status, 0) + count
    return total


def machine() -> dict[str, str]:
    """What the figures were taken on; nothing that names the machine."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        **{name: version(name) for name in _PACKAGES if _installed(name)},
    }


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
