"""What a process remembers of the index entries that it wrote."""

from random import Random

from iotflow.domain.points import Point
from iotflow.domain.times import DAY_MS, MINUTE_MS
from iotflow.stores.telemetry.cassandra.written import IndexEntries, WrittenIndex, entries_of

T0 = 1_767_225_600_000
SLOT_MS = 10 * MINUTE_MS


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def points(*times: int, name: str = "t") -> list[Point]:
    return [Point(T0 + at, name, 1) for at in times]


def test_a_bound_is_the_last_millisecond_of_its_slot_and_of_the_same_day() -> None:
    for at in (0, 1, SLOT_MS - 1, SLOT_MS, DAY_MS - 1, DAY_MS):
        entries = entries_of(points(at))
        assert entries.days == [(T0 + at) // DAY_MS]
        bound_ms = entries.bounds["t"]
        assert T0 + at <= bound_ms < T0 + at + SLOT_MS
        assert (bound_ms + 1) % SLOT_MS == 0
        assert bound_ms // DAY_MS == (T0 + at) // DAY_MS


def test_entries_are_the_days_and_the_newest_time_of_each_measurement() -> None:
    entries = entries_of(points(DAY_MS, 0) + points(5, name="u"))
    first = T0 // DAY_MS
    assert entries == IndexEntries(
        [first, first + 1], {"t": T0 + DAY_MS + SLOT_MS - 1, "u": T0 + SLOT_MS - 1}
    )


def test_what_was_written_is_not_missing_until_a_bound_or_day_is_new() -> None:
    written = WrittenIndex(100)
    assert written.missing(1, points(5)) == entries_of(points(5))
    written.add(1, entries_of(points(5)))
    assert written.missing(1, points(0, 5, SLOT_MS - 1)) is None
    assert written.missing(2, points(5)) is not None
    assert written.missing(1, points(5, SLOT_MS)) == IndexEntries(
        [], entries_of(points(SLOT_MS)).bounds
    )
    late = written.missing(1, points(-DAY_MS))
    assert late == IndexEntries([T0 // DAY_MS - 1], {})
    assert written.missing(1, points(5, name="u")) == IndexEntries([], {"u": T0 + SLOT_MS - 1})


def test_a_bound_never_falls() -> None:
    written = WrittenIndex(100)
    written.add(1, entries_of(points(SLOT_MS)))
    written.add(1, entries_of(points(0)))
    assert written.missing(1, points(SLOT_MS)) is None


def test_a_day_is_written_again_after_a_day_because_its_entry_may_expire() -> None:
    clock = Clock()
    written = WrittenIndex(100, clock)
    written.add(1, entries_of(points(0)))
    clock.now_s += 86_399
    assert written.missing(1, points(0)) is None
    clock.now_s += 1
    assert written.missing(1, points(0)) == IndexEntries([T0 // DAY_MS], {})
    written.add(1, IndexEntries([T0 // DAY_MS], {}))
    assert written.missing(1, points(0)) is None


def test_a_forgotten_device_is_written_again() -> None:
    written = WrittenIndex(100)
    written.add(1, entries_of(points(0)))
    written.forget(1)
    written.forget(7)
    assert written.size == 0
    assert written.missing(1, points(0)) == entries_of(points(0))


def test_it_stays_within_its_capacity() -> None:
    written, random = WrittenIndex(50), Random(1)
    for _ in range(2_000):
        device, day = random.randrange(30), random.randrange(200)
        name = f"m{random.randrange(20)}"
        written.add(device, entries_of(points(day * DAY_MS, name=name)))
        assert 0 <= written.size <= 50
        if random.random() < 0.1:
            written.forget(random.randrange(30))
    for device in range(30):
        written.forget(device)
    assert written.size == 0
