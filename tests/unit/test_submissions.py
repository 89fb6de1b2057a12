"""Submissions are put together whole, in bounded memory, from points in any mixture."""

from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from iotflow.domain.points import Point, Submission
from iotflow.domain.times import DAY_MS
from iotflow.maintenance.pace import Pace
from iotflow.maintenance.parameters import ALL_POINTS
from iotflow.maintenance.submissions import MarkRange, StoredSubmission, SubmissionReader
from iotflow.stores.telemetry.sqlite import SqliteTelemetryStore

T0 = 1_767_225_600_000
DEVICE, USER = 5, 9


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteTelemetryStore]:
    store = SqliteTelemetryStore(tmp_path / "telemetry.db")
    await store.open()
    yield store
    await store.close()


async def nothing() -> None: ...


async def read_all(
    reader: SubmissionReader, written: MarkRange
) -> tuple[list[StoredSubmission], int]:
    found: list[StoredSubmission] = []
    passes, from_us = 0, written.from_us
    while True:
        some, next_us = await reader.read(
            DEVICE, ALL_POINTS, MarkRange(from_us, written.to_us), nothing
        )
        found += some
        passes += 1
        if next_us is None:
            return found, passes
        assert next_us > from_us
        from_us = next_us


@pytest.mark.parametrize(("page", "max_held"), [(3, 8), (7, 40), (1_000, 100_000)])
async def test_each_is_found_once_and_whole(
    store: SqliteTelemetryStore, page: int, max_held: int
) -> None:
    chance = Random(4)
    last: dict[tuple[int, str], int] = {}
    for mark in range(1_000, 1_030):
        keys = {(T0 + chance.randrange(40), chance.choice("abcd")) for _ in range(6)}
        points = tuple(Point(at_ms, name, 1.5) for at_ms, name in keys)
        await store.write(Submission(DEVICE, USER, points, mark))
        last |= dict.fromkeys(keys, mark)
    expected: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for key, mark in last.items():
        if 1_005 <= mark < 1_028:
            expected[mark].append(key)
    reader = SubmissionReader(store, Pace(1.0), page=page, max_held=max_held)
    found, passes = await read_all(reader, MarkRange(1_005, 1_028))
    assert [each.written_us for each in found] == sorted(expected)
    for each in found:
        keys = expected[each.written_us]
        times = [at_ms for at_ms, _ in keys]
        assert each.user_id == USER
        assert each.count == len(keys)
        assert each.measurements == {name for _, name in keys}
        assert (each.first_ms, each.last_ms) == (min(times), max(times))
        assert each.records == len(set(times))
    assert (passes > 2) == (max_held == 8)


async def test_its_event_is_that_of_ingest(store: SqliteTelemetryStore) -> None:
    one = (Point(T0, "b", 1), Point(T0, "a", True))
    many = (*one, Point(T0 + 60_000, "a", 2.5))
    await store.write(Submission(DEVICE, USER, many, 1_767_225_700_000_001))
    await store.write(Submission(DEVICE, USER, one, 1_767_225_700_000_501))
    await store.write(Submission(DEVICE, USER, (Point(T0 + 1, "c", 1),), 1_767_225_700_000_502))
    reader = SubmissionReader(store, Pace(1.0))
    found, _ = await read_all(reader, MarkRange(0, 2**60))
    first, second, third = [each.event(DEVICE) for each in found]
    # The second has taken over two points of the first.
    assert first.details == {"measurements": ["a"], "count": 1}
    assert (second.id, second.event_type) == ("1767225700000501-5", "telemetry.submitted")
    assert (second.timestamp_ms, second.user_id, second.device_id) == (
        1_767_225_700_000, USER, DEVICE,
    )  # fmt: skip
    assert second.details == {"measurements": ["a", "b"], "count": 2}
    assert third.details["measurements"] == ["c"]


@pytest.mark.parametrize(
    ("age_ms", "ranges"),
    [(DAY_MS, {}), (DAY_MS + 1, {"first_ms": T0, "last_ms": T0})],
)
async def test_the_event_of_an_old_point_says_where_it_lies(
    store: SqliteTelemetryStore, age_ms: int, ranges: dict[str, int]
) -> None:
    written_us = (T0 + age_ms) * 1000 + 999
    await store.write(Submission(DEVICE, USER, (Point(T0, "a", 1),), written_us))
    ((found,), _) = await read_all(SubmissionReader(store, Pace(1.0)), MarkRange(0, 2**60))
    assert found.event(DEVICE).details == {"measurements": ["a"], "count": 1} | ranges


async def test_it_takes_its_share_of_the_time_and_no_more() -> None:
    clock, slept = [0.0], list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    pace = Pace(0.25, monotonic=lambda: clock[0], sleep=sleep)
    for worked_s in (0.25, 0.125):
        with pace.working():
            clock[0] += worked_s
    await pace.rest()
    await pace.rest()
    assert slept == [1.125, 0.0]
    with pace.working():
        clock[0] += 7.0
    await pace.rest()
    assert slept == [1.125, 0.0, 2.0], "no longer, or a lease runs out meanwhile"
