from hypothesis import given
from hypothesis import strategies as st

from iotflow.limits.window import SlidingWindow, SlidingWindows


def count(window: SlidingWindow, limit: int, now_s: float) -> bool:
    elapsed_s = window.turn(now_s)
    if window.used(elapsed_s) + 1 > limit:
        return False
    window.current += 1
    return True


@given(st.lists(st.floats(0, 3), min_size=1, max_size=100), st.integers(1, 20))
def test_never_more_than_one_and_a_half_times_the_limit_in_a_window(
    gaps: list[float], limit: int
) -> None:
    window, now_s, accepted = SlidingWindow(10), 1000.0, list[float]()
    for gap in gaps:
        now_s += gap
        if count(window, limit, now_s):
            accepted.append(now_s)
    for moment in accepted:
        in_window = sum(moment - 10 < each <= moment for each in accepted)
        assert in_window <= 1.5 * limit + 1


@given(st.integers(1, 30), st.integers(0, 40), st.integers(0, 40), st.floats(0, 9.99))
def test_retry_after_is_true(limit: int, previous: int, current: int, elapsed_s: float) -> None:
    window = SlidingWindow(10, bucket=100, previous=previous, current=current)
    if window.used(elapsed_s) + 1 <= limit:
        return
    wait_s = window.retry_after_s(limit, 1, elapsed_s)
    assert count(window, limit, 1000 + elapsed_s + wait_s + 1e-6)


def test_a_pause_of_two_windows_forgets_everything() -> None:
    window = SlidingWindow(10)
    for _ in range(5):
        assert count(window, 5, 1000.0)
    assert not count(window, 5, 1000.0)
    assert count(window, 5, 1020.0)
    assert window.previous == 0


def used_once(windows: SlidingWindows, subject: str, now_s: float) -> None:
    window = windows.get(subject) or windows.begin(subject, 10, now_s)
    assert count(window, 5, now_s)


def test_what_is_spent_does_not_pile_up() -> None:
    windows = SlidingWindows(1_000)
    for number in range(100):
        used_once(windows, str(number), 1_000.0)
    used_once(windows, "next", 1_019.9)
    assert len(windows) == 101, "the bucket before still weighs"
    for number in range(60):
        used_once(windows, f"later{number}", 1_020.0)
    assert len(windows) == 61
    assert windows.get("next") is not None
    assert windows.evictions == 0


def test_one_in_use_is_not_the_next_to_go() -> None:
    windows = SlidingWindows(1_000)
    for number in range(50):
        used_once(windows, "old", 1_000.0 + number * 3)
        used_once(windows, str(number), 1_000.0 + number * 3)
    assert windows.get("old") is not None


def test_full_one_goes_and_is_counted() -> None:
    windows = SlidingWindows(3)
    for number in range(5):
        used_once(windows, str(number), 1_000.0)
    assert len(windows) == 3
    assert windows.get("4") is not None
    assert windows.evictions == 2
