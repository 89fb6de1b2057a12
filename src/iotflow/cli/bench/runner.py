"""Runs the rows: starts the servers, takes slices of every row in turn, collects figures."""

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress

from iotflow.cli.bench.fleet import Fleet
from iotflow.cli.bench.generator import ended_by_sigterm, validate_keys
from iotflow.cli.bench.lanes import Feed, Lane
from iotflow.cli.bench.options import BenchOptions, Outputs, chosen
from iotflow.cli.bench.plan import ValidationResult
from iotflow.cli.bench.scenarios import IOTFLOW, ROWS, Row
from iotflow.cli.bench.systems import (
    NAIVE,
    YARDSTICK,
    Launcher,
    System,
    system,
    validation_plan,
)
from iotflow.cli.bench.tables import Table, Validation, validation

VALIDATION = "validation"
"""The row of key validation without HTTP."""

WARM, COLD, NONE = "warm", "cold", "none"


@dataclass(slots=True)
class KeyLane:
    """Key validation of one system, while it is measured."""

    system: str
    fleet: Fleet
    cache: str
    tasks: int
    results: list[ValidationResult] = field(default_factory=list[ValidationResult])

    def take_slice(self, seconds: float) -> None:
        """Measure once.

        Raises:
            BenchError: the process failed.
        """
        plan = validation_plan(
            self.fleet, tasks=self.tasks, seconds=seconds, cold=self.cache == COLD
        )
        self.results.append(validate_keys(plan, self.fleet.server))

    def line(self) -> Validation:
        return validation(self.system, self.cache, self.tasks, self.results)


@dataclass(frozen=True, slots=True)
class Lanes:
    """All that is measured in turn."""

    rows: list[Lane]
    keys: list[KeyLane]


def bench(options: BenchOptions, outputs: Outputs) -> bool:
    """Measure, print and write. False where some answers were failures.

    Raises:
        ConfigurationError: there is no such row, or a system cannot be had.
        BenchError: a server did not start or refused the setting up.
    """
    from iotflow.cli.bench.report import console, publish

    known = (*(row.name for row in ROWS), VALIDATION)
    names = chosen("--rows", options.rows, known)
    systems = [system(name) for name in options.systems]
    terminal = console()
    with ended_by_sigterm(), tempfile.TemporaryDirectory(prefix="iotflow-bench-") as scratch:
        table = _measure(names, systems, options, Path(scratch), terminal)
    publish(table, terminal, outputs)
    return not any(line.failures for line in table.lines)


def _measure(
    names: Sequence[str],
    systems: list[System],
    options: BenchOptions,
    scratch: Path,
    console: Console,
) -> Table:
    with contextlib.ExitStack() as stack:
        launcher = Launcher(scratch, stack, options.devices)
        lanes = Lanes(_yardsticks(launcher, options), [])
        for each in systems:
            with console.status(f"starting and filling the system '{each.name}'"):
                _add(lanes, each, names, launcher, options)
        for lane in lanes.rows:
            lane.probe()
        _warm_up(lanes, systems, options, console)
        _take_slices(lanes, options, console)
    validations = [lane.line() for lane in lanes.keys]
    return Table.of(lanes.rows, validations, msgspec.to_builtins(options))


def _yardsticks(launcher: Launcher, options: BenchOptions) -> list[Lane]:
    """They are measured in every run, whichever rows were chosen."""
    lanes: list[Lane] = []
    for row in (row for row in ROWS if row.is_yardstick):
        fleet = launcher.yardstick(row.server)
        feed = Feed(row.requests(fleet))
        lanes += [Lane(YARDSTICK, row, fleet, n, feed) for n in options.connections]
    return lanes


def _add(
    lanes: Lanes, of: System, names: Sequence[str], launcher: Launcher, options: BenchOptions
) -> None:
    """A system's servers, and its lanes."""
    rows = [row for row in ROWS if row.name in names and of.has(row)]
    needed = dict.fromkeys(row.server for row in rows)
    if VALIDATION in names:
        needed[IOTFLOW] = None
    fleets = {server: launcher.start(of, server) for server in needed}
    stores = of.store_pids()
    for row in rows:
        fleet = fleets[row.server]
        feed = Feed(row.requests(fleet))
        for connections in _connections_of(row, options):
            lanes.rows.append(Lane(of.name, row, fleet, connections, feed, stores))
    if VALIDATION in names:
        caches = (WARM, COLD) if of.name != NAIVE else (NONE,)
        tasks = options.connections[0]
        lanes.keys.extend(KeyLane(of.name, fleets[IOTFLOW], cache, tasks) for cache in caches)


def _connections_of(row: Row, options: BenchOptions) -> tuple[int, ...]:
    """At a fixed rate more connections than are needed change nothing: measured with the most."""
    return options.connections[-1:] if row.fixed_rate else options.connections


def _warm_up(lanes: Lanes, systems: list[System], options: BenchOptions, console: Console) -> None:
    """Let servers that are not ours find out what is asked of them.

    A JVM that has just started takes a tenth of the writes that it takes after ten thousand.
    """
    networked = {each.name for each in systems if each.is_networked}
    warmed: set[str] = set()
    for lane in lanes.rows:
        if lane.system not in networked - warmed or lane.row.points == 0 or not options.warmup_s:
            continue
        warmed.add(lane.system)
        with console.status(f"warming the stores of '{lane.system}' up"):
            lane.load(options.warmup_s, options.guide_rate if lane.row.fixed_rate else None)


def _take_slices(lanes: Lanes, options: BenchOptions, console: Console) -> None:
    """A B C A B C …, so that a machine that slows down slows every row."""
    total = options.slices * (len(lanes.rows) + len(lanes.keys))
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=total)
        for _ in range(options.slices):
            for lane in _in_turn(lanes.rows):
                progress.update(task, description=f"{lane.system}: {lane.row.title}")
                lane.take_slice(options.seconds, options.open_load, options.guide_rate)
                progress.advance(task)
            for keys in lanes.keys:
                progress.update(task, description=f"{keys.system}: key validation")
                keys.take_slice(options.seconds)
                progress.advance(task)


def _in_turn(lanes: list[Lane]) -> list[Lane]:
    """A row of all systems, then the next row: what is compared is measured side by side."""
    order = {row.name: number for number, row in enumerate(ROWS)}
    return sorted(lanes, key=lambda lane: (order[lane.row.name], lane.connections))
