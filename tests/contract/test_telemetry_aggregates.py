"""The contract of the telemetry role: slots and samples, on every adapter."""

import asyncio
from random import Random

import pytest

from iotflow.domain.points import INT64_MAX, Point, Value
from iotflow.domain.times import DAY_MS, HOUR_MS, MINUTE_MS, TimeRange
from iotflow.stores.telemetry.protocol import RangeTooLargeError, Sample, Slot
from tests.contract.telemetry_device import EVER, T0, YEAR_2026, DrivenDevice, exact, point


def numbers(slots: list[Slot]) -> list[tuple[int, int, int, float | None]]:
    """Start relative to T0, counts and total."""
    return [(s.start_ms - T0, s.count, s.numeric_count, s.total) for s in slots]


class TestSlots:
    async def test_statistics_of_each_slot(self, driven: DrivenDevice) -> None:
        values = {0: 1.5, 1: -2.0, 59_999: 4.0, 60_000: 10.0, 200_000: 0.25}
        await driven.write(*(point(at, "t", value) for at, value in values.items()))
        assert await driven.slots(MINUTE_MS) == [
            Slot(T0, 3, 3, 3.5, -2.0, 4.0),
            Slot(T0 + MINUTE_MS, 1, 1, 10.0, 10.0, 10.0),
            Slot(T0 + 3 * MINUTE_MS, 1, 1, 0.25, 0.25, 0.25),
        ]

    async def test_statistics_are_floats_whatever_was_measured(self, driven: DrivenDevice) -> None:
        await driven.write(point(0, "t", 1), point(1, "t", True))
        (slot,) = await driven.slots(MINUTE_MS)
        assert [type(n) for n in (slot.total, slot.minimum, slot.maximum)] == [float] * 3
        assert [type(n) for n in (slot.start_ms, slot.count, slot.numeric_count)] == [int] * 3

    async def test_an_empty_range_has_no_slots(self, driven: DrivenDevice) -> None:
        assert await driven.slots(MINUTE_MS) == []
        await driven.write(point(0), point(DAY_MS))
        within = TimeRange(T0 + 1, T0 + DAY_MS)
        assert await driven.slots(MINUTE_MS, within=within) == []
        assert await driven.slots(MINUTE_MS, within=TimeRange(T0, T0)) == []
        assert await driven.slots(MINUTE_MS, name="other") == []

    async def test_only_one_measurement_counts(self, driven: DrivenDevice) -> None:
        await driven.write(point(0, "s", 100), point(0, "t", 1), point(0, "tt", 100))
        assert numbers(await driven.slots(MINUTE_MS)) == [(0, 1, 1, 1.0)]

    async def test_sums_go_past_64_bits(self, driven: DrivenDevice) -> None:
        await driven.write(*(point(at, "t", INT64_MAX) for at in range(100)))
        (slot,) = await driven.slots(MINUTE_MS)
        assert slot.total == pytest.approx(100 * float(INT64_MAX))
        assert (slot.minimum, slot.maximum) == (float(INT64_MAX), float(INT64_MAX))

    async def test_booleans_count_as_zero_and_one(self, driven: DrivenDevice) -> None:
        values = (True, True, False, True)
        await driven.write(*(point(at, "t", value) for at, value in enumerate(values)))
        assert await driven.slots(MINUTE_MS) == [Slot(T0, 4, 4, 3.0, 0.0, 1.0)]

    async def test_text_is_counted_and_left_out(self, driven: DrivenDevice) -> None:
        values: tuple[Value, ...] = ("12", -3, "x", -5.5, "")
        await driven.write(*(point(at, "t", value) for at, value in enumerate(values)))
        await driven.write(point(MINUTE_MS, "t", "only text"))
        assert await driven.slots(MINUTE_MS) == [
            Slot(T0, 5, 2, -8.5, -5.5, -3.0),
            Slot(T0 + MINUTE_MS, 1, 0, None, None, None),
        ]

    async def test_a_point_that_changed_its_type_counts_as_what_it_is_now(
        self, driven: DrivenDevice
    ) -> None:
        await driven.write(point(0, "t", 7), point(1, "t", "text"), point(2, "t", True))
        await driven.write(point(0, "t", "text"), point(1, "t", 5.5), point(2, "t", 3))
        assert await driven.slots(MINUTE_MS) == [Slot(T0, 3, 2, 8.5, 3.0, 5.5)]

    @pytest.mark.parametrize("width_ms", [1, 7, 1_000, 90_000, HOUR_MS, 7 * DAY_MS])
    async def test_slots_are_counted_from_the_epoch(
        self, driven: DrivenDevice, width_ms: int
    ) -> None:
        times = sorted(Random(width_ms).sample(range(3 * width_ms + 10), 8))
        await driven.write(*(point(at, "t", 1) for at in times))
        expected: dict[int, int] = {}
        for at in times:
            start_ms = (T0 + at) // width_ms * width_ms
            expected[start_ms] = expected.get(start_ms, 0) + 1
        assert {slot.start_ms: slot.count for slot in await driven.slots(width_ms)} == expected

    async def test_the_range_cuts_the_first_and_the_last_slot(self, driven: DrivenDevice) -> None:
        await driven.write(*(point(at * 1_000, "t", 1) for at in range(180)))
        within = TimeRange(T0 + 30_000, T0 + 150_000)
        assert numbers(await driven.slots(MINUTE_MS, within=within)) == [
            (0, 30, 30, 30.0),
            (MINUTE_MS, 60, 60, 60.0),
            (2 * MINUTE_MS, 30, 30, 30.0),
        ]

    async def test_edges_are_the_first_and_last_points(self, driven: DrivenDevice) -> None:
        first = [point(0, "t", "text", "u"), point(5, "t", 2**60), point(59_999, "t", -0.0, "C")]
        alone = point(2 * MINUTE_MS, "t", True)
        await driven.write(*first, point(6, "other"), alone)
        slots = await driven.slots(MINUTE_MS, edges=True)
        assert [(s.start_ms - T0, s.count) for s in slots] == [(0, 3), (2 * MINUTE_MS, 1)]
        edges = [edge for slot in slots for edge in (slot.first, slot.last) if edge is not None]
        assert exact(edges) == exact([first[0], first[2], alone, alone])
        assert all(s.first is s.last is None for s in await driven.slots(MINUTE_MS))

    async def test_edges_lie_within_the_range(self, driven: DrivenDevice) -> None:
        await driven.write(*(point(at, "t", at) for at in range(10)))
        within = TimeRange(T0 + 2, T0 + 8)
        (slot,) = await driven.slots(MINUTE_MS, within=within, edges=True)
        assert (slot.first, slot.last) == (point(2, "t", 2), point(7, "t", 7))

    async def test_deleted_points_do_not_count(self, driven: DrivenDevice) -> None:
        await driven.write(*(point(at, "t", 1) for at in range(10)))
        await driven.delete(3, 6)
        await driven.write(point(4, "t", 100))
        assert numbers(await driven.slots(MINUTE_MS)) == [(0, 8, 8, 107.0)]

    @pytest.mark.parametrize("edges", [False, True])
    async def test_ten_thousand_slots_over_many_days(
        self, driven: DrivenDevice, edges: bool
    ) -> None:
        written = [point(at * 10 * MINUTE_MS + 7, "t", at) for at in range(10_000)]
        for begin in range(0, len(written), 2_500):
            await driven.write(*written[begin : begin + 2_500])
        slots = await driven.slots(10 * MINUTE_MS, edges=edges)
        assert numbers(slots) == [(at * 10 * MINUTE_MS, 1, 1, float(at)) for at in range(10_000)]
        if edges:
            assert exact(s.first for s in slots if s.first is not None) == exact(written)
            assert exact(s.last for s in slots if s.last is not None) == exact(written)

    async def test_many_readers_at_once(self, driven: DrivenDevice) -> None:
        await driven.write(*(point(at, "t", 1) for at in range(3_000)))
        answers = await asyncio.gather(*(driven.slots(1_000) for _ in range(40)))
        assert all(numbers(answer) == numbers(answers[0]) for answer in answers)
        assert [slot.count for slot in answers[0]] == [1_000] * 3


class TestRowBudget:
    @staticmethod
    async def hundred_points(driven: DrivenDevice) -> None:
        """Forty of `t`, sixty of another measurement, on two days."""
        await driven.write(*(point(at * HOUR_MS, "t", at) for at in range(40)))
        await driven.write(*(point(at * HOUR_MS, "u", at) for at in range(60)))

    async def test_it_counts_all_points_of_the_range(self, driven: DrivenDevice) -> None:
        await self.hundred_points(driven)
        assert sum(s.count for s in await driven.slots(DAY_MS, budget=100)) == 40
        assert len(await driven.samples(budget=100)) == 40
        with pytest.raises(RangeTooLargeError) as of_slots:
            await driven.slots(DAY_MS, budget=99)
        with pytest.raises(RangeTooLargeError) as of_samples:
            await driven.samples(budget=99)
        for raised in (of_slots, of_samples):
            assert raised.value.error_code == "range_too_large"
            assert "99" in raised.value.message

    async def test_a_shorter_range_fits(self, driven: DrivenDevice) -> None:
        await self.hundred_points(driven)
        within = TimeRange(T0 + 35 * HOUR_MS, T0 + 60 * HOUR_MS)
        slots = await driven.slots(HOUR_MS, within=within, budget=30)
        assert [s.start_ms - T0 for s in slots] == [at * HOUR_MS for at in range(35, 40)]
        with pytest.raises(RangeTooLargeError):
            await driven.slots(HOUR_MS, within=within, budget=29)

    async def test_a_large_range_is_refused_with_edges_too(self, driven: DrivenDevice) -> None:
        await driven.write(*(point(at, "t", 1) for at in range(12_000)))
        with pytest.raises(RangeTooLargeError):
            await driven.slots(1, budget=11_999, edges=True)
        assert len(await driven.slots(1, budget=12_000, edges=True)) == 12_000

    async def test_points_of_others_do_not_use_it_up(self, driven: DrivenDevice) -> None:
        other = DrivenDevice(driven.harness)
        await other.write(*(point(at) for at in range(50)))
        await driven.write(*(point(at) for at in range(5)))
        assert len(await driven.samples(budget=5)) == 5


class TestSamples:
    async def test_they_are_the_numbers_in_order_of_time(self, driven: DrivenDevice) -> None:
        values: dict[int, Value] = {9: 1.5, 3: True, 5: "text", 1: -7, DAY_MS: False, 2: 2**53}
        await driven.write(*(point(at, "t", value) for at, value in values.items()))
        await driven.write(point(4, "other", 1))
        samples = await driven.samples()
        assert samples == [
            Sample(T0 + 1, -7.0),
            Sample(T0 + 2, 2.0**53),
            Sample(T0 + 3, 1.0),
            Sample(T0 + 9, 1.5),
            Sample(T0 + DAY_MS, 0.0),
        ]
        assert {type(sample.value) for sample in samples} == {float}

    async def test_the_range_is_half_open(self, driven: DrivenDevice) -> None:
        await driven.write(*(point(at, "t", at) for at in range(10)))
        samples = await driven.samples(within=TimeRange(T0 + 3, T0 + 6))
        assert [sample.timestamp_ms - T0 for sample in samples] == [3, 4, 5]

    async def test_nothing_measured_gives_nothing(self, driven: DrivenDevice) -> None:
        assert await driven.samples(within=EVER) == []
        await driven.write(point(1, "t", "text"))
        assert await driven.samples(within=YEAR_2026) == []

    async def test_thousands(self, driven: DrivenDevice) -> None:
        written = [Point(T0 + at * MINUTE_MS, "t", at / 3) for at in range(20_000)]
        for begin in range(0, len(written), 5_000):
            await driven.write(*written[begin : begin + 5_000])
        samples = await driven.samples()
        assert [(s.timestamp_ms, s.value) for s in samples] == [
            (p.timestamp_ms, p.value) for p in written
        ]
