"""What every store role has in common."""

from typing import Protocol

from iotflow.stores.breaker import BreakerState
from iotflow.stores.statistics import Statistic


class Store(Protocol):
    """A store that is opened once, answers pings, and is closed once.

    `open` may be called again after it raised, and raises StoreUnavailableError
    while the server behind it is away; so does every other call until `open`
    has succeeded. `backend` names what really fills the role (`sqlite`, ...).
    """

    @property
    def backend(self) -> str: ...

    @property
    def breaker_state(self) -> BreakerState:
        """CLOSED, too, for a store that is in this process and needs no breaker."""
        ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def statistics(self) -> list[Statistic]:
        """What the store tells of itself, for metrics; not much where it can tell little.

        Raises:
            StoreUnavailableError: it does not answer.
        """
        ...

    async def ping(self) -> None:
        """Answers when the store can serve.

        Raises:
            StoreUnavailableError: it can not.
        """
        ...
