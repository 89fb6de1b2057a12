"""Curves: how one thing's growth changes the figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Any

import msgspec

from iotflow.cli.bench.lanes import Lane
from iotflow.cli.bench.machine import machine
from iotflow.cli.bench.plan import Result
from iotflow.cli.bench.tables import BUSY_GENERATOR, failures_of, ratio_to


class Mark(msgspec.Struct, frozen=True):
    """One place on a curve: medians over its slices; latencies in milliseconds."""

    x: int
    rate: float
    points_per_s: float | None
    ratio: float | None
    p50: float
    p99: float
    failures: dict[int, int]
    unanswered: int
    generator_bound: bool


class Curve(msgspec.Struct, frozen=True):
    """`axis` is what grows."""

    name: str
    title: str
    axis: str
    marks: list[Mark]


class ScaleTable(msgspec.Struct, frozen=True):
    """A whole run of one system. `ceiling` is the generator's, in requests a second."""

    taken_at: str
    machine: dict[str, str]
    options: dict[str, Any]
    system: str
    ceiling: float
    curves: list[Curve]

    @classmethod
    def of(
        cls, system: str, ceiling: float, curves: list[Curve], options: dict[str, Any]
    ) -> "ScaleTable":
        """What was measured, now, on this machine."""
        taken_at = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(taken_at, machine(), options, system, ceiling, curves)


@dataclass(slots=True)
class Case:
    """A place on a curve while it is measured; each slice next to one of the plain route."""

    x: int
    lane: Lane
    plain: Lane
    own: list[Result] = field(default_factory=list[Result])
    base: list[Result] = field(default_factory=list[Result])

    def take_slice(self, seconds: float) -> int:
        """Measure once; returns how many points were stored."""
        self.base.append(self.plain.load(seconds))
        self.own.append(self.lane.load(seconds))
        return self.own[-1].issued * self.lane.row.points

    def mark(self) -> Mark:
        rate, points = median(it.rate for it in self.own), self.lane.row.points
        return Mark(
            x=self.x,
            rate=rate,
            points_per_s=rate * points if points else None,
            ratio=ratio_to(self.base, self.own),
            p50=median(it.latency.p50 for it in self.own),
            p99=median(it.latency.p99 for it in self.own),
            failures=failures_of(self.own),
            unanswered=sum(it.unanswered for it in self.own),
            generator_bound=median(it.generator_share for it in self.own) > BUSY_GENERATOR,
        )


def powers_of_ten(least: int, most: int) -> Sequence[int]:
    """`least`, ten times that, and so on up to `most`; `most` alone where it is less."""
    found = [min(least, most)]
    while found[-1] * 10 <= most:
        found.append(found[-1] * 10)
    return found
