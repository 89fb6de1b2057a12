"""Redis Cluster: one pipe to each primary, and commands by the slot of their keys."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from redis import crc
from redis.exceptions import AskError, MovedError

from iotflow.errors import StoreUnavailableError
from iotflow.stores.cache.redis.histories import Histories
from iotflow.stores.cache.redis.pipe import Pipe, PipeCounters, PipeLimits
from iotflow.stores.cache.redis.topology import NewBreaker
from iotflow.stores.cache.redis.urls import Address, RedisUrl
from iotflow.stores.cache.redis.wire import DRIVER_ERRORS, Reply, Wire, ask, connect, end

_SLOTS = 16384
# How often the slots are asked for at most, while something has moved.
_DISCOVER_EVERY_S = 0.3

_slot_of = cast(Callable[[bytes], int], crc.key_slot)


class Cluster:
    """Commands go out in the order of their issue per primary, none is sent twice but where
    a server has refused it because its slot is elsewhere (MOVED, ASK).
    """

    def __init__(
        self,
        url: RedisUrl,
        histories: Histories,
        new_breaker: NewBreaker,
        limits: PipeLimits,
        counters: PipeCounters,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._histories = histories
        self._new_breaker = new_breaker
        self._limits = limits
        self._counters = counters
        self._monotonic = monotonic
        self._pipes: dict[Address, Pipe] = {}
        self._by_slot: list[Pipe | None] = [None] * _SLOTS
        self._is_stale = False
        self._discovered_s = float("-inf")

    async def open(self) -> None:
        await self._discover()
        outcomes = [await pipe.connected() for pipe in self.pipes()]
        if not any(outcomes):
            await self.close()
            raise StoreUnavailableError("cache")

    async def close(self) -> None:
        pipes, self._pipes = self._pipes, {}
        self._by_slot = [None] * _SLOTS
        for pipe in pipes.values():
            await pipe.close()

    async def tend(self) -> None:
        lost = [pipe for pipe in self._pipes.values() if not pipe.is_connected]
        due = self._monotonic() - self._discovered_s >= _DISCOVER_EVERY_S
        if due and (lost or self._is_stale):
            try:
                await self._discover()
            except StoreUnavailableError:
                return

    def pipes(self) -> Sequence[Pipe]:
        return tuple(self._pipes.values())

    def send(self, key: str, command: tuple[Any, ...]) -> asyncio.Future[Reply]:
        pipe = self._by_slot[_slot_of(key.encode())]
        if pipe is None:
            self._is_stale = True
            raise StoreUnavailableError("cache")
        return pipe.send(command)

    def redirect(self, command: tuple[Any, ...], error: Exception) -> asyncio.Future[Reply] | None:
        if not isinstance(error, AskError):  # of which MovedError is a kind
            return None
        host = cast(str, cast(Any, error).host)
        if not host:
            self._is_stale = True
            return None
        pipe = self._pipe((host, error.port))
        if isinstance(error, MovedError):
            self._by_slot[error.slot_id] = pipe
            self._is_stale = True
            return pipe.send(command)
        return pipe.send(("ASKING",), command)

    def publish(self, channel: str, payload: bytes) -> asyncio.Future[Reply]:
        return self._pipe(self._messages_address()).send(("PUBLISH", channel, payload))

    async def connect_messages(self) -> Wire:
        return await self._connect(self._messages_address())

    def _messages_address(self) -> Address:
        """One primary for all messages of a process, so that they stay in order."""
        for address, pipe in sorted(self._pipes.items()):
            if pipe.is_connected:
                return address
        raise StoreUnavailableError("cache")

    def _pipe(self, address: Address) -> Pipe:
        pipe = self._pipes.get(address)
        if pipe is None:
            pipe = self._pipes[address] = Pipe(
                f"{address[0]}:{address[1]}",
                lambda: self._connect(address),
                self._new_breaker(),
                self._limits,
                self._counters,
            )
            pipe.start()
        return pipe

    async def _connect(self, address: Address) -> Wire:
        return await connect(self._url, address, self._limits.connect_s, self._histories.greet)

    async def _discover(self) -> None:
        self._discovered_s = self._monotonic()
        self._is_stale = False
        try:
            ranges = await self._ask_for_slots()
        except BaseException:
            self._is_stale = True
            raise
        by_slot: list[Pipe | None] = [None] * _SLOTS
        for first, last, address in ranges:
            by_slot[first : last + 1] = [self._pipe(address)] * (last + 1 - first)
        self._by_slot = by_slot
        primaries = {address for _, _, address in ranges}
        for address in self._pipes.keys() - primaries:
            await self._pipes.pop(address).close()

    async def _ask_for_slots(self) -> list[tuple[int, int, Address]]:
        """From the first of all known servers that answers."""
        answering = [address for address, pipe in self._pipes.items() if pipe.is_connected]
        for address in dict.fromkeys((*answering, *self._pipes, *self._url.addresses)):
            try:
                wire = await connect(self._url, address, self._limits.connect_s, _no_greeting)
                try:
                    async with asyncio.timeout(self._limits.connect_s):
                        (slots,) = await ask(wire, [("CLUSTER", "SLOTS")])
                finally:
                    await end(wire)
            except (StoreUnavailableError, *DRIVER_ERRORS):
                continue
            if slots:
                return [_range(entry, address[0]) for entry in slots]
        raise StoreUnavailableError("cache")


async def _no_greeting(_: Wire) -> None:
    return


def _range(entry: list[Any], asked_host: str) -> tuple[int, int, Address]:
    """A server that does not know its own address leaves it out: it is the one that was asked."""
    first, last, (host, port, *_), *_ = entry
    return first, last, ((host or b"").decode() or asked_host, port)
