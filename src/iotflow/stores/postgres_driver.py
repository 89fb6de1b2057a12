"""The PostgreSQL driver under SQLAlchemy. Imported only where there is a `postgresql://` URL."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg

from iotflow.stores.postgres import connect_arguments

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[Any]
else:
    _Connection = asyncpg.Connection

_CLOSE_S = 0.2


class PromptConnection(_Connection):
    """Does not wait for long until a server says good-bye that perhaps says nothing any more."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109, as inherited
        with suppress(TimeoutError):  # it is cut off then
            await super().close(timeout=min(timeout or _CLOSE_S, _CLOSE_S))


def connector(url: str, *, patient: bool) -> Callable[..., Awaitable[PromptConnection]]:
    """What SQLAlchemy calls for a new connection; it knows nothing of our URL."""
    arguments = connect_arguments(url, patient=patient)

    async def connect(**_of_its_own_url: object) -> PromptConnection:
        return await asyncpg.connect(**arguments, connection_class=PromptConnection)

    return connect
