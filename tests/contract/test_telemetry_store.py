"""The contract of the telemetry role, on every adapter (stores/telemetry/protocol.py).

Aggregates have a module of their own, and so has the comparison with a model.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from iotflow.domain.points import INT64_MAX, INT64_MIN, DevicePoint, Point, Submission, Value
from iotflow.domain.times import DAY_MS, HOUR_MS, MAX_TIMESTAMP_MS, TimeRange
from iotflow.errors import StoreUnavailableError
from iotflow.stores.telemetry.protocol import (
    FleetHistoryQuery,
    FleetPageKey,
    HistoryQuery,
    MarkQuery,
    Order,
    PageKey,
    SlotQuery,
    TelemetryStore,
)
from tests.contract.telemetry_adapters import SHARED, TelemetryHarness
from tests.contract.telemetry_device import (
    EVER,
    T0,
    YEAR_2026,
    DrivenDevice,
    exact,
    next_mark,
    point,
)

VALUES: list[Value] = [
    0.0,
    -0.0,
    1.0,
    0.1,
    -273.15,
    5e-324,
    2.2250738585072014e-308,
    1e308,
    -1.7976931348623157e308,
    2.0**53,
    0,
    1,
    -1,
    2**53 + 1,
    INT64_MAX,
    INT64_MAX - 1,
    INT64_MIN,
    True,
    False,
    "",
    "on",
    "0",
    "1.5",
    "true",
    "null",
    "Grüße, 温度 🌡 \u202e \t\n'\"\\ %_",
    "e\u0301 is not \u00e9",
    "x" * 10_000,
]


def calls(store: TelemetryStore, driven: DrivenDevice) -> list[Any]:
    """A call of every method."""
    return [
        store.ping(),
        store.write(Submission(driven.id, 1, (point(0),), next_mark())),
        store.history(HistoryQuery(driven.id, YEAR_2026, 1)),
        store.fleet_history(FleetHistoryQuery((driven.id,), YEAR_2026, 1)),
        store.latest([driven.id]),
        store.measurements(driven.id),
        store.slots(SlotQuery(driven.id, "t", YEAR_2026, 1_000, 10)),
        store.samples(driven.id, "t", YEAR_2026, 10),
        store.marks(MarkQuery(driven.id, YEAR_2026, 0, 1, 10)),
        store.devices(None, 10),
        store.delete_range(driven.id, YEAR_2026, next_mark()),
        store.delete_device(driven.id),
    ]


@asynccontextmanager
async def opened(harness: TelemetryHarness) -> AsyncGenerator[TelemetryStore]:
    """Another adapter on the same storage."""
    other = harness.unopened()
    await other.open()
    try:
        yield other
    finally:
        await other.close()


class TestLifecycle:
    async def test_ping_answers_and_the_backend_is_named(self, telemetry: TelemetryHarness) -> None:
        await telemetry.store.ping()
        assert telemetry.store.backend

    async def test_nothing_works_before_it_is_opened(self, driven: DrivenDevice) -> None:
        for call in calls(driven.harness.unopened(), driven):
            with pytest.raises(StoreUnavailableError):
                await call

    async def test_nothing_works_after_it_was_closed(self, driven: DrivenDevice) -> None:
        store = driven.harness.unopened()
        await store.open()
        await store.ping()
        await store.close()
        for call in calls(store, driven):
            with pytest.raises(StoreUnavailableError):
                await call

    async def test_closing_what_was_never_opened_does_nothing(
        self, telemetry: TelemetryHarness
    ) -> None:
        store = telemetry.unopened()
        await store.close()
        with pytest.raises(StoreUnavailableError):
            await store.ping()
        async with opened(telemetry) as store:  # and it can be opened all the same
            await store.ping()

    async def test_what_was_written_is_there_for_whoever_opens_it(
        self, driven: DrivenDevice
    ) -> None:
        await driven.write(point(1, "t", 1.5, "C"))
        async with opened(driven.harness) as other:
            page = await other.history(HistoryQuery(driven.id, YEAR_2026, 10))
            assert exact(page.items) == exact([point(1, "t", 1.5, "C")])
            newest = await other.latest([driven.id])
            assert [each.value for each in newest[driven.id]] == [1.5]

    @pytest.mark.parametrize("telemetry", SHARED, indirect=True)
    async def test_what_was_written_is_there_for_everyone_at_once(
        self, driven: DrivenDevice
    ) -> None:
        async with opened(driven.harness) as other:
            await driven.write(point(1, "t", 1.5, "C"))
            page = await other.history(HistoryQuery(driven.id, YEAR_2026, 10))
            assert exact(page.items) == exact([point(1, "t", 1.5, "C")])


class TestTypes:
    @pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:24])
    async def test_a_value_survives_exactly(self, driven: DrivenDevice, value: Value) -> None:
        written = point(1, "t", value, "°C")
        mark = await driven.write(written)
        assert exact(await driven.history()) == exact([written])
        latest = await driven.latest()
        assert exact(latest) == exact([written])
        assert [found.written_us for found in latest] == [mark]
        query = FleetHistoryQuery((driven.id,), YEAR_2026, 10)
        page = await driven.store.fleet_history(query)
        assert exact(found.point for found in page.items) == exact([written])

    async def test_all_types_in_one_submission(self, driven: DrivenDevice) -> None:
        points = [point(1, f"m{index:03d}", value) for index, value in enumerate(VALUES)]
        await driven.write(*points)
        assert exact(await driven.history()) == exact(points)

    @pytest.mark.parametrize(
        "name", ["t", "Temp (°C)", "a.b-c_d/e", "温度", "🌡", "x" * 128, "'; --"]
    )
    async def test_a_name_is_any_text(self, driven: DrivenDevice, name: str) -> None:
        await driven.write(point(1, name), point(1, "~other"))
        assert exact(await driven.history(names=(name,))) == exact([point(1, name)])
        assert set(await driven.store.measurements(driven.id)) == {name, "~other"}

    async def test_names_are_told_apart_by_case_and_accent(self, driven: DrivenDevice) -> None:
        points = [point(1, name, name) for name in sorted(["t", "T", "e\u0301", "\u00e9", "t "])]
        await driven.write(*points)
        assert exact(await driven.history()) == exact(points)
        assert exact(await driven.latest()) == exact(points)

    @pytest.mark.parametrize("at_ms", [0, 1, DAY_MS - 1, DAY_MS, T0, MAX_TIMESTAMP_MS])
    async def test_the_whole_calendar_is_kept(self, driven: DrivenDevice, at_ms: int) -> None:
        written = Point(at_ms, "t", 1)
        await driven.write(written)
        assert exact(await driven.history(within=EVER)) == exact([written])
        assert exact(await driven.latest()) == exact([written])


class TestLastWriteWins:
    CHANGES: tuple[tuple[Value, str, Value, str], ...] = (
        (1.5, "C", 2.5, "C"),
        (1.5, "C", 1.5, "F"),
        (1.5, "C", 1.5, ""),
        (1, "", 1.0, ""),
        (1.0, "", 1, ""),
        (1, "", True, ""),
        (INT64_MAX, "pulses", 0.5, "%"),
        ("closed", "state", INT64_MIN, "pulses"),
        (2.5, "C", "broken", "text"),
        ("broken", "text", "", ""),
        (True, "", "true", ""),
    )

    @pytest.mark.parametrize("change", CHANGES)
    async def test_the_later_write_replaces_a_point_whole(
        self, driven: DrivenDevice, change: tuple[Value, str, Value, str]
    ) -> None:
        value, unit, new_value, new_unit = change
        await driven.write(point(1, "t", value, unit))
        mark = await driven.write(point(1, "t", new_value, new_unit))
        assert exact(await driven.history()) == exact([point(1, "t", new_value, new_unit)])
        latest = await driven.latest()
        assert exact(latest) == exact([point(1, "t", new_value, new_unit)])
        assert latest[0].written_us == mark

    @pytest.mark.parametrize("change", CHANGES)
    async def test_it_also_wins_when_it_arrives_first(
        self, driven: DrivenDevice, change: tuple[Value, str, Value, str]
    ) -> None:
        value, unit, new_value, new_unit = change
        older, newer = next_mark(), next_mark()
        await driven.write(point(1, "t", new_value, new_unit), mark=newer)
        await driven.write(point(1, "t", value, unit), mark=older)
        assert exact(await driven.history()) == exact([point(1, "t", new_value, new_unit)])
        latest = await driven.latest()
        assert exact(latest) == exact([point(1, "t", new_value, new_unit)])
        assert latest[0].written_us == newer

    async def test_a_submission_wins_and_loses_point_by_point(self, driven: DrivenDevice) -> None:
        first, second, third = next_mark(), next_mark(), next_mark()
        await driven.write(point(1, "a", "second"), point(1, "b", "second"), mark=second)
        await driven.write(point(1, "a", "first"), point(1, "c", "first"), mark=first)
        await driven.write(point(1, "b", "third"), mark=third)
        assert exact(await driven.history()) == exact(
            [point(1, "a", "second"), point(1, "b", "third"), point(1, "c", "first")]
        )

    async def test_a_repeat_changes_nothing(self, driven: DrivenDevice) -> None:
        points = [point(0, "a", 1, "x"), point(0, "b", 1.0), point(9, "a", "last")]
        mark = await driven.write(*points)
        before = await driven.latest()
        await driven.write(*points, mark=mark)
        assert exact(await driven.history()) == exact(points)
        assert await driven.latest() == before

    async def test_concurrent_writes_of_one_point_never_mix(self, driven: DrivenDevice) -> None:
        variants = [(1.5, "C"), (7, "pulses"), ("open", ""), (True, "flag")] * 10
        marks = [next_mark() for _ in variants]
        Random(1).shuffle(marks)
        await asyncio.gather(
            *(
                driven.write(point(1, "t", value, unit), mark=mark)
                for (value, unit), mark in zip(variants, marks, strict=True)
            )
        )
        value, unit = variants[marks.index(max(marks))]
        assert exact(await driven.history()) == exact([point(1, "t", value, unit)])


class TestConcurrency:
    async def test_many_submissions_of_one_device_lose_nothing(self, driven: DrivenDevice) -> None:
        written = [point(at, name, at) for at in range(400) for name in ("a", "b")]
        await asyncio.gather(
            *(driven.write(*written[begin : begin + 2]) for begin in range(0, len(written), 2))
        )
        assert exact(await driven.history()) == exact(written)
        assert exact(await driven.latest()) == exact(written[-2:])

    async def test_equal_times_with_other_measurements_lose_nothing(
        self, driven: DrivenDevice
    ) -> None:
        written = [point(5, f"m{index:03d}", index) for index in range(200)]
        await asyncio.gather(*(driven.write(each) for each in written))
        assert exact(await driven.history()) == exact(written)

    async def test_devices_do_not_disturb_each_other(self, telemetry: TelemetryHarness) -> None:
        fleet = [DrivenDevice(telemetry) for _ in range(60)]
        await asyncio.gather(
            *(device.write(point(at, "t", device.id)) for device in fleet for at in (1, 2, 3))
        )
        for device in fleet:
            expected = [point(at, "t", device.id) for at in (1, 2, 3)]
            assert exact(await device.history()) == exact(expected)

    async def test_what_is_read_after_a_write_includes_it(self, driven: DrivenDevice) -> None:
        async def write_and_read(at: int) -> None:
            await driven.write(point(at, f"m{at}"))
            assert point(at, f"m{at}") in await driven.history()
            assert T0 + at in {found.timestamp_ms for found in await driven.latest()}

        await asyncio.gather(*(write_and_read(at) for at in range(50)))

    async def test_a_submission_of_thousands_is_whole(self, driven: DrivenDevice) -> None:
        written = [point(at, f"m{number}", at) for at in range(600) for number in range(5)]
        await driven.write(*written)
        assert exact(await driven.history()) == exact(written)

    async def test_a_submission_may_span_many_days(self, driven: DrivenDevice) -> None:
        written = [point(day * DAY_MS + offset) for day in range(40) for offset in (0, DAY_MS - 1)]
        await driven.write(*reversed(written))
        assert exact(await driven.history()) == exact(written)


async def three_measurements(driven: DrivenDevice) -> list[Point]:
    """Ties at every time, and three days."""
    times = [0, 1, HOUR_MS, DAY_MS - 1, DAY_MS, DAY_MS + 1, 2 * DAY_MS]
    written = [point(at, name, at) for at in times for name in ("a", "b", "c")]
    for begin in range(0, len(written), 5):
        await driven.write(*written[begin : begin + 5])
    return written


def newest_first(points: list[Point]) -> list[Point]:
    return sorted(points, key=lambda p: (-p.timestamp_ms, p.measurement))


class TestHistory:
    @pytest.mark.parametrize("page", [1, 2, 3, 4, 7, 20, 21, 22])
    async def test_pages_follow_each_other_over_ties(self, driven: DrivenDevice, page: int) -> None:
        written = await three_measurements(driven)
        assert exact(await driven.history(page=page)) == exact(written)
        backwards = await driven.history(order=Order.DESC, page=page)
        assert exact(backwards) == exact(newest_first(written))

    @pytest.mark.parametrize("names", [("b",), ("c", "a"), ("a", "nothing"), ("nothing",)])
    @pytest.mark.parametrize("page", [1, 2, 3, 50])
    async def test_names_are_a_filter_on_every_page(
        self, driven: DrivenDevice, names: tuple[str, ...], page: int
    ) -> None:
        written = [p for p in await three_measurements(driven) if p.measurement in names]
        assert exact(await driven.history(names=names, page=page)) == exact(written)
        backwards = await driven.history(names=names, order=Order.DESC, page=page)
        assert exact(backwards) == exact(newest_first(written))

    @pytest.mark.parametrize("order", list(Order))
    async def test_a_range_includes_its_start_and_not_its_end(
        self, driven: DrivenDevice, order: Order
    ) -> None:
        await driven.write(*(point(at) for at in range(5)))
        for start, end in ((1, 3), (0, 5), (2, 2), (4, 100), (5, 100), (3, 4)):
            within = TimeRange(T0 + start, T0 + end)
            expected = [at for at in range(5) if start <= at < end]
            found = await driven.history(within=within, order=order, page=2)
            assert sorted(p.timestamp_ms - T0 for p in found) == expected

    @pytest.mark.parametrize("order", list(Order))
    async def test_a_range_bounds_the_pages_after_a_cursor_too(
        self, driven: DrivenDevice, order: Order
    ) -> None:
        written = await three_measurements(driven)
        within = TimeRange(T0 + 1, T0 + DAY_MS + 1)
        expected = [p for p in written if within.start_ms <= p.timestamp_ms < within.end_ms]
        found = await driven.history(within=within, order=order, page=2)
        assert exact(sorted(found, key=lambda p: (p.timestamp_ms, p.measurement))) == exact(
            expected
        )

    @pytest.mark.parametrize("order", list(Order))
    async def test_a_cursor_need_not_be_a_point_that_is_still_there(
        self, driven: DrivenDevice, order: Order
    ) -> None:
        await driven.write(*(point(at, name) for at in (1, 2, 3) for name in ("a", "c")))
        after = PageKey(T0 + 2, "b")
        page = await driven.store.history(HistoryQuery(driven.id, YEAR_2026, 10, order, (), after))
        beyond = 3 if order is Order.ASC else 1
        assert exact(page.items) == exact([point(2, "c"), point(beyond, "a"), point(beyond, "c")])

    async def test_more_says_whether_anything_is_left(self, driven: DrivenDevice) -> None:
        await driven.write(*(point(at) for at in range(10)))
        for limit, more in ((9, True), (10, False), (11, False)):
            page = await driven.store.history(HistoryQuery(driven.id, YEAR_2026, limit))
            assert (len(page.items), page.more) == (min(limit, 10), more)

    async def test_an_unknown_device_has_no_points(self, driven: DrivenDevice) -> None:
        page = await driven.store.history(HistoryQuery(driven.id, EVER, 10))
        assert (page.items, page.more) == ([], False)

    async def test_points_of_neighbours_stay_out(self, telemetry: TelemetryHarness) -> None:
        one, other, third = (DrivenDevice(telemetry) for _ in range(3))
        for device in (one, other, third):
            await device.write(point(1, "t", device.id))
        assert exact(await other.history(within=EVER)) == exact([point(1, "t", other.id)])

    async def test_a_long_history_is_read_in_full(self, driven: DrivenDevice) -> None:
        written = [point(at * 1_000, name, at) for at in range(4_000) for name in ("a", "b")]
        for begin in range(0, len(written), 1_000):
            await driven.write(*written[begin : begin + 1_000])
        assert await driven.history(page=999) == written
        assert await driven.history(order=Order.DESC, page=5_000) == newest_first(written)


async def read_fleet(
    store: TelemetryStore, ids: tuple[int, ...], page: int, within: TimeRange = YEAR_2026
) -> list[DevicePoint]:
    """All points of a fleet, read page by page."""
    found: list[DevicePoint] = []
    after: FleetPageKey | None = None
    while True:
        answer = await store.fleet_history(FleetHistoryQuery(ids, within, page, after))
        assert len(answer.items) <= page
        found += answer.items
        if not answer.more:
            return found
        last = found[-1]
        after = FleetPageKey(last.point.timestamp_ms, last.device_id, last.point.measurement)


class TestFleetHistory:
    @staticmethod
    async def fleet(telemetry: TelemetryHarness) -> tuple[tuple[int, ...], list[DevicePoint]]:
        """Devices with ties between them and within, one without any point."""
        fleet = [DrivenDevice(telemetry) for _ in range(5)]
        random = Random(3)
        written: list[DevicePoint] = []
        for device in fleet[:-1]:
            times = random.sample([0, 1, 2, HOUR_MS, DAY_MS, DAY_MS + 1, 9 * DAY_MS], 5)
            points = [point(at, name, device.id) for at in times for name in ("a", "b")]
            await device.write(*points)
            written += [DevicePoint(device.id, each) for each in points]
        written.sort(key=lambda p: (-p.point.timestamp_ms, p.device_id, p.point.measurement))
        return tuple(device.id for device in fleet), written

    @pytest.mark.parametrize("page", [1, 2, 3, 7, 39, 40, 100])
    async def test_pages_are_newest_first_then_by_device_and_measurement(
        self, telemetry: TelemetryHarness, page: int
    ) -> None:
        ids, written = await self.fleet(telemetry)
        assert await read_fleet(telemetry.store, ids, page) == written

    async def test_the_order_of_the_ids_and_repeats_do_not_matter(
        self, telemetry: TelemetryHarness
    ) -> None:
        ids, written = await self.fleet(telemetry)
        assert await read_fleet(telemetry.store, (*reversed(ids), ids[0]), 3) == written

    async def test_a_range_is_half_open(self, telemetry: TelemetryHarness) -> None:
        ids, written = await self.fleet(telemetry)
        within = TimeRange(T0 + 1, T0 + DAY_MS)
        expected = [p for p in written if within.start_ms <= p.point.timestamp_ms < within.end_ms]
        assert await read_fleet(telemetry.store, ids, 2, within) == expected

    async def test_only_the_devices_asked_for(self, telemetry: TelemetryHarness) -> None:
        ids, written = await self.fleet(telemetry)
        some = (ids[1], ids[3])
        expected = [p for p in written if p.device_id in some]
        assert await read_fleet(telemetry.store, some, 4) == expected

    async def test_nobody_has_no_points(self, driven: DrivenDevice) -> None:
        for ids in ((), (driven.id,)):
            page = await driven.store.fleet_history(FleetHistoryQuery(ids, EVER, 10))
            assert (page.items, page.more) == ([], False)


class TestLatest:
    async def test_it_is_the_newest_by_event_time_of_each_measurement(
        self, driven: DrivenDevice
    ) -> None:
        await driven.write(point(5, "a", "new"), point(3, "b", "only"))
        late = await driven.write(point(4, "a", "late"), point(2, "b", "late"), point(1, "c", 1))
        latest = await driven.latest()
        assert exact(latest) == exact(
            [point(5, "a", "new"), point(3, "b", "only"), point(1, "c", 1)]
        )
        assert latest[2].written_us == late

    async def test_within_a_submission_too(self, driven: DrivenDevice) -> None:
        await driven.write(point(9, "a", "new"), point(10, "b"), point(2, "a", "old"))
        assert exact(await driven.latest()) == exact([point(9, "a", "new"), point(10, "b")])

    async def test_late_data_of_other_days(self, driven: DrivenDevice) -> None:
        await driven.write(point(9 * DAY_MS, "a"))
        await driven.write(point(0, "a"), point(3 * DAY_MS, "b"), point(0, "c"))
        assert exact(await driven.latest()) == exact(
            [point(9 * DAY_MS, "a"), point(3 * DAY_MS, "b"), point(0, "c")]
        )

    async def test_many_devices_at_once(self, telemetry: TelemetryHarness) -> None:
        fleet = [DrivenDevice(telemetry) for _ in range(1_200)]
        await asyncio.gather(*(device.write(point(1, "t", device.id)) for device in fleet))
        silent = DrivenDevice(telemetry)
        found = await telemetry.store.latest([silent.id, *(device.id for device in fleet)])
        assert silent.id not in found
        assert {device.id: exact(found[device.id]) for device in fleet} == {
            device.id: exact([point(1, "t", device.id)]) for device in fleet
        }

    async def test_of_nobody_it_is_empty(self, telemetry: TelemetryHarness) -> None:
        assert await telemetry.store.latest([]) == {}

    async def test_a_device_asked_for_twice_is_answered_once(self, driven: DrivenDevice) -> None:
        await driven.write(point(1))
        found = await driven.store.latest([driven.id, driven.id])
        assert exact(found[driven.id]) == exact([point(1)])

    async def test_1024_names_are_all_there(self, driven: DrivenDevice) -> None:
        names = [f"m{index:04d}" for index in range(1_024)]
        await driven.write(*(point(1, name, "old") for name in names))
        await driven.write(*(point(2, name, index) for index, name in enumerate(names)))
        expected = [point(2, name, index) for index, name in enumerate(names)]
        assert exact(await driven.latest()) == exact(expected)
        assert set(await driven.store.measurements(driven.id)) == set(names)
        assert exact(await driven.history(names=tuple(names[:100]))) == exact(
            [point(1, name, "old") for name in names[:100]] + expected[:100]
        )


def assert_counted(driven: DrivenDevice, answer: int | None, expected: int) -> None:
    assert answer == (expected if driven.harness.counts else None)


class TestDeleteRange:
    async def test_it_is_half_open_and_counts(self, driven: DrivenDevice) -> None:
        await driven.write(*(point(at, name) for at in range(10) for name in ("a", "b")))
        assert_counted(driven, await driven.delete(2, 5), 6)
        assert [p.timestamp_ms - T0 for p in await driven.history(names=("a",))] == [
            0, 1, 5, 6, 7, 8, 9,
        ]  # fmt: skip
        assert_counted(driven, await driven.delete(2, 5), 0)
        assert_counted(driven, await driven.delete(100, 200), 0)

    async def test_it_spans_days(self, driven: DrivenDevice) -> None:
        times = [0, DAY_MS - 1, DAY_MS, 2 * DAY_MS, 3 * DAY_MS - 1, 3 * DAY_MS]
        await driven.write(*(point(at) for at in times))
        assert_counted(driven, await driven.delete(DAY_MS - 1, 3 * DAY_MS), 4)
        assert exact(await driven.history()) == exact([point(0), point(3 * DAY_MS)])

    async def test_other_devices_keep_theirs(self, telemetry: TelemetryHarness) -> None:
        one, other = DrivenDevice(telemetry), DrivenDevice(telemetry)
        await one.write(point(1))
        await other.write(point(1))
        await one.delete(0, 10)
        assert await one.history() == []
        assert exact(await other.history()) == exact([point(1)])
        assert exact(await other.latest()) == exact([point(1)])

    async def test_many_points(self, driven: DrivenDevice) -> None:
        written = [point(at) for at in range(25_000)]
        for begin in range(0, len(written), 5_000):
            await driven.write(*written[begin : begin + 5_000])
        assert_counted(driven, await driven.delete(10, 24_990), 24_980)
        assert await driven.history() == written[:10] + written[-10:]
        assert exact(await driven.latest()) == exact(written[-1:])

    async def test_many_points_of_one_time(self, driven: DrivenDevice) -> None:
        names = [f"m{index:04d}" for index in range(1_024)]
        for at in range(12):
            await driven.write(*(point(at, name) for name in names))
        assert_counted(driven, await driven.delete(0, 11), 11 * 1_024)
        left = [point(11, name) for name in names]
        assert exact(await driven.latest()) == exact(left)
        assert exact(await driven.history(page=2_000)) == exact(left)

    async def test_only_what_was_written_before_its_mark(self, driven: DrivenDevice) -> None:
        before, mark, after = next_mark(), next_mark(), next_mark()
        await driven.write(point(1, "t", "later"), point(3, "t", "later"), mark=after)
        await driven.write(point(2, "t", "earlier"), mark=before)
        assert_counted(driven, await driven.delete(0, 10, mark), 1)
        assert exact(await driven.history()) == exact(
            [point(1, "t", "later"), point(3, "t", "later")]
        )

    async def test_what_is_written_after_it_stays(self, driven: DrivenDevice) -> None:
        await driven.write(point(1, "t", "old"))
        await driven.delete(0, 10)
        mark = await driven.write(point(1, "t", "new"))
        assert exact(await driven.history()) == exact([point(1, "t", "new")])
        latest = await driven.latest()
        assert exact(latest) == exact([point(1, "t", "new")])
        assert latest[0].written_us == mark

    async def test_the_order_against_writes_is_that_of_the_calls(
        self, driven: DrivenDevice
    ) -> None:
        """None of the calls has been waited for when the next one is made."""
        for turn in range(20):
            old, new = point(turn, "t", "old"), point(turn, "t", "new")
            await asyncio.gather(
                driven.write(old), driven.delete(turn, turn + 1), driven.write(new)
            )
        assert exact(await driven.history()) == exact([point(t, "t", "new") for t in range(20)])
        for turn in range(20):
            await asyncio.gather(
                driven.write(point(turn, "t", "newest")), driven.delete(turn, turn + 1)
            )
        assert await driven.history() == []
        assert await driven.latest() == []

    async def test_deletes_at_once_are_all_done(self, driven: DrivenDevice) -> None:
        await driven.write(*(point(at) for at in range(100)))
        await asyncio.gather(*(driven.delete(at, at + 1) for at in range(0, 100, 2)))
        assert exact(await driven.history()) == exact([point(at) for at in range(1, 100, 2)])


class TestLatestAfterDeletes:
    @staticmethod
    async def written(driven: DrivenDevice) -> None:
        """Newest of a at 9, of b at 5, of c at 1; a has more before."""
        await driven.write(*(point(at * HOUR_MS, "a", at) for at in (1, 3, 5, 7, 9)))
        await driven.write(point(5 * HOUR_MS, "b", 5), point(1 * HOUR_MS, "c", 1))

    @pytest.mark.parametrize(
        ("start", "end", "expected"),
        [
            pytest.param(9, 10, {"a": 7, "b": 5, "c": 1}, id="newest-only"),
            pytest.param(3, 5, {"a": 9, "b": 5, "c": 1}, id="middle"),
            pytest.param(5, 6, {"a": 9, "c": 1}, id="only-point-of-one"),
            pytest.param(4, 10, {"a": 3, "c": 1}, id="newest-and-older"),
            pytest.param(2, 10, {"a": 1, "c": 1}, id="all-but-the-oldest"),
            pytest.param(0, 10, {}, id="everything"),
            pytest.param(0, 9, {"a": 9}, id="all-but-the-newest"),
            pytest.param(10, 20, {"a": 9, "b": 5, "c": 1}, id="nothing"),
        ],
    )
    async def test_it_falls_back_to_the_newest_left(
        self, driven: DrivenDevice, start: int, end: int, expected: dict[str, int]
    ) -> None:
        await self.written(driven)
        await driven.delete(start * HOUR_MS, end * HOUR_MS)
        points = [point(at * HOUR_MS, name, at) for name, at in expected.items()]
        assert exact(await driven.latest()) == exact(points)

    async def test_it_falls_back_over_many_days(self, driven: DrivenDevice) -> None:
        await driven.write(point(0, "a", "oldest"), point(0, "b"))
        await driven.write(*(point(day * DAY_MS, "b", day) for day in range(1, 60)))
        await driven.write(point(60 * DAY_MS, "a", "newest"))
        await driven.delete(60 * DAY_MS, 61 * DAY_MS)
        assert exact(await driven.latest()) == exact(
            [point(0, "a", "oldest"), point(59 * DAY_MS, "b", 59)]
        )

    async def test_a_rare_measurement_is_found_behind_many_points(
        self, driven: DrivenDevice
    ) -> None:
        await driven.write(point(0, "rare", "first"))
        await driven.write(*(point(at, "busy", at) for at in range(1, 6_000)))
        await driven.write(point(6_000, "rare", "second"))
        await driven.delete(6_000, 6_001)
        assert exact(await driven.latest()) == exact(
            [point(5_999, "busy", 5_999), point(0, "rare", "first")]
        )

    async def test_each_is_found_where_it_was_last(self, driven: DrivenDevice) -> None:
        """One of them just before the range, another thousands of points away."""
        await driven.write(point(0, "rare", "first"))
        await driven.write(*(point(at, "busy", at) for at in range(1, 6_000)))
        await driven.write(point(6_000, "rare", "second"), point(6_000, "busy", 6_000))
        await driven.delete(6_000, 6_001)
        assert exact(await driven.latest()) == exact(
            [point(5_999, "busy", 5_999), point(0, "rare", "first")]
        )

    async def test_a_re_import_into_the_range_counts(self, driven: DrivenDevice) -> None:
        await self.written(driven)
        await driven.delete(4 * HOUR_MS, 20 * HOUR_MS)
        await driven.write(point(6 * HOUR_MS, "a", "again"), point(5 * HOUR_MS, "b", "again"))
        assert exact(await driven.latest()) == exact(
            [
                point(6 * HOUR_MS, "a", "again"),
                point(5 * HOUR_MS, "b", "again"),
                point(1 * HOUR_MS, "c", 1),
            ]
        )

    async def test_an_older_re_import_does_not_lift_it_back(self, driven: DrivenDevice) -> None:
        await self.written(driven)
        await driven.delete(8 * HOUR_MS, 20 * HOUR_MS)
        await driven.write(point(2 * HOUR_MS, "a", "again"))
        assert exact(await driven.latest())[0] == exact([point(7 * HOUR_MS, "a", 7)])[0]

    async def test_delete_and_re_import_over_and_over(self, driven: DrivenDevice) -> None:
        for turn in range(5):
            await driven.write(point(9, "a", turn), point(5, "a", turn), point(7, "b", turn))
            await driven.delete(6, 10)
            assert exact(await driven.latest()) == exact([point(5, "a", turn)])


class TestDeleteDevice:
    async def test_everything_goes_and_is_counted(self, telemetry: TelemetryHarness) -> None:
        device, other = DrivenDevice(telemetry), DrivenDevice(telemetry)
        await device.write(Point(0, "a", 1), point(0, "b"), point(40 * DAY_MS, "c"))
        await device.write(Point(MAX_TIMESTAMP_MS, "d", 1))
        await other.write(point(1))
        assert_counted(device, await telemetry.store.delete_device(device.id), 4)
        assert await device.history(within=EVER) == []
        assert await device.latest() == []
        assert exact(await other.history()) == exact([point(1)])
        assert_counted(device, await telemetry.store.delete_device(device.id), 0)

    async def test_a_device_without_points(self, driven: DrivenDevice) -> None:
        assert_counted(driven, await driven.store.delete_device(driven.id), 0)


class TestMeasurements:
    async def test_an_unknown_device_has_none(self, driven: DrivenDevice) -> None:
        assert set(await driven.store.measurements(driven.id)) == set()

    async def test_names_of_all_submissions(self, driven: DrivenDevice) -> None:
        await driven.write(point(5, "a"), point(5, "b"))
        await driven.write(point(40 * DAY_MS, "c"), point(1, "a"))
        assert set(await driven.store.measurements(driven.id)) == {"a", "b", "c"}

    async def test_none_that_has_points_is_missing_after_a_delete(
        self, driven: DrivenDevice
    ) -> None:
        await driven.write(point(1, "a"), point(5, "a"), point(5, "b"))
        await driven.delete(5, 6)
        assert {"a"} <= set(await driven.store.measurements(driven.id)) <= {"a", "b"}
