"""Walks over points by the submissions that wrote them, on every adapter."""

from random import Random

import pytest

from iotflow.domain.points import Point
from iotflow.domain.times import DAY_MS, TimeRange
from iotflow.stores.telemetry.protocol import MarkedPoint, MarkPage, MarkQuery, PageKey
from tests.contract.telemetry_adapters import TelemetryHarness
from tests.contract.telemetry_device import EVER, T0, DrivenDevice, next_mark, point

EVER_US = (0, 2**62)


async def walk(
    driven: DrivenDevice,
    page: int,
    *,
    within: TimeRange = EVER,
    written: tuple[int, int] = EVER_US,
) -> tuple[list[MarkedPoint], int]:
    """All points, page by page, and how many pages it took."""
    found: list[MarkedPoint] = []
    after: PageKey | None = None
    for number in range(1, 1_000):
        query = MarkQuery(driven.id, within, *written, page, after)
        answer: MarkPage = await driven.store.marks(query)
        assert len(answer.points) <= page
        found += answer.points
        if answer.after is None:
            return found, number
        assert answer.after != after
        after = answer.after
    raise AssertionError("the walk does not end")


def marked(driven: DrivenDevice, points: dict[tuple[int, str], int]) -> list[MarkedPoint]:
    """What the walk must give for these marks by point."""
    expected = [
        MarkedPoint(at_ms, name, driven.user_id, mark) for (at_ms, name), mark in points.items()
    ]
    return sorted(expected, key=lambda each: (-each.timestamp_ms, each.measurement))


async def test_a_device_without_points_has_none(driven: DrivenDevice) -> None:
    assert await walk(driven, 10) == ([], 1)


@pytest.mark.parametrize("page", [1, 2, 3, 7, 100])
async def test_every_point_comes_once_with_its_mark(driven: DrivenDevice, page: int) -> None:
    chance = Random(page)
    points: dict[tuple[int, str], int] = {}
    for _ in range(6):
        some = {
            (chance.randrange(4) * DAY_MS + chance.randrange(3), chance.choice("abc"))
            for _ in range(5)
        }
        mark = await driven.write(*(point(at_ms, name) for at_ms, name in some))
        points |= {(T0 + at_ms, name): mark for at_ms, name in some}
    found, pages = await walk(driven, page)
    assert found == marked(driven, points)
    assert pages <= len(points) // page + 1


async def test_only_what_was_written_in_time_is_given_and_all_of_it_is_passed(
    driven: DrivenDevice,
) -> None:
    marks = [await driven.write(point(n, "a"), point(n, "b")) for n in range(6)]
    wanted = (marks[2], marks[4])
    expected = marked(driven, {(T0 + n, name): marks[n] for n in (2, 3) for name in ("a", "b")})
    for page in (1, 3, 5, 100):
        found, pages = await walk(driven, page, written=wanted)
        assert found == expected
        assert pages >= 12 // page


async def test_the_later_submission_has_the_point(driven: DrivenDevice) -> None:
    first = await driven.write(point(0, "a"), point(0, "b"))
    later = await driven.write(point(0, "b", 2))
    found, _ = await walk(driven, 10)
    assert found == marked(driven, {(T0, "a"): first, (T0, "b"): later})


async def test_a_range_holds_its_start_and_not_its_end(driven: DrivenDevice) -> None:
    marks = [await driven.write(point(n * DAY_MS - 1, "a")) for n in range(1, 5)]
    within = TimeRange(T0 + 2 * DAY_MS - 1, T0 + 4 * DAY_MS - 1)
    expected = marked(driven, {(T0 + n * DAY_MS - 1, "a"): marks[n - 1] for n in (2, 3)})
    for page in (1, 2, 10):
        assert (await walk(driven, page, within=within))[0] == expected


async def test_what_is_deleted_is_passed_over(driven: DrivenDevice) -> None:
    mark = await driven.write(point(0), point(DAY_MS), point(2 * DAY_MS))
    await driven.delete(DAY_MS, DAY_MS + 1)
    found, _ = await walk(driven, 1)
    assert found == marked(driven, {(T0, "t"): mark, (T0 + 2 * DAY_MS, "t"): mark})


async def test_every_device_that_has_points_is_listed(telemetry: TelemetryHarness) -> None:
    devices = [DrivenDevice(telemetry) for _ in range(7)]
    for device in devices:
        await device.write(*(Point(T0, name, 1.0) for name in "abc"), mark=next_mark())
        await device.history()
    wanted = {device.id for device in devices}
    for page in (3, 1_000):
        found: list[int] = []
        after: int | None = None
        while True:
            answer = await telemetry.store.devices(after, page)
            found += answer.device_ids
            after = answer.after
            if after is None:
                break
        assert wanted <= set(found)
        assert len(found) == len(set(found))
    await devices[0].store.delete_device(devices[0].id)
    listed = await telemetry.store.devices(None, 100_000)
    assert devices[0].id not in listed.device_ids
