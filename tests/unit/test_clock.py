from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from iotflow.domain.clock import DeviceClock, Lane, WriteClock


class Clock:
    """A wall clock that tests set."""

    def __init__(self, now_s: float = 1_767_225_600.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@given(st.integers(0, 10**15), st.integers(1, 64), st.integers(0, 63))
def test_a_lane_issues_its_own_numbers_alone(number: int, count: int, index: int) -> None:
    lane = Lane(index % count, count)
    issued = lane.at_or_after(number)
    assert number <= issued < number + count
    assert issued % count == lane.index


def test_write_marks_rise_even_when_the_clock_goes_back() -> None:
    clock = Clock()
    marks = WriteClock(lambda: Lane(0, 1), clock)
    issued = [marks.next_us() for _ in range(3)]
    clock.now_s -= 3600
    issued += [marks.next_us() for _ in range(3)]
    assert issued == sorted(set(issued))


@given(st.lists(st.floats(-0.01, 0.01), min_size=1, max_size=200))
def test_two_processes_never_issue_the_same_timestamp(steps: list[float]) -> None:
    clock = Clock()
    clocks = [DeviceClock(partial(Lane, index, 2), clock) for index in range(2)]
    issued: list[int] = []
    for step in steps:
        clock.now_s += step
        issued += [ms for each in clocks if (ms := each.next_ms(7)) is not None]
    assert len(issued) == len(set(issued))


def test_timestamps_stop_a_second_ahead_of_the_clock_and_go_on_with_it() -> None:
    clock = Clock()
    device_clock = DeviceClock(lambda: Lane(0, 1), clock)
    issued = [device_clock.next_ms(1) for _ in range(1_001)]
    assert None not in issued
    assert device_clock.next_ms(1) is None
    assert device_clock.next_ms(2) is not None, "another device is not held up"
    clock.now_s += 0.010
    more = [device_clock.next_ms(1) for _ in range(10)]
    assert None not in more
    assert set(more).isdisjoint(issued)


def test_a_forgotten_device_starts_above_all_that_was_issued_to_the_forgotten() -> None:
    clock = Clock()
    device_clock = DeviceClock(lambda: Lane(0, 1), clock, capacity=2)
    first = [device_clock.next_ms(1) for _ in range(50)]
    for device_id in (2, 3, 4):
        device_clock.next_ms(device_id)
    again = device_clock.next_ms(1)
    assert again is not None
    assert again > max(ms for ms in first if ms is not None)


def test_devices_behind_the_clock_are_forgotten_and_none_goes_back_for_that() -> None:
    clock = Clock()
    device_clock = DeviceClock(lambda: Lane(0, 1), clock)
    first = [device_clock.next_ms(device_id) for device_id in range(1_000)]
    assert len(device_clock) == 1_000
    clock.now_s += 1.5
    for device_id in range(1_000, 1_600):
        device_clock.next_ms(device_id)
    assert len(device_clock) == 600
    clock.now_s -= 2.0
    again = [device_clock.next_ms(device_id) for device_id in range(1_000)]
    assert all(a is not None and b is not None and a > b for a, b in zip(again, first, strict=True))
