from hypothesis import given
from hypothesis import strategies as st

from iotflow.limits.window import CallerCounts, DeviceCounts


def count(counts: CallerCounts, limit: int, now_s: float, subject: str = "it") -> bool:
    if counts.used(subject, now_s) + 1 > limit:
        return False
    counts.count(subject, 1)
    return True


def counts_of(capacity: int = 1_000) -> CallerCounts:
    return CallerCounts(10, capacity)


@given(st.lists(st.floats(0, 3), min_size=1, max_size=100), st.integers(1, 20))
def test_never_more_than_one_and_a_half_times_the_limit_in_a_window(
    gaps: list[float], limit: int
) -> None:
    counts, now_s, accepted = counts_of(), 1000.0, list[float]()
    for gap in gaps:
        now_s += gap
        if count(counts, limit, now_s):
            accepted.append(now_s)
    for moment in accepted:
        in_window = sum(moment - 10 < each <= moment for each in accepted)
        assert in_window <= 1.5 * limit + 1


@given(st.integers(1, 30), st.integers(0, 40), st.integers(0, 40), st.floats(0, 9.99))
def test_retry_after_is_true(limit: int, previous: int, current: int, elapsed_s: float) -> None:
    counts = counts_of()
    now_s = 1000 + elapsed_s
    assert counts.used("it", 990.0) == 0
    counts.count("it", previous)
    assert counts.used("it", 1000.0) == previous
    counts.count("it", current)
    if counts.used("it", now_s) + 1 <= limit:
        return
    wait_s = counts.retry_after_s("it", limit, 1, now_s)
    assert count(counts, limit, now_s + wait_s + 1e-6)


def test_the_bucket_before_weighs_as_far_as_the_window_covers_it() -> None:
    counts = counts_of()
    assert counts.used("it", 1000.0) == 0
    counts.count("it", 8)
    assert counts.used("it", 1012.5) == 8 * 0.75
    counts.count("it", 1)
    assert counts.used("it", 1012.5) == 1 + 8 * 0.75
    assert counts.of("it") == (1, 8)
    assert counts.of("other") == (0, 0)
    assert counts.rest_s(1012.5) == 7.5


def test_subjects_count_for_themselves() -> None:
    counts = counts_of()
    assert all(count(counts, 3, 1000.0, subject) for subject in ("a", "b", "a", "b", "a"))
    assert not count(counts, 3, 1000.0, "a")
    assert count(counts, 3, 1000.0, "b")


def test_a_pause_of_two_windows_forgets_everything() -> None:
    counts = counts_of()
    for _ in range(5):
        assert count(counts, 5, 1000.0)
    assert not count(counts, 5, 1000.0)
    assert count(counts, 5, 1020.0)
    assert counts.of("it") == (1, 0)


def test_a_clock_that_is_set_back_by_less_than_a_window_forgets_nothing() -> None:
    counts = counts_of()
    assert count(counts, 1, 1000.0)
    assert not count(counts, 1, 995.0)
    assert not count(counts, 1, 1001.0)
    assert counts.of("it") == (1, 0)


def test_a_clock_that_is_set_back_by_more_begins_anew() -> None:
    counts = counts_of()
    assert count(counts, 1, 1000.0)
    assert count(counts, 1, 980.0)
    assert not count(counts, 1, 980.0)


def test_what_is_spent_does_not_pile_up() -> None:
    counts = counts_of()
    for number in range(100):
        assert count(counts, 5, 1_000.0, str(number))
    assert count(counts, 5, 1_019.9, "next")
    assert len(counts) == 101, "the bucket before still weighs"
    assert count(counts, 5, 1_020.0, "later")
    assert len(counts) == 2


def test_full_the_newest_makes_room_and_is_counted() -> None:
    counts = counts_of(capacity=3)
    for number in range(5):
        assert count(counts, 1, 1_000.0, str(number))
    assert len(counts) == 3
    assert counts.evictions == 2
    assert not count(counts, 1, 1_000.0, "0"), "who was counted first stays limited"
    assert count(counts, 1, 1_000.0, "3")


def test_what_others_counted_is_learned_of_those_that_are_counted_here() -> None:
    counts = counts_of()
    assert count(counts, 9, 1_000.0)
    counts.learn("it", 5, 7)
    assert counts.of("it") == (5, 7)
    counts.learn("it", 4, 6)
    assert counts.of("it") == (5, 7)
    counts.learn("other", 5, 7)
    assert counts.of("other") == (0, 0)


device_ids = st.one_of(st.integers(0, 80), st.sampled_from([2**40, 2**62]))
steps = st.lists(st.tuples(device_ids, st.integers(1, 5), st.floats(0, 6)), max_size=60)


@given(steps)
def test_devices_are_counted_as_callers_are(steps: list[tuple[int, int, float]]) -> None:
    devices, callers, now_s = DeviceCounts(10, 1_000), counts_of(), 1000.0
    for device_id, cost, gap_s in steps:
        now_s += gap_s
        text = str(device_id)
        assert devices.used(device_id, now_s) == callers.used(text, now_s)
        devices.count(device_id, cost)
        callers.count(text, cost)
        assert devices.of(device_id) == callers.of(text)
        assert len(devices) == len(callers)
        if cost == 5:
            learned = devices.learn(device_id, 7, 3), callers.learn(text, 7, 3)
            assert learned[0] == learned[1]
            assert devices.of(device_id) == callers.of(text)
            assert devices.retry_after_s(device_id, 8, 1, now_s) == callers.retry_after_s(
                text, 8, 1, now_s
            )


def test_devices_that_came_last_make_room_together_with_their_neighbours() -> None:
    counts = DeviceCounts(10, max_pages=2)
    for device_id in range(65):
        assert counts.used(device_id, 1_000.0) == 0
        counts.count(device_id, 1)
    assert counts.evictions == 32
    assert len(counts) == 33
    assert [counts.of(device_id)[0] for device_id in (0, 31, 32, 63, 64)] == [1, 1, 0, 0, 1]


def test_what_others_counted_of_devices_is_learned_of_those_that_are_counted_here() -> None:
    counts = DeviceCounts(10, 1_000)
    assert counts.used(1, 1_000.0) == 0
    assert not counts.learn(1, 5, 7)
    counts.count(1, 1)
    assert counts.learn(1, 5, 7)
    assert counts.of(1) == (5, 7)
    assert not counts.learn(1, 4, 6)
    assert not counts.learn(2, 5, 7), "its neighbour on the page is counted, and it is not"
    assert counts.of(2) == (0, 0)
