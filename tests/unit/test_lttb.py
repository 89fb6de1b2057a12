from math import sin

from hypothesis import given
from hypothesis import strategies as st

from iotflow.stores.telemetry.protocol import Sample
from iotflow.telemetry.lttb import thin


def series(values: list[float]) -> list[Sample]:
    return [Sample(1_767_225_600_000 + 60_000 * index, value) for index, value in enumerate(values)]


def test_a_spike_survives() -> None:
    values = [sin(index / 50) for index in range(10_000)]
    values[4321] = 40.0
    assert 40.0 in {sample.value for sample in thin(series(values), 100)}


@given(
    st.lists(st.floats(-1e9, 1e9), min_size=0, max_size=300),
    st.integers(3, 50),
)
def test_as_many_as_asked_in_order_with_both_ends(values: list[float], count: int) -> None:
    samples = series(values)
    thinned = thin(samples, count)
    assert len(thinned) == min(count, len(samples))
    assert set(thinned) <= set(samples)
    assert [each.timestamp_ms for each in thinned] == sorted(each.timestamp_ms for each in thinned)
    if samples:
        assert (thinned[0], thinned[-1]) == (samples[0], samples[-1])
