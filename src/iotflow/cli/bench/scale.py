"""`iotflow bench scale`: curves of one system, each place a ratio to the plain route."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console

from iotflow.cli.bench.curves import Case, Curve, ScaleTable, powers_of_ten
from iotflow.cli.bench.fill import Filler
from iotflow.cli.bench.fleet import DAY_MINUTES, Fleet, register, signed_in
from iotflow.cli.bench.generator import ended_by_sigterm
from iotflow.cli.bench.lanes import Feed, Lane
from iotflow.cli.bench.options import BenchOptions, Outputs, chosen
from iotflow.cli.bench.scenarios import (
    ECHO,
    IOTFLOW,
    PLAIN,
    ROWS,
    Row,
    batches,
    plain_requests,
    submits,
    wide_reading,
)
from iotflow.cli.bench.systems import NAIVE, YARDSTICK, Launcher, system
from iotflow.errors import ConfigurationError

CURVES = ("points", "devices", "connections", "measurements", "batches")
_CONNECTIONS = (1, 4, 16, 64, 256, 1000)
_MEASUREMENTS = (1, 4, 16, 64, 256)
_BATCH_RECORDS = (1, 10, 100, 1000, 5000)
_WRITERS, _HISTORIES = 100, 5
_FEWEST_POINTS, _FEWEST_DEVICES = 10_000, 100
# What one generator holds: the longest batches come from fewer devices.
_RECORDS_IN_HAND = 20_000

_ROW = {row.name: row for row in ROWS}


@dataclass(slots=True)
class Scale:
    """A system under measurement. `stored` counts the points that it was given."""

    fleet: Fleet
    yardstick: Fleet
    options: BenchOptions
    console: Console
    stored: int = 0

    def lane(self, row: Row, fleet: Fleet, connections: int | None = None) -> Lane:
        connections = connections or self.options.connections[0]
        return Lane(self.options.systems[0], row, fleet, connections, Feed(row.requests(fleet)))

    def case(self, x: int, lane: Lane) -> Case:
        """`lane` at x, next to the plain route at as many connections."""
        feed = Feed(plain_requests(self.yardstick))
        return Case(x, lane, Lane(YARDSTICK, _ROW[PLAIN], self.yardstick, lane.connections, feed))

    def measure(self, cases: Sequence[Case]) -> None:
        """Slices of all cases in turn."""
        for case in cases:
            case.lane.probe()
            self.stored += case.lane.row.points
        for _ in range(self.options.slices):
            for case in cases:
                with self.console.status(f"measuring: {case.lane.row.title}, {case.x:,}"):
                    self.stored += case.take_slice(self.options.seconds)


def scale(options: BenchOptions, points: int, outputs: Outputs) -> bool:
    """Measure, print and write. False where some answers were failures.

    Raises:
        ConfigurationError: not one system, one that takes no batches, or there is no such curve.
        BenchError: a server did not start, or refused something.
    """
    from iotflow.cli.bench.report import console
    from iotflow.cli.bench.scale_report import publish

    names, terminal = chosen("--rows", options.rows, CURVES), console()
    if len(options.systems) != 1 or NAIVE in options.systems:
        raise ConfigurationError("--systems: scale takes one, and not naive: it takes no batches")
    measured = system(options.systems[0])
    with (
        ended_by_sigterm(),
        tempfile.TemporaryDirectory(prefix="iotflow-scale-") as scratch,
        contextlib.ExitStack() as stack,
    ):
        launcher = Launcher(Path(scratch), stack, _WRITERS, _HISTORIES)
        fleet = launcher.start(measured, IOTFLOW)
        stored = 2 * _WRITERS + _HISTORIES * DAY_MINUTES
        run = Scale(fleet, launcher.yardstick(PLAIN), options, terminal, stored)
        if measured.is_networked and options.warmup_s:
            warm_up = run.lane(_ROW["submit"], fleet).load(options.warmup_s)
            run.stored += 2 * warm_up.issued
        ceiling = _ceiling(run, launcher.yardstick(ECHO))
        curves = [curve for name in names for curve in _curves(name, run, points)]
    table = ScaleTable.of(measured.name, ceiling, curves, msgspec.to_builtins(options))
    publish(table, terminal, outputs)
    return not any(mark.failures for curve in curves for mark in curve.marks)


def _ceiling(run: Scale, echo: Fleet) -> float:
    lane = run.lane(_ROW[ECHO], echo)
    return median(lane.load(run.options.seconds).rate for _ in range(run.options.slices))


def _curves(name: str, run: Scale, points: int) -> list[Curve]:
    if name == "points":
        return _by_points(run, points)
    if name == "devices":
        return _by_devices(run)
    by = {"connections": _by_connections, "measurements": _by_width, "batches": _by_batch}
    return [by[name](run)]


def _by_points(run: Scale, most: int) -> list[Curve]:
    """What is submitted meanwhile is stored as well: a place says what was there as it began."""
    filler = Filler(run.fleet.server, [*run.fleet.writers, *run.fleet.histories])
    cases: dict[str, list[Case]] = {"history": [], "submit": []}
    for level in powers_of_ten(_FEWEST_POINTS, most):
        if run.stored > 2 * level:
            continue
        with run.console.status(f"filling up to {level:,} points"):
            run.stored += filler.add(max(1, level - run.stored))
        pair = [run.case(run.stored, run.lane(_ROW[name], run.fleet)) for name in cases]
        run.measure(pair)
        for name, case in zip(cases, pair, strict=True):
            cases[name].append(case)
    return [
        _curve(f"{name}-points", _ROW[name].title, "stored points", it)
        for name, it in cases.items()
    ]


def _by_devices(run: Scale) -> list[Curve]:
    """Each place is measured from all devices that are registered until then."""
    cases: dict[str, list[Case]] = {"submit": [], "credentials": []}
    fleet = run.fleet
    for level in powers_of_ten(_FEWEST_DEVICES, run.options.devices):
        with run.console.status(f"registering up to {level:,} devices"):
            fleet = _grown(fleet, level)
        asked = replace(fleet, writers=fleet.writers[:level])
        pair = [run.case(level, run.lane(_ROW[name], asked)) for name in cases]
        run.measure(pair)
        for name, case in zip(cases, pair, strict=True):
            cases[name].append(case)
    return [
        _curve(f"{name}-devices", _ROW[name].title, "devices", it) for name, it in cases.items()
    ]


def _grown(fleet: Fleet, devices: int) -> Fleet:
    more = devices - len(fleet.writers)
    if more <= 0:
        return fleet
    with signed_in(fleet.server) as api:  # anew each time: a token lives a quarter of an hour
        return replace(fleet, writers=[*fleet.writers, *register(api, more)])


def _by_connections(run: Scale) -> Curve:
    row = _ROW["submit"]
    lanes = [(n, run.lane(row, run.fleet, n)) for n in _CONNECTIONS]
    return _measured(run, "connections", row.title, "connections", lanes)


def _by_width(run: Scale) -> Curve:
    def rows() -> Iterator[tuple[int, Row]]:
        for width in _MEASUREMENTS:
            yield width, replace(_ROW["submit"], requests=submits(_wide(width)), points=width)

    lanes = [(width, run.lane(row, run.fleet)) for width, row in rows()]
    return _measured(run, "measurements", "submit, durable", "measurements", lanes)


def _wide(measurements: int) -> Callable[[int], bytes]:
    return lambda number: wide_reading(number, measurements)


def _by_batch(run: Scale) -> Curve:
    lanes: list[tuple[int, Lane]] = []
    for records in _BATCH_RECORDS:
        row = replace(_ROW["batch"], requests=batches(records), points=2 * records)
        writers = run.fleet.writers[: max(1, _RECORDS_IN_HAND // records)]
        lanes.append((records, run.lane(row, replace(run.fleet, writers=writers))))
    title = "batch, 2 measurements a record, durable"
    return _measured(run, "batches", title, "records a batch", lanes)


def _measured(
    run: Scale, name: str, title: str, axis: str, lanes: Sequence[tuple[int, Lane]]
) -> Curve:
    cases = [run.case(x, lane) for x, lane in lanes]
    run.measure(cases)
    return _curve(name, title, axis, cases)


def _curve(name: str, title: str, axis: str, cases: Sequence[Case]) -> Curve:
    return Curve(name, title, axis, [case.mark() for case in cases])
