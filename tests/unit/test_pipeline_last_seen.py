"""The worker that stamps what was seen: coalesced, in few writes, tried again, bounded."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from iotflow.errors import StoreUnavailableError
from iotflow.pipeline.backoff import Backoff
from iotflow.pipeline.last_seen import LastSeenWorker


class Registry:
    """What was flushed, and whether the next flush works."""

    def __init__(self) -> None:
        self.flushes: list[dict[int, int]] = []
        self.error: Exception | None = None

    async def flush(self, seen: Mapping[int, int]) -> None:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.flushes.append(dict(seen))

    @property
    def stamps(self) -> dict[int, int]:
        merged: dict[int, int] = {}
        for flush in self.flushes:
            for key, seen_ms in flush.items():
                merged[key] = max(merged.get(key, 0), seen_ms)
        return merged


class Bench:
    def __init__(self, **options: Any) -> None:
        self.registry = Registry()
        options = {"every_s": 0.002, "backoff": Backoff(0.001, 0.004)} | options
        self.worker = LastSeenWorker(self.registry.flush, **options)
        self.stop = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[asyncio.Task[None]]:
        """Within the block the worker runs; at its end it is asked to stop, and has to."""
        task = asyncio.create_task(self.worker.run(self.stop))
        try:
            yield task
            self.stop.set()
            await asyncio.wait_for(task, 5)
        finally:
            task.cancel()
            await asyncio.wait((task,))


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(5_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it did not come to that")


async def test_many_notes_become_one_write() -> None:
    bench = Bench(every_s=3_600.0)
    for seen_ms in range(1_000):
        bench.worker.note(seen_ms % 10, seen_ms)
    assert bench.worker.depth == 10
    async with bench.running():
        pass
    assert bench.registry.flushes == [{key: 990 + key for key in range(10)}]
    assert bench.worker.written == 10


async def test_it_writes_again_and_again() -> None:
    bench = Bench()
    async with bench.running():
        for turn in range(1, 4):
            bench.worker.note(1, turn)
            await until(lambda turn=turn: len(bench.registry.flushes) == turn)
    assert bench.registry.flushes == [{1: 1}, {1: 2}, {1: 3}]


async def test_nothing_noted_is_nothing_written() -> None:
    bench = Bench()
    async with bench.running():
        await asyncio.sleep(0.01)
    assert bench.registry.flushes == []


async def test_a_flush_has_at_most_a_batch() -> None:
    bench = Bench(batch=4, every_s=3_600.0)
    for key in range(10):
        bench.worker.note(key, 1)
    async with bench.running():
        pass
    assert [len(flush) for flush in bench.registry.flushes] == [4, 4, 2]


async def test_what_could_not_be_written_waits_coalesced_and_is_written() -> None:
    bench = Bench()
    bench.registry.error = StoreUnavailableError("registry")
    bench.worker.note(1, 100)
    bench.worker.note(2, 100)
    async with bench.running() as task:
        await until(lambda: bench.worker.failed_attempts >= 2)
        bench.worker.note(1, 300)
        bench.worker.note(2, 50)
        bench.worker.note(3, 7)
        await until(lambda: bench.worker.failed_attempts >= 4)
        assert not task.done()
        bench.registry.error = None
        await until(lambda: bench.worker.depth == 0)
    assert bench.registry.stamps == {1: 300, 2: 100, 3: 7}
    assert (bench.worker.dropped, bench.worker.lost_at_stop) == (0, 0)


async def test_while_it_waits_it_stays_bounded_and_counts() -> None:
    bench = Bench(capacity=5)
    bench.registry.error = StoreUnavailableError("registry")
    async with bench.running():
        for key in range(20):
            bench.worker.note(key, 1)
            await asyncio.sleep(0)
        assert bench.worker.depth <= 5
        bench.registry.error = None
    assert set(bench.registry.stamps) == {15, 16, 17, 18, 19}
    assert bench.worker.dropped == 15


async def test_an_unforeseen_error_is_seen_and_nothing_lost() -> None:
    bench = Bench()
    bench.registry.error = ValueError("what nobody foresaw")
    bench.worker.note(1, 100)
    with pytest.raises(ValueError, match="foresaw"):
        await asyncio.wait_for(bench.worker.run(bench.stop), 5)
    assert bench.worker.depth == 1
    bench.registry.error = None
    async with bench.running():
        pass
    assert bench.registry.stamps == {1: 100}


async def test_what_is_left_when_it_is_cancelled_at_stop_is_counted() -> None:
    bench = Bench()
    bench.registry.error = StoreUnavailableError("registry")
    for key in range(7):
        bench.worker.note(key, 1)
    task = asyncio.create_task(bench.worker.run(bench.stop))
    bench.stop.set()
    await until(lambda: bench.worker.failed_attempts >= 2)
    assert not task.done()
    task.cancel()
    await asyncio.wait((task,))
    assert bench.worker.lost_at_stop == 7
