"""Asking Redis, and what to do about replies that are none."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError

from iotflow.errors import StoreUnavailableError
from iotflow.stores.cache.redis.pipe import LostReplyError
from iotflow.stores.cache.redis.scripts import Script
from iotflow.stores.cache.redis.topology import Topology
from iotflow.stores.cache.redis.wire import Reply

_MAX_REDIRECTS = 4


class Call(NamedTuple):
    """A command by one of its keys, all of which share a slot. `script` is what it runs."""

    key: str
    command: tuple[Any, ...]
    script: Script | None = None


def run(script: Script, keys: Sequence[str], *args: Any) -> Call:
    """Run a script that the server knows already."""
    return Call(keys[0], ("EVALSHA", script.sha, len(keys), *keys, *args), script)


class Calls:
    """Issues calls together and awaits their replies, in order.

    A call is issued again only where it is known not to have been carried out (the server lost
    the script, or the slot is elsewhere), or where `again` says that it only reads.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    async def one(self, call: Call, *, again: bool = False) -> Reply:
        """Raises StoreUnavailableError."""
        reply = await self._topology.send(call.key, call.command)
        return await self._insist(call, reply, again) if isinstance(reply, Exception) else reply

    async def all(self, calls: Sequence[Call], *, again: bool = False) -> list[Reply]:
        """Raises StoreUnavailableError for the first that fails; the others may be done."""
        send = self._topology.send
        issued = [send(call.key, call.command) for call in calls]
        replies: list[Reply] = []
        for call, future in zip(calls, issued, strict=True):
            reply = await future
            if isinstance(reply, Exception):
                reply = await self._insist(call, reply, again)
            replies.append(reply)
        return replies

    async def _insist(self, call: Call, failure: Exception, again: bool) -> Reply:
        reply: Reply = failure
        for _ in range(_MAX_REDIRECTS):
            future = self._reissued(call, reply, again)
            if future is None:
                break
            again = again and not isinstance(reply, LostReplyError)
            reply = await future
            if not isinstance(reply, Exception):
                return reply
        raise StoreUnavailableError("cache") from reply

    def _reissued(
        self, call: Call, failure: Exception, again: bool
    ) -> asyncio.Future[Reply] | None:
        command = call.command
        if isinstance(failure, NoScriptError) and call.script is not None:
            # EVAL leaves the script with the server, too.
            return self._topology.send(call.key, ("EVAL", call.script.source, *command[2:]))
        if isinstance(failure, LostReplyError):
            return self._topology.send(call.key, command) if again else None
        return self._topology.redirect(command, failure)
