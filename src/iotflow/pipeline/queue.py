"""Between the request path and a worker: nothing here ever makes a request wait."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """At most `capacity` items for one reader. Full, it drops the oldest and counts it.

    `accepted` counts every item put, `dropped` those that were lost, here or after `close`;
    `on_drop` is told each of them, and must not raise.
    """

    def __init__(
        self, name: str, capacity: int, on_drop: Callable[[T], None] | None = None
    ) -> None:
        self.name = name
        self.capacity = capacity
        self.accepted = 0
        self.dropped = 0
        self._on_drop = on_drop
        self._items: deque[T] = deque()
        self._closed = False
        self._reader: asyncio.Future[None] | None = None
        self._wanted = 1

    @property
    def depth(self) -> int:
        return len(self._items)

    def put_nowait(self, item: T) -> None:
        """Put an item at the end; never waits, never raises."""
        items = self._items
        if self._closed:
            self._drop(item)
            return
        if len(items) >= self.capacity:
            self._drop(items.popleft())
        items.append(item)
        self.accepted += 1
        # The reader is woken once it has what it wants, not for each item.
        if self._reader is not None and len(items) >= self._wanted:
            self._wake()

    def waiting(self) -> list[T]:
        """What is there, which stays there."""
        return list(self._items)

    def _drop(self, item: T) -> None:
        self.dropped += 1
        if self._on_drop is not None:
            self._on_drop(item)

    async def get_batch(self, max_items: int, linger_s: float) -> list[T]:
        """Wait for a first item, then up to `linger_s` for as many as `max_items`.

        An empty list means that the queue is closed and nothing is left. A reader that
        is cancelled takes nothing with it. One reader at a time.
        """
        await self._wait_for(1, None)
        await self._wait_for(min(max_items, self.capacity), linger_s)
        items = self._items
        return [items.popleft() for _ in range(min(max_items, len(items)))]

    def close(self) -> None:
        """Take no more; what is there can still be read, without lingering."""
        self._closed = True
        self._wake()

    async def _wait_for(self, wanted: int, at_most_s: float | None) -> None:
        if self._reader is not None:
            raise RuntimeError(f"Queue {self.name} has a reader already.")
        if self._closed or len(self._items) >= wanted:
            return
        self._wanted = wanted
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait((self._reader,), timeout=at_most_s)
        finally:
            self._reader = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class CoalescingMap:
    """The highest value noted for each id since it was last taken; at most `capacity` ids.

    Full, it drops the id that was noted first and counts it in `dropped`.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.dropped = 0
        self._values: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def note(self, key: int, value: int) -> None:
        """Keep `value` where it is higher than what is there; never waits, never raises."""
        values = self._values
        held = values.get(key)
        if held is None:
            values[key] = value
            if len(values) > self.capacity:
                values.popitem(last=False)
                self.dropped += 1
        elif value > held:
            values[key] = value

    def take(self, max_items: int) -> dict[int, int]:
        """Remove and return those that have waited longest."""
        values = self._values
        return dict(values.popitem(last=False) for _ in range(min(max_items, len(values))))

    def put_back(self, taken: Mapping[int, int]) -> None:
        """Merge what was taken in vain with what was noted since, as the older of the two."""
        noted = self._values
        self._values = OrderedDict(taken)
        for key, value in noted.items():
            self.note(key, value)


@asynccontextmanager
async def closed_by(stop: asyncio.Event, queue: BoundedQueue[T]) -> AsyncGenerator[None]:
    """Within the block, `stop` closes the queue, so that its reader drains it and ends."""

    async def close() -> None:
        await stop.wait()
        queue.close()

    closer = asyncio.create_task(close(), name=f"close-{queue.name}")
    try:
        yield
    finally:
        closer.cancel()
        await asyncio.wait((closer,))
