"""What stands between requests and workers never waits, never grows, and counts what it loses."""

import asyncio
from collections.abc import Sequence

import pytest

from iotflow.pipeline.queue import BoundedQueue, CoalescingMap, closed_by

# Longer than any test takes: who lingers to its end has failed.
FOR_EVER_S = 60.0


def queue_of(items: Sequence[int] = (), *, capacity: int = 5) -> BoundedQueue[int]:
    queue: BoundedQueue[int] = BoundedQueue("numbers", capacity)
    for item in items:
        queue.put_nowait(item)
    return queue


class TestBoundedQueue:
    async def test_items_come_out_in_order(self) -> None:
        queue = queue_of([1, 2, 3])
        assert await queue.get_batch(2, 0.0) == [1, 2]
        assert await queue.get_batch(2, 0.0) == [3]
        assert (queue.depth, queue.accepted, queue.dropped) == (0, 3, 0)

    async def test_full_it_drops_the_oldest_and_counts(self) -> None:
        queue = queue_of(range(12), capacity=5)
        assert (queue.depth, queue.accepted, queue.dropped) == (5, 12, 7)
        assert await queue.get_batch(100, 0.0) == [7, 8, 9, 10, 11]

    async def test_room_that_was_made_is_used(self) -> None:
        queue = queue_of(range(5), capacity=5)
        await queue.get_batch(2, 0.0)
        for item in (5, 6, 7):
            queue.put_nowait(item)
        assert queue.dropped == 1
        assert await queue.get_batch(100, 0.0) == [3, 4, 5, 6, 7]

    async def test_a_reader_waits_for_the_first_item(self) -> None:
        queue = queue_of()
        reader = asyncio.create_task(queue.get_batch(1, FOR_EVER_S))
        await asyncio.sleep(0)
        assert not reader.done()
        queue.put_nowait(7)
        assert await asyncio.wait_for(reader, 1) == [7]

    async def test_a_full_batch_is_not_lingered_for(self) -> None:
        queue = queue_of()
        reader = asyncio.create_task(queue.get_batch(3, FOR_EVER_S))
        await asyncio.sleep(0)
        for item in range(4):
            queue.put_nowait(item)
        assert await asyncio.wait_for(reader, 1) == [0, 1, 2]
        assert queue.depth == 1

    async def test_neither_is_more_than_the_queue_can_hold(self) -> None:
        queue = queue_of(range(5), capacity=5)
        assert await asyncio.wait_for(queue.get_batch(100, FOR_EVER_S), 1) == [0, 1, 2, 3, 4]

    async def test_a_batch_that_does_not_fill_comes_after_the_linger(self) -> None:
        queue = queue_of([1])
        reader = asyncio.create_task(queue.get_batch(3, 0.02))
        await asyncio.sleep(0)
        queue.put_nowait(2)
        assert await asyncio.wait_for(reader, 1) == [1, 2]

    async def test_closed_it_gives_out_what_is_there_then_nothing(self) -> None:
        queue = queue_of([1, 2, 3])
        queue.close()
        assert await asyncio.wait_for(queue.get_batch(2, FOR_EVER_S), 1) == [1, 2]
        assert await asyncio.wait_for(queue.get_batch(2, FOR_EVER_S), 1) == [3]
        assert await asyncio.wait_for(queue.get_batch(2, FOR_EVER_S), 1) == []

    async def test_what_comes_after_the_close_is_counted_as_lost(self) -> None:
        queue = queue_of([1])
        queue.close()
        queue.put_nowait(2)
        assert (queue.depth, queue.accepted, queue.dropped) == (1, 1, 1)

    @pytest.mark.parametrize("items", [[], [1]])
    async def test_closing_wakes_a_reader_that_waits_or_lingers(self, items: list[int]) -> None:
        queue = queue_of(items)
        reader = asyncio.create_task(queue.get_batch(3, FOR_EVER_S))
        await asyncio.sleep(0)
        queue.close()
        assert await asyncio.wait_for(reader, 1) == items

    @pytest.mark.parametrize("items", [[], [1, 2]])
    async def test_a_cancelled_reader_takes_nothing_with_it(self, items: list[int]) -> None:
        queue = queue_of(items)
        reader = asyncio.create_task(queue.get_batch(3, FOR_EVER_S))
        await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait((reader,))
        queue.put_nowait(3)
        assert await queue.get_batch(10, 0.0) == [*items, 3]

    async def test_there_is_one_reader_at_a_time(self) -> None:
        queue = queue_of()
        reader = asyncio.create_task(queue.get_batch(1, 0.0))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="numbers"):
            await queue.get_batch(1, 0.0)
        queue.put_nowait(1)
        assert await asyncio.wait_for(reader, 1) == [1]

    async def test_nothing_is_lost_or_doubled_between_a_writer_and_a_reader(self) -> None:
        queue = queue_of(capacity=50)
        seen: list[int] = []

        async def read() -> None:
            while batch := await queue.get_batch(7, 0.001):
                seen.extend(batch)

        reader = asyncio.create_task(read())
        for item in range(2_000):
            queue.put_nowait(item)
            if item % 23 == 0:
                await asyncio.sleep(0)
        queue.close()
        await asyncio.wait_for(reader, 5)
        assert seen == sorted(set(seen))
        assert len(seen) + queue.dropped == queue.accepted == 2_000


class TestClosedBy:
    async def test_the_signal_closes_the_queue(self) -> None:
        queue, stop = queue_of([1]), asyncio.Event()
        async with closed_by(stop, queue):
            assert await queue.get_batch(1, 0.0) == [1]
            stop.set()
            assert await asyncio.wait_for(queue.get_batch(1, FOR_EVER_S), 1) == []

    async def test_after_the_block_it_does_not(self) -> None:
        queue, stop = queue_of(), asyncio.Event()
        async with closed_by(stop, queue):
            pass
        stop.set()
        await asyncio.sleep(0)
        queue.put_nowait(1)
        assert queue.depth == 1


class TestCoalescingMap:
    def test_the_highest_of_each_id_is_kept(self) -> None:
        seen = CoalescingMap(10)
        for key, value in ((1, 5), (2, 1), (1, 7), (1, 6), (2, 1)):
            seen.note(key, value)
        assert len(seen) == 2
        assert seen.take(10) == {1: 7, 2: 1}
        assert len(seen) == 0

    def test_those_that_waited_longest_are_taken_first(self) -> None:
        seen = CoalescingMap(10)
        for key in (3, 1, 2, 3):
            seen.note(key, 1)
        assert list(seen.take(2)) == [3, 1]
        assert list(seen.take(2)) == [2]
        assert seen.take(2) == {}

    def test_full_it_drops_the_id_noted_first_and_counts(self) -> None:
        seen = CoalescingMap(3)
        for key in range(5):
            seen.note(key, key)
        seen.note(4, 9)
        assert (len(seen), seen.dropped) == (3, 2)
        assert seen.take(10) == {2: 2, 3: 3, 4: 9}

    def test_what_is_put_back_goes_to_the_front_and_keeps_the_highest(self) -> None:
        seen = CoalescingMap(10)
        for key in (1, 2):
            seen.note(key, 5)
        taken = seen.take(2)
        seen.note(3, 1)
        seen.note(2, 9)
        seen.note(1, 4)
        seen.put_back(taken)
        assert list(seen.take(10).items()) == [(1, 5), (2, 9), (3, 1)]

    def test_putting_back_keeps_the_bound(self) -> None:
        seen = CoalescingMap(3)
        for key in (1, 2, 3):
            seen.note(key, 1)
        taken = seen.take(3)
        for key in (4, 5):
            seen.note(key, 1)
        seen.put_back(taken)
        assert (len(seen), seen.dropped) == (3, 2)
        assert list(seen.take(10)) == [3, 4, 5]
