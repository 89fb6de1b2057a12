"""Whether a server still holds what was written to it.

A Redis server that comes back, or a replica that has become the primary, begins a history of
its own (`master_replid`): it may lack the last writes, or hold old data. So whoever meets a
history that is not known raises the epoch; once that is done the history is vouched for, in
the cache itself, and later processes need not doubt it again.
"""

from collections.abc import Callable

from redis.exceptions import ConnectionError as RedisConnectionError

from iotflow.stores.cache.protocol import Epoch
from iotflow.stores.cache.redis.scripts import ALL
from iotflow.stores.cache.redis.wire import Wire, ask

VOUCHED_S = 30 * 24 * 3600
_MAX_KNOWN = 1_000


def voucher(history: str) -> str:
    """The key that says a history was vouched for."""
    return f"cache:history:{history}"


class Histories:
    """The histories of data that this process has met."""

    def __init__(self, epoch: Epoch) -> None:
        self._epoch = epoch
        self._known: set[str] = set()
        self.strangers: set[str] = set()
        # Until the adapter is open it asks for vouchers itself, and doubts nothing yet.
        self.meet: Callable[[str], None] = self.strangers.add

    def opened(self) -> None:
        """From now on a stranger is a doubt at once; those that are left are one, too."""
        self.meet = self._doubt_strangers
        if self.strangers:
            self._epoch.doubt()

    def accept(self, history: str) -> None:
        """It is vouched for."""
        self.strangers.discard(history)
        if len(self._known) < _MAX_KNOWN:
            self._known.add(history)

    def _doubt_strangers(self, history: str) -> None:
        if history not in self._known and history not in self.strangers:
            self.strangers.add(history)
            self._epoch.doubt()

    async def greet(self, wire: Wire) -> None:
        """What every connection begins with: is it a primary, whose history, and our scripts.

        Raises:
            redis.exceptions.RedisError: it is no primary, or does not answer as one.
        """
        loads = [("SCRIPT", "LOAD", script.source) for script in ALL]
        info, *_ = await ask(wire, [("INFO", "replication"), *loads])
        lines = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
        if lines.get("role") != "master":
            raise RedisConnectionError("The server is no primary.")
        self.meet(lines.get("master_replid", ""))
