"""The contract of the telemetry role: in whatever order things come, a store is as the model."""

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iotflow.domain.points import INT64_MAX, INT64_MIN, Point
from iotflow.domain.times import DAY_MS, HOUR_MS, TimeRange
from iotflow.stores.telemetry.protocol import Order, Slot
from tests.contract.telemetry_adapters import TelemetryHarness
from tests.contract.telemetry_device import T0, YEAR_2026, DrivenDevice, exact, next_mark
from tests.contract.telemetry_model import TelemetryModel, numbers_of

NAMES = ("a", "b", "c")
# Few times, so that points meet; on both sides of a day's edge, and far away.
TIMES = [
    T0 + at for at in (0, 1, 2, HOUR_MS, DAY_MS - 1, DAY_MS, DAY_MS + 1, 3 * DAY_MS, 40 * DAY_MS)
]
BOUNDS = sorted({time + offset for time in TIMES for offset in (0, 1)})

values = st.one_of(
    st.floats(min_value=-1e300, max_value=1e300),
    st.integers(INT64_MIN, INT64_MAX),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
)
units = st.sampled_from(["", "C", "%"])
ranks = st.integers(0, 40)
"""Where among the marks an operation's stands: they do not rise in the order of arrival."""


@dataclass(frozen=True)
class Write:
    points: tuple[Point, ...]
    rank: int


@dataclass(frozen=True)
class Delete:
    within: TimeRange
    rank: int


@dataclass(frozen=True)
class Repeat:
    """Send again what was sent before."""

    which: int


def _ordered(bounds: tuple[int, int]) -> TimeRange:
    return TimeRange(min(bounds), max(bounds))


ranges = st.tuples(st.sampled_from(BOUNDS), st.sampled_from(BOUNDS)).map(_ordered)
points = st.lists(
    st.builds(Point, st.sampled_from(TIMES), st.sampled_from(NAMES), values, units),
    min_size=1,
    max_size=5,
    unique_by=lambda point: (point.timestamp_ms, point.measurement),
).map(tuple)
writes = st.builds(Write, points, ranks)
operations = st.lists(
    st.one_of(
        writes, writes, st.builds(Delete, ranges, ranks), st.builds(Repeat, st.integers(0, 9))
    ),
    min_size=1,
    max_size=16,
)


class Run:
    """Does every operation to a device and to its model."""

    def __init__(self, harness: TelemetryHarness) -> None:
        self.device = DrivenDevice(harness)
        self.model = TelemetryModel(harness.shadows)
        self._writes: list[tuple[tuple[Point, ...], int]] = []
        # Marks are unique, whatever ranks were drawn.
        self._free = {rank: [next_mark() for _ in range(20)] for rank in range(41)}

    async def do(self, operation: Write | Delete | Repeat) -> None:
        match operation:
            case Write(sent, rank):
                await self._write(sent, self._free[rank].pop(0))
            case Repeat(which):
                if self._writes:
                    await self._write(*self._writes[which % len(self._writes)])
            case Delete(within, rank):
                mark = self._free[rank].pop(0)
                answer = await self.device.store.delete_range(self.device.id, within, mark)
                deleted = self.model.delete(within, mark)
                assert answer == (deleted if self.device.harness.counts else None)

    async def _write(self, sent: tuple[Point, ...], mark: int) -> None:
        self._writes.append((sent, mark))
        await self.device.write(*sent, mark=mark)
        self.model.write(sent, mark)

    async def check_latest(self) -> None:
        latest, expected = await self.device.latest(), self.model.latest()
        assert exact(latest) == exact(expected)
        assert [p.written_us for p in latest] == [p.written_us for p in expected]

    async def check_history(self, within: TimeRange, names: tuple[str, ...], page: int) -> None:
        expected = self.model.history(within, names)
        forwards = await self.device.history(within=within, names=names, page=page)
        assert exact(forwards) == exact(expected)
        expected.sort(key=lambda p: (-p.timestamp_ms, p.measurement))
        backwards = await self.device.history(
            within=within, names=names, page=page, order=Order.DESC
        )
        assert exact(backwards) == exact(expected)

    async def check_slots(self, within: TimeRange, width_ms: int) -> None:
        for name in NAMES:
            found = await self.device.slots(width_ms, name=name, within=within, edges=True)
            expected = self.model.slots(name, within, width_ms)
            assert len(found) == len(expected)
            for slot, true in zip(found, expected, strict=True):
                self._check_slot(slot, true, name, within, width_ms)
            samples = await self.device.samples(name=name, within=within)
            numeric = [
                p for p in self.model.history(within, [name]) if not isinstance(p.value, str)
            ]
            assert [(s.timestamp_ms, s.value) for s in samples] == [
                (p.timestamp_ms, float(p.value)) for p in numeric
            ]

    def _check_slot(
        self, slot: Slot, true: Slot, name: str, within: TimeRange, width_ms: int
    ) -> None:
        assert (slot.start_ms, slot.count, slot.numeric_count) == (
            true.start_ms,
            true.count,
            true.numeric_count,
        )
        assert (slot.minimum, slot.maximum) == (true.minimum, true.maximum)
        assert slot.first is not None
        assert slot.last is not None
        assert true.first is not None
        assert true.last is not None
        assert exact([slot.first, slot.last]) == exact([true.first, true.last])
        if true.total is None:
            assert slot.total is None
            return
        # Servers add in an order of their own; what large numbers swallow is no error.
        inside = TimeRange(
            max(within.start_ms, slot.start_ms), min(within.end_ms, slot.start_ms + width_ms)
        )
        numbers = numbers_of([p.value for p in self.model.history(inside, [name])])
        size = sum(abs(number) for number in numbers)
        assert slot.total == pytest.approx(true.total, rel=1e-9, abs=size * 1e-12)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    steps=operations,
    within=ranges,
    names=st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(tuple),
    page=st.integers(1, 4),
    width_ms=st.sampled_from([1, 2, HOUR_MS, DAY_MS, 7 * DAY_MS]),
)
async def test_a_store_holds_what_the_model_holds(
    telemetry: TelemetryHarness,
    steps: list[Write | Delete | Repeat],
    within: TimeRange,
    names: tuple[str, ...],
    page: int,
    width_ms: int,
) -> None:
    run = Run(telemetry)
    for step in steps:
        await run.do(step)
        await run.check_latest()
    await run.check_history(YEAR_2026, (), page)
    await run.check_history(within, names, page)
    await run.check_slots(within, width_ms)
    with_points = {row.measurement for row in run.model.rows.values()}
    known = set(await telemetry.store.measurements(run.device.id))
    assert with_points <= known <= run.model.names
