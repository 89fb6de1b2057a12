"""The figures of a run, worked out from its slices."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from iotflow.cli.bench.hit_rates import Lookups, hit_rates
from iotflow.cli.bench.machine import machine
from iotflow.cli.bench.plan import Result, ValidationResult
from iotflow.cli.bench.scenarios import ECHO, PLAIN

if TYPE_CHECKING:
    from iotflow.cli.bench.lanes import Lane

BUSY_GENERATOR = 0.9
"""The share of a core from which on a generator could not ask for much more."""

_NEAR_THE_CEILING = 0.9


class Slice(msgspec.Struct, frozen=True):
    """One slice of a row: at full speed, and at a rate below it; or at a fixed rate alone.

    By process (the server, the generator, each kind of store): `cpu_shares` of one core and
    `memory_bytes`, both of the first of the two loads.
    """

    closed: Result | None
    opened: Result | None
    cpu_s_per_request: float | None
    cpu_shares: dict[str, float]
    memory_bytes: dict[str, int]
    lookups: Lookups


class Line(msgspec.Struct, frozen=True):
    """A row's figures at `connections`: medians over its slices; latencies in milliseconds.

    `ratio` to the plain route is the median of the ratios of neighbouring slices at the same
    connections. `at_rate` is the rate of the open loop's successes, `open_p50` and `open_p99`
    count from the time a request was due. A row at a fixed rate has no closed loop, and the others
    no open one where none was asked for. `failures` counts, by status, whatever was no success.
    """

    system: str
    name: str
    title: str
    connections: int
    rate: float | None
    points_per_s: float | None
    ratio: float | None
    p50: float | None
    p99: float | None
    worst: float | None
    at_rate: float | None
    open_p50: float | None
    open_p99: float | None
    open_lag_p99: float | None
    cpu_us: float | None
    cpu_shares: dict[str, float]
    memory_bytes: dict[str, int]
    hit_rates: dict[str, float]
    failures: dict[int, int]
    unanswered: int
    generator_bound: bool
    slices: list[Slice]


class Validation(msgspec.Struct, frozen=True):
    """Key validation in a process of its own: what its own cache held, and what came of it."""

    system: str
    cache: str
    tasks: int
    rate: float
    p50: float
    p99: float


class Table(msgspec.Struct, frozen=True):
    """A whole run."""

    taken_at: str
    machine: dict[str, str]
    options: dict[str, Any]
    lines: list[Line]
    validations: list[Validation]

    @classmethod
    def of(
        cls, lanes: Sequence["Lane"], validations: list[Validation], options: dict[str, Any]
    ) -> "Table":
        """Work out every lane's line."""
        taken_at = datetime.now(UTC).isoformat(timespec="seconds")
        plain, echo = _yardsticks(lanes, PLAIN), _yardsticks(lanes, ECHO)
        ceilings = {n: _of(it, "closed", lambda each: each.rate) for n, it in echo.items()}
        lines = [
            _line(lane, plain.get(lane.connections, ()), ceilings.get(lane.connections))
            for lane in lanes
        ]
        return cls(taken_at, machine(), options, lines, validations)


def validation(
    system: str, cache: str, tasks: int, results: Sequence[ValidationResult]
) -> Validation:
    """The medians of several."""
    return Validation(
        system=system,
        cache=cache,
        tasks=tasks,
        rate=median(it.rate for it in results),
        p50=median(it.latency.p50 for it in results),
        p99=median(it.latency.p99 for it in results),
    )


def ratio_to(base: Sequence[Result], own: Sequence[Result]) -> float | None:
    """The median of the ratios of throughput, slice by slice; None where there is nothing."""
    ratios = [it.rate / to.rate for it, to in zip(own, base, strict=False) if to.rate]
    return median(ratios) if ratios else None


def _yardsticks(lanes: Sequence["Lane"], server: str) -> dict[int, list[Slice]]:
    return {lane.connections: lane.slices for lane in lanes if lane.row.server == server}


def _line(lane: "Lane", plain: Sequence[Slice], ceiling: float | None) -> Line:
    row, slices = lane.row, lane.slices
    loads = _results(slices, "closed") + _results(slices, "opened")
    rate = _of(slices, "closed", lambda it: it.rate)
    cpu_shares = _medians(it.cpu_shares for it in slices)
    return Line(
        system=lane.system,
        name=row.name,
        title=row.title,
        connections=lane.connections,
        rate=rate,
        points_per_s=rate * row.points if row.points and rate is not None else None,
        ratio=ratio_to(_results(plain, "closed"), _results(slices, "closed")),
        p50=_of(slices, "closed", lambda it: it.latency.p50),
        p99=_of(slices, "closed", lambda it: it.latency.p99),
        worst=max((it.latency.max for it in _results(slices, "closed")), default=None),
        at_rate=_of(slices, "opened", lambda it: it.rate),
        open_p50=_of(slices, "opened", lambda it: it.latency.p50),
        open_p99=_of(slices, "opened", lambda it: it.latency.p99),
        open_lag_p99=_of(slices, "opened", lambda it: it.lag.p99 if it.lag else 0.0),
        cpu_us=_cpu_us(slices),
        cpu_shares=cpu_shares,
        memory_bytes={k: int(v) for k, v in _medians(it.memory_bytes for it in slices).items()},
        hit_rates=hit_rates(it.lookups for it in slices),
        failures=failures_of(loads),
        unanswered=sum(it.unanswered for it in loads),
        generator_bound=_is_generator_bound(lane, rate, cpu_shares, ceiling),
        slices=slices,
    )


def _is_generator_bound(
    lane: "Lane", rate: float | None, cpu_shares: Mapping[str, float], ceiling: float | None
) -> bool:
    """Whether the generator could not ask for much more; the ceiling itself is always so."""
    if rate is None or lane.row.server == ECHO:
        return False
    near = ceiling is not None and rate > _NEAR_THE_CEILING * ceiling
    return near or cpu_shares.get("generator", 0.0) > BUSY_GENERATOR


def _results(slices: Sequence[Slice], kind: str) -> list[Result]:
    found: list[Result | None] = [getattr(it, kind) for it in slices]
    return [it for it in found if it is not None]


def _of(slices: Sequence[Slice], kind: str, value: Callable[[Result], float]) -> float | None:
    values = [value(it) for it in _results(slices, kind)]
    return median(values) if values else None


def _medians(each: Iterable[Mapping[str, float]]) -> dict[str, float]:
    known = list(each)
    names = dict.fromkeys(name for mapping in known for name in mapping)
    return {name: median(it[name] for it in known if name in it) for name in names}


def _cpu_us(slices: Sequence[Slice]) -> float | None:
    known = [it.cpu_s_per_request for it in slices if it.cpu_s_per_request is not None]
    return median(known) * 1e6 if known else None


def failures_of(results: Sequence[Result]) -> dict[int, int]:
    """Answers that were no success, by status, over several results."""
    total: dict[int, int] = {}
    for result in results:
        for status, count in result.failures.items():
            total[status] = total.get(status, 0) + count
    return total
