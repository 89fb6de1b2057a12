"""What becomes of a subject that does not wait as it is told."""

from hypothesis import given
from hypothesis import strategies as st

from iotflow.limits.throttle import (
    MAX_PENALTY_S,
    STUBBORN_REFUSALS,
    STUBBORN_WINDOWS,
    Throttle,
)

WINDOW_S = 10


def be_stubborn(throttle: Throttle, at_s: float) -> bool:
    """Go on against the limit in the window of `at_s`; returns whether that shuts out."""
    return any(throttle.refused(at_s + n / 1000, 5) for n in range(STUBBORN_REFUSALS + 2))


def shut_out(throttle: Throttle, at_s: float) -> float:
    """Be stubborn until it shuts out; returns when that was."""
    while not be_stubborn(throttle, at_s):
        at_s += WINDOW_S
    return at_s


def test_stubborn_windows_in_a_row_shut_out() -> None:
    throttle = Throttle(WINDOW_S)
    shut = [be_stubborn(throttle, 1000 + n * WINDOW_S) for n in range(STUBBORN_WINDOWS)]
    assert shut == [False] * (STUBBORN_WINDOWS - 1) + [True]
    last_s = 1000 + (STUBBORN_WINDOWS - 1) * WINDOW_S
    assert WINDOW_S - 1 < throttle.shut_for_s(last_s + 0.1) <= WINDOW_S
    assert throttle.shut_for_s(last_s + WINDOW_S + 1) == 0


def test_each_further_time_is_longer_up_to_a_bound() -> None:
    throttle, at_s = Throttle(WINDOW_S), 1000.0
    lengths: list[float] = []
    for _ in range(12):
        at_s = shut_out(throttle, at_s)
        left_s = throttle.shut_for_s(at_s + 1)
        lengths.append(round(left_s + 1))
        at_s += 1 + left_s
    assert lengths[:4] == [10, 20, 40, 80]
    assert lengths == sorted(lengths)
    assert lengths[-1] == MAX_PENALTY_S


def test_a_quiet_window_forgets_it() -> None:
    throttle = Throttle(WINDOW_S)
    at_s = shut_out(throttle, 1000.0)
    later_s = at_s + 5 * WINDOW_S
    assert not be_stubborn(throttle, later_s)
    assert throttle.windows == 1


@given(st.lists(st.floats(0.1, 30), max_size=200))
def test_who_waits_as_told_is_never_shut_out(gaps: list[float]) -> None:
    throttle, now_s = Throttle(WINDOW_S), 1000.0
    for gap in gaps:
        assert not throttle.refused(now_s, 5)
        now_s += 5 + gap


def test_what_was_under_way_when_the_limit_was_reached_is_not_stubborn() -> None:
    throttle = Throttle(WINDOW_S)
    for window in range(20):
        at_s = 1000.0 + window * WINDOW_S
        assert not any(throttle.refused(at_s, 5) for _ in range(STUBBORN_REFUSALS))
