"""Maps whose entries die of age, for keys of any kind and for ids."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotflow.stores.cache.expiring import ExpiringIds, ExpiringMap
from tests.unit.memory import memory_of

TTL_S = 60.0
Maps = ExpiringMap[int, str] | ExpiringIds[str]
KINDS: list[Callable[[int], Maps]] = [
    lambda most: ExpiringMap[int, str](TTL_S, most),
    lambda most: ExpiringIds[str](TTL_S, most),
]

ids = st.one_of(st.integers(-70, 70), st.integers(-(2**63), 2**63))
steps = st.lists(
    st.tuples(ids, st.sampled_from(["a", "b", None]), st.floats(0, 40)),
    max_size=60,
)


@given(steps, st.integers(1, 40))
def test_ids_are_kept_as_keys_of_any_kind(
    steps: list[tuple[int, str | None, float]], most: int
) -> None:
    by_id, model, now_s = ExpiringIds[str](TTL_S, most), ExpiringMap[int, str](TTL_S, most), 0.0
    for key, value, gap_s in steps:
        now_s += gap_s
        if value is None:
            by_id.pop(key)
            model.pop(key)
        else:
            evicted, expected = by_id.put(key, value, now_s), model.put(key, value, now_s)
            assert (evicted is None) == (expected is None)
            if evicted and expected:
                assert sorted(evicted.values) == sorted(expected.values)
                assert evicted.expires_s == expected.expires_s
        assert by_id.get(key, now_s) == model.get(key, now_s)
        assert len(by_id) == len(model) <= 2 * most
    for key in {key for key, _, _ in steps}:
        assert by_id.get(key, now_s + 1) == model.get(key, now_s + 1)
    by_id.clear()
    assert len(by_id) == 0
    assert all(by_id.get(key, now_s) is None for key, _, _ in steps)


@pytest.mark.parametrize("new", KINDS)
def test_an_entry_lives_its_time_and_begins_it_anew(new: Callable[[int], Maps]) -> None:
    kept = new(10)
    kept.put(1, "a", 0.0)
    kept.put(2, "b", 0.0)
    kept.put(2, "b", TTL_S / 2)
    assert [kept.get(key, TTL_S - 0.1) for key in (1, 2, 3)] == ["a", "b", None]
    assert [kept.get(key, TTL_S + 0.1) for key in (1, 2)] == [None, "b"]
    kept.put(3, "c", TTL_S + 0.1)
    kept.put(4, "d", 3 * TTL_S)
    assert len(kept) == 2, "what is dead goes"


@pytest.mark.parametrize(("step", "most_bytes"), [(1, 14), (32, 440)])
def test_a_fleet_costs_little_by_id(step: int, most_bytes: int) -> None:
    online = ExpiringIds[bool](TTL_S, 100_000)

    def fill() -> None:
        for number in range(0, 10_000 * step, step):
            online.put(number, True, 0.0)

    assert memory_of(fill) <= 10_000 * most_bytes
