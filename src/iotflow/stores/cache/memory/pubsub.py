"""Messages between the parts of one process."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from iotflow.errors import OverloadedError, StoreUnavailableError
from iotflow.stores.cache.protocol import Message


class MemorySubscription:
    """A bounded stream. Full, it loses the oldest message and counts it in `lost`."""

    def __init__(self, max_messages: int) -> None:
        self._messages: deque[Message] = deque()
        self._max_messages = max_messages
        self._changed = asyncio.Event()
        self._ended = False
        self._lost = 0

    @property
    def lost(self) -> int:
        return self._lost

    async def next(self) -> Message:
        """The next message; a caller that is cancelled while it waits loses none.

        Raises:
            StoreUnavailableError: the cache was closed and nothing is left.
        """
        while not self._messages:
            if self._ended:
                raise StoreUnavailableError("cache")
            self._changed.clear()
            await self._changed.wait()
        return self._messages.popleft()

    def offer(self, message: Message) -> None:
        if len(self._messages) >= self._max_messages:
            self._messages.popleft()
            self._lost += 1
        self._messages.append(message)
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()


class Broker:
    """Delivers to at most `max_subscribers`, who each keep `max_messages` at most."""

    def __init__(self, max_subscribers: int, max_messages: int) -> None:
        self._max_subscribers = max_subscribers
        self._max_messages = max_messages
        self._channels: dict[str, list[MemorySubscription]] = {}
        self._subscriptions: set[MemorySubscription] = set()

    def sizes(self) -> dict[str, int]:
        return {"subscribers": len(self._subscriptions), "channels": len(self._channels)}

    def publish(self, channel: str, payload: bytes) -> None:
        subscriptions = self._channels.get(channel)
        if subscriptions:
            message = Message(channel, payload)
            for subscription in subscriptions:
                subscription.offer(message)

    @asynccontextmanager
    async def subscribe(self, *channels: str) -> AsyncGenerator[MemorySubscription]:
        """Messages of the channels from now on.

        Raises:
            OverloadedError: there are as many subscribers as may be.
        """
        if len(self._subscriptions) >= self._max_subscribers:
            raise OverloadedError("live streaming")
        subscription = MemorySubscription(self._max_messages)
        self._add(subscription, set(channels))
        try:
            yield subscription
        finally:
            self._remove(subscription, set(channels))

    def close(self) -> None:
        """End every subscription; who waits for a message is told."""
        for subscription in self._subscriptions:
            subscription.end()

    def _add(self, subscription: MemorySubscription, channels: set[str]) -> None:
        self._subscriptions.add(subscription)
        for channel in channels:
            self._channels.setdefault(channel, []).append(subscription)

    def _remove(self, subscription: MemorySubscription, channels: set[str]) -> None:
        self._subscriptions.discard(subscription)
        for channel in channels:
            listeners = self._channels[channel]
            listeners.remove(subscription)
            if not listeners:
                del self._channels[channel]
