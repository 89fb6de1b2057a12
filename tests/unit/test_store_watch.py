import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from iotflow.errors import OverloadedError
from iotflow.health import watch
from iotflow.health.watch import StoreWatch
from iotflow.stores.breaker import BreakerState

LOOK_S = 0.005
LIMIT_S = 40 * LOOK_S


class Store:
    """A store that answers its first ping, and of whose later ones becomes what is given.

    `enough` is set when the fourth begins.
    """

    backend = "sqlite"
    breaker_state = BreakerState.CLOSED

    def __init__(self, later: Callable[[], Awaitable[object]]) -> None:
        self.enough = asyncio.Event()
        self._later = later
        self._pings = 0

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def ping(self) -> None:
        self._pings += 1
        if self._pings == 4:
            self.enough.set()
        if self._pings > 1:
            await self._later()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_LOOK_S", LOOK_S)
    monkeypatch.setattr(watch, "_PING_EVERY_S", 0.0)


async def is_available(later: Callable[[], Awaitable[object]]) -> bool:
    """What the watch says after three pings."""
    store = Store(later)
    watched = StoreWatch("registry", store)
    stop = asyncio.Event()
    running = asyncio.create_task(watched.run(stop))
    async with asyncio.timeout(10):
        await store.enough.wait()
    available = watched.available
    stop.set()
    await running
    return available


def hold_up() -> None:
    """The event loop, as much to do does."""
    time.sleep(LIMIT_S / 5)


async def test_a_busy_process_is_not_mistaken_for_a_store_that_is_away() -> None:
    async def needs_several_turns() -> None:
        for _ in range(10):
            hold_up()
            await asyncio.sleep(0)

    assert await is_available(needs_several_turns)


async def test_a_store_that_does_not_answer_is_away() -> None:
    assert not await is_available(asyncio.Event().wait)


async def test_a_store_with_too_much_to_do_is_as_it_was() -> None:
    async def refuse() -> None:
        raise OverloadedError("registry")

    assert await is_available(refuse)
