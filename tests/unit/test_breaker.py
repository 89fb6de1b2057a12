import asyncio

import pytest

from iotflow.errors import NotFoundError, StoreUnavailableError
from iotflow.stores.breaker import Breaker, BreakerState


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def breaker(clock: Clock, opened: list[int] | None = None) -> Breaker:
    on_open = (lambda: opened.append(1)) if opened is not None else (lambda: None)
    return Breaker("cache", threshold=3, open_s=1.0, on_open=on_open, monotonic=clock)


async def fail(guard: Breaker) -> None:
    with pytest.raises(StoreUnavailableError):
        async with guard.guarded(1):
            raise StoreUnavailableError("cache")


async def test_it_opens_after_failures_in_a_row_and_refuses_without_asking() -> None:
    opened: list[int] = []
    guard = breaker(Clock(), opened)
    await fail(guard)
    await fail(guard)
    async with guard.guarded(1):
        pass
    await fail(guard)
    await fail(guard)
    assert (guard.state, opened) == (BreakerState.CLOSED, [])
    await fail(guard)
    assert (guard.state, guard.opened, opened) == (BreakerState.OPEN, 1, [1])
    asked = False
    with pytest.raises(StoreUnavailableError):
        async with guard.guarded(1):
            asked = True
    assert not asked


async def test_one_probe_at_a_time_decides() -> None:
    clock = Clock()
    guard = breaker(clock)
    for _ in range(3):
        await fail(guard)
    clock.now_s += 1.0
    assert guard.state is BreakerState.HALF_OPEN
    async with guard.guarded(1):
        with pytest.raises(StoreUnavailableError):
            guard.admit()
    assert guard.state is BreakerState.CLOSED
    for _ in range(3):
        await fail(guard)
    clock.now_s += 1.0
    await fail(guard)
    assert (guard.state, guard.opened) == (BreakerState.OPEN, 2)


async def test_a_late_answer_is_a_failure_and_other_errors_are_answers() -> None:
    guard = breaker(Clock())
    for _ in range(5):
        with pytest.raises(NotFoundError):
            async with guard.guarded(1):
                raise NotFoundError("nothing there")
    assert guard.state is BreakerState.CLOSED
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            async with guard.guarded(0.001):
                await asyncio.sleep(1)
    assert guard.state is BreakerState.OPEN


async def test_a_cancelled_probe_leaves_room_for_another() -> None:
    clock = Clock()
    guard = breaker(clock)
    for _ in range(3):
        await fail(guard)
    clock.now_s += 1.0

    async def probe() -> None:
        async with guard.guarded(10):
            await asyncio.sleep(10)

    task = asyncio.create_task(probe())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    async with guard.guarded(1):
        pass
    assert guard.state is BreakerState.CLOSED
