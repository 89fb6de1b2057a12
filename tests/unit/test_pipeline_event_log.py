"""The worker that writes events loses none while the store is away, and no event can stop it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from iotflow.domain.events import Event
from iotflow.errors import StoreUnavailableError
from iotflow.pipeline.backoff import Backoff
from iotflow.pipeline.event_log import EventLogWorker
from iotflow.pipeline.queue import BoundedQueue
from iotflow.stores.events.protocol import EventQuery

QUICK = (0.001, 0.004)


def event(number: int) -> Event:
    return Event(f"e{number}", "test", number, None, None, {})


class ScriptedStore:
    """An event store that can be away, and that chokes on chosen ids."""

    backend = "scripted"

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.batches: list[int] = []
        self.attempts = 0
        self.away = False
        self.away_at: frozenset[int] = frozenset()
        self.poison: frozenset[str] = frozenset()
        self.gate = asyncio.Event()
        self.gate.set()

    async def append(self, events: Sequence[Event]) -> int:
        self.attempts += 1
        await self.gate.wait()
        if self.away or self.attempts in self.away_at:
            raise StoreUnavailableError("events")
        if any(each.id in self.poison for each in events):
            raise ValueError("what nobody foresaw")
        new = [each.id for each in events if each.id not in self.ids]
        self.ids += new
        self.batches.append(len(events))
        return len(new)

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def ping(self) -> None: ...

    async def query(self, query: EventQuery) -> tuple[list[Event], bool]:
        raise NotImplementedError

    async def delete_device(self, device_id: int) -> int:
        raise NotImplementedError

    async def delete_user(self, user_id: int) -> int:
        raise NotImplementedError


class Bench:
    """A queue, a store, and a worker between them."""

    def __init__(self, *, capacity: int = 1_000, batch: int = 10) -> None:
        self.queue: BoundedQueue[Event] = BoundedQueue("events", capacity)
        self.store = ScriptedStore()
        self.worker = EventLogWorker(
            self.queue, self.store, batch=batch, linger_s=0.001, backoff=Backoff(*QUICK)
        )
        self.stop = asyncio.Event()

    def put(self, numbers: Sequence[int]) -> list[str]:
        for number in numbers:
            self.queue.put_nowait(event(number))
        return [f"e{number}" for number in numbers]

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


class TestWriting:
    async def test_events_are_written_in_order_and_in_batches(self) -> None:
        bench = Bench(batch=10)
        ids = bench.put(range(35))
        async with bench.running():
            await until(lambda: bench.worker.written == 35)
        assert bench.store.ids == ids
        assert bench.store.batches == [10, 10, 10, 5]
        assert (bench.worker.failed_attempts, bench.worker.rejected) == (0, 0)
        assert bench.worker.lost_at_stop == 0

    async def test_what_is_queued_at_stop_is_drained(self) -> None:
        bench = Bench()
        async with bench.running():
            ids = bench.put(range(100))
        assert bench.store.ids == ids
        assert bench.worker.lost_at_stop == 0

    async def test_after_stop_the_queue_takes_no_more(self) -> None:
        bench = Bench()
        async with bench.running():
            pass
        bench.put([1])
        assert bench.queue.dropped == 1


class TestStoreAway:
    async def test_events_wait_and_are_written_when_it_is_back(self) -> None:
        bench = Bench()
        bench.store.away = True
        async with bench.running() as task:
            ids = bench.put(range(25))
            await until(lambda: bench.worker.failed_attempts >= 3)
            assert bench.worker.written == 0
            assert not task.done()
            bench.store.away = False
            await until(lambda: bench.worker.written == 25)
        assert bench.store.ids == ids
        assert (bench.queue.dropped, bench.worker.lost_at_stop) == (0, 0)

    async def test_meanwhile_the_queue_drops_its_oldest_and_keeps_the_batch_at_hand(self) -> None:
        bench = Bench(capacity=20, batch=5)
        bench.store.away = True
        async with bench.running():
            bench.put(range(5))
            await until(lambda: bench.worker.failed_attempts >= 1)
            bench.put(range(5, 55))
            assert bench.queue.dropped == 30
            bench.store.away = False
            await until(lambda: bench.worker.written == 25)
        assert bench.store.ids == [f"e{number}" for number in [*range(5), *range(35, 55)]]

    async def test_a_stop_ends_a_long_wait_and_tries_once_more(self) -> None:
        bench = Bench()
        bench.worker = EventLogWorker(
            bench.queue, bench.store, linger_s=0.001, backoff=Backoff(0.001, 3_600.0)
        )
        bench.store.away = True
        async with bench.running():
            ids = bench.put(range(5))
            await until(lambda: bench.worker.failed_attempts >= 8)
            bench.store.away = False
        assert bench.store.ids == ids

    async def test_what_is_left_when_it_stays_away_is_counted_as_lost(self) -> None:
        bench = Bench(batch=10)
        bench.store.away = True
        task = asyncio.create_task(bench.worker.run(bench.stop))
        bench.put(range(25))
        await until(lambda: bench.worker.failed_attempts >= 2)
        bench.stop.set()
        await until(lambda: bench.worker.failed_attempts >= 4)
        assert not task.done()
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        assert bench.worker.lost_at_stop == 25
        assert bench.worker.written == 0


class TestCrashes:
    async def test_an_unforeseen_error_is_seen_and_the_batch_kept(self) -> None:
        bench = Bench()
        bench.store.poison = frozenset({"e3"})
        bench.put(range(6))
        with pytest.raises(ValueError, match="foresaw"):
            await bench.worker.run(bench.stop)
        bench.store.poison = frozenset()
        async with bench.running():
            await until(lambda: bench.worker.written == 6)
        assert bench.store.ids == [f"e{number}" for number in range(6)]
        assert bench.worker.rejected == 0

    @pytest.mark.parametrize("poison", [{0}, {9}, {4}, {2, 3}, {0, 5, 9}, set(range(10))])
    async def test_events_at_fault_are_given_up_alone(self, poison: set[int]) -> None:
        bench = Bench(batch=10)
        bench.store.poison = frozenset(f"e{number}" for number in poison)
        bench.put(range(10))
        for _ in range(2):
            with pytest.raises(ValueError, match="foresaw"):
                await bench.worker.run(bench.stop)
        bench.put(range(10, 15))
        good = [f"e{number}" for number in range(15) if number not in poison]
        async with bench.running():
            await until(lambda: bench.worker.written == len(good))
        assert bench.store.ids == good
        assert bench.worker.rejected == len(poison)
        assert bench.worker.lost_at_stop == 0

    @pytest.mark.parametrize("away_at", [{4}, {5, 6}, {6}, {7, 8, 9}])
    async def test_a_store_that_goes_away_during_the_search_loses_nothing(
        self, away_at: set[int]
    ) -> None:
        bench = Bench(batch=10)
        bench.store.poison = frozenset({"e7"})
        bench.put(range(10))
        for _ in range(2):
            with pytest.raises(ValueError, match="foresaw"):
                await bench.worker.run(bench.stop)
        bench.store.away_at = frozenset(away_at)
        async with bench.running():
            await until(lambda: bench.worker.rejected == 1 and bench.store.attempts > max(away_at))
        assert sorted(bench.store.ids) == [f"e{number}" for number in range(10) if number != 7]
        assert bench.worker.failed_attempts == len(away_at)
        assert bench.worker.rejected == 1

    async def test_a_cancelled_worker_keeps_its_batch_for_the_next_run(self) -> None:
        bench = Bench()
        bench.store.gate.clear()
        bench.put(range(4))
        task = asyncio.create_task(bench.worker.run(bench.stop))
        await until(lambda: bench.store.attempts == 1)
        task.cancel()
        await asyncio.wait((task,))
        bench.store.gate.set()
        async with bench.running():
            await until(lambda: bench.worker.written == 4)
        assert bench.store.ids == ["e0", "e1", "e2", "e3"]
