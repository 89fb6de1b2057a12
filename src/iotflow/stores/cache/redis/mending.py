"""Puts right what is in doubt."""

import asyncio
from collections.abc import Callable

from iotflow.errors import StoreUnavailableError
from iotflow.pipeline.backoff import idle
from iotflow.stores.cache.protocol import Epoch
from iotflow.stores.cache.redis.calls import Call, Calls
from iotflow.stores.cache.redis.doubts import Doubts
from iotflow.stores.cache.redis.histories import VOUCHED_S, Histories, voucher
from iotflow.stores.cache.redis.latest import LatestEntries
from iotflow.stores.cache.redis.topology import Topology

_EVERY_S = 0.05
_PING_EVERY_S = 0.25
_AT_ONCE = 500
# Other replicas may believe a doubtful entry for that long, and half a second more until they
# know of the new epoch.
_PATIENCE_S = 0.4


class Mending:
    """Entries in doubt are dropped as soon as the server answers. Where that takes too long, the
    epoch is raised instead; what drops are to keep off is still told.
    """

    def __init__(
        self,
        calls: Calls,
        topology: Topology,
        latest: LatestEntries,
        doubts: Doubts,
        histories: Histories,
        epoch: Epoch,
    ) -> None:
        self._calls = calls
        self._topology = topology
        self._latest = latest
        self._doubts = doubts
        self._histories = histories
        self._epoch = epoch

    async def recognise(self) -> None:
        """At the opening: histories that someone has vouched for are known."""
        for history in list(self._histories.strangers):
            key = voucher(history)
            try:
                is_vouched = await self._calls.one(Call(key, ("EXISTS", key)), again=True)
            except StoreUnavailableError:
                continue  # one primary of several is away; a stranger is doubted
            if is_vouched:
                self._histories.accept(history)
        self._histories.opened()

    async def ping(self) -> None:
        """Every server answers.

        Raises:
            StoreUnavailableError: one does not.
        """
        pipes = self._topology.pipes()
        if not pipes:
            raise StoreUnavailableError("cache")
        for future in [pipe.send(("PING",)) for pipe in pipes]:
            reply = await future
            if isinstance(reply, Exception):
                raise StoreUnavailableError("cache") from reply

    async def run(self, stop: asyncio.Event, is_open: Callable[[], bool]) -> None:
        """Until `stop`. What is in doubt then is tried once more."""
        turn, turns_a_ping = 0, round(_PING_EVERY_S / _EVERY_S)
        while not stop.is_set():
            await idle(stop, _EVERY_S)
            if is_open():
                if self._doubts:
                    await self._repair()
                await self._mend(with_ping=turn % turns_a_ping == 0)
                turn += 1
            self._give_up_late()
        if self._doubts:
            self._epoch.doubt()

    async def _mend(self, *, with_ping: bool) -> None:
        try:
            # A server that went away unnoticed would keep us believing what it held.
            if with_ping:
                for pipe in self._topology.pipes():
                    pipe.check()
                await self._topology.tend()
                await self.ping()
            await self._vouch()
        except StoreUnavailableError:
            return

    async def _repair(self) -> None:
        doubts = self._doubts.oldest(_AT_ONCE)
        outcomes = await asyncio.gather(
            *[self._latest.drop(doubt.device_id, doubt.written_us) for doubt in doubts],
            return_exceptions=True,
        )
        # Of several primaries one may be away.
        outcomes = zip(doubts, outcomes, strict=True)
        self._doubts.settle([doubt for doubt, failure in outcomes if failure is None])

    def _give_up_late(self) -> None:
        if self._doubts.older_than(_PATIENCE_S):
            self._epoch.doubt()
            self._doubts.keep_drops()

    async def _vouch(self) -> None:
        """For histories whose strangeness has raised the epoch by now."""
        for history in list(self._histories.strangers):
            if self._epoch.current is not None:
                key = voucher(history)
                await self._calls.one(Call(key, ("SET", key, "1", "EX", VOUCHED_S)))
                self._histories.accept(history)
