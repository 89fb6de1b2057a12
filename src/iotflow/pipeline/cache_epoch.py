"""The cache epoch: what was cached before a doubt is not believed after it."""

import asyncio
from collections.abc import Callable

import structlog

from iotflow.errors import StoreUnavailableError
from iotflow.pipeline.backoff import idle
from iotflow.stores.registry.protocol import Registry

# A doubt must have reached every replica within a second: one pause of the replica that has it,
# one of the others, and two questions to the registry.
_POLL_S = 0.25
_log = structlog.get_logger(__name__)


class CacheEpoch:
    """This process's view of the epoch that the registry keeps (`stores.cache.protocol.Epoch`).

    `listeners` are called after each change.
    """

    def __init__(self, registry: Registry) -> None:
        self.current: int | None = None
        self.listeners: list[Callable[[], None]] = []
        self._registry = registry
        self._doubted = False

    def doubt(self) -> None:
        """Let nothing that is cached now be believed, on any replica; never waits.

        Here it holds at once, elsewhere as soon as the registry could be told.
        """
        self._doubted = True
        self._move_to(None)

    async def follow(self, stop: asyncio.Event) -> None:
        """Ask the registry again and again until `stop`; a supervised worker runs this."""
        while not stop.is_set():
            try:
                await self._ask()
            except StoreUnavailableError:
                _log.debug("cache_epoch_unknown")
            await idle(stop, _POLL_S)

    async def _ask(self) -> None:
        if not self._doubted:
            epoch = await self._registry.cache_epoch()
        else:
            self._doubted = False
            try:
                epoch = await self._registry.raise_cache_epoch()
            except BaseException:
                self._doubted = True
                raise
            _log.warning("cache_epoch_raised", epoch=epoch)
        if not self._doubted:
            self._move_to(epoch)

    def _move_to(self, epoch: int | None) -> None:
        if epoch != self.current:
            self.current = epoch
            for listener in self.listeners:
                listener()
