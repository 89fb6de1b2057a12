"""A time limit that many calls share ends each that is late, and no other."""

import asyncio
import contextlib

import pytest

from iotflow.stores.telemetry.cassandra.failures import TimedOutError
from iotflow.stores.telemetry.cassandra.limit import Limit

LIMIT_S = 0.05


async def never() -> None:
    await asyncio.Event().wait()


async def after(delay_s: float) -> float:
    await asyncio.sleep(delay_s)
    return delay_s


async def test_what_comes_in_time_is_given_back() -> None:
    assert await Limit(LIMIT_S).within(after(0)) == 0


async def test_what_comes_late_is_ended() -> None:
    ended = asyncio.Event()

    async def call() -> None:
        try:
            await never()
        finally:
            ended.set()

    async with asyncio.timeout(5):
        with pytest.raises(TimedOutError):
            await Limit(LIMIT_S).within(call())
    assert ended.is_set()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_late_failure_leaves_the_task_as_it_was() -> None:
    async def failing() -> None:
        try:
            await never()
        finally:
            raise ValueError("broken")

    async with asyncio.timeout(5):
        with pytest.raises(ValueError, match="broken"):
            await Limit(LIMIT_S).within(failing())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_late_answer_leaves_the_task_as_it_was() -> None:
    async def stubborn() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await never()
        return "after all"

    async with asyncio.timeout(5):
        assert await Limit(LIMIT_S).within(stubborn()) == "after all"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_each_is_judged_by_its_own_beginning() -> None:
    limit = Limit(0.2)

    async def delayed(before_s: float, call_s: float | None) -> str:
        await asyncio.sleep(before_s)
        try:
            await limit.within(never() if call_s is None else after(call_s))
        except TimedOutError:
            return "late"
        return "answered"

    calls = (delayed(0, None), delayed(0, 0), delayed(0.1, 0.15), delayed(0.1, None))
    async with asyncio.timeout(5):
        assert await asyncio.gather(*calls) == ["late", "answered", "answered", "late"]


async def test_it_works_again_after_a_pause() -> None:
    limit = Limit(LIMIT_S)
    async with asyncio.timeout(5):
        for _ in range(2):
            with pytest.raises(TimedOutError):
                await limit.within(never())
            await asyncio.sleep(2 * LIMIT_S)  # nothing is watched any more


async def test_a_failure_goes_to_the_caller() -> None:
    async def failing() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await Limit(LIMIT_S).within(failing())


async def test_a_task_that_is_cancelled_stays_so() -> None:
    task = asyncio.create_task(Limit(60).within(never()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_is_cancelled_as_its_time_is_up_stays_so() -> None:
    async def stubborn() -> None:
        try:
            await never()
        finally:
            task.cancel()  # by somebody else, at the same moment

    task = asyncio.create_task(Limit(LIMIT_S).within(stubborn()))
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
