"""A plain session with Cassandra, to see and change what the adapter wrote."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import acsylla

from iotflow.stores.telemetry.cassandra.address import parse_address


class PlainSession:
    def __init__(self, session: Any) -> None:
        self._session = session

    async def rows(self, cql: str) -> list[tuple[Any, ...]]:
        statement = acsylla.create_statement(cql, parameters=0, timeout=20)
        return [row.as_tuple() for row in await self._session.execute(statement)]


@asynccontextmanager
async def plain_session(url: str) -> AsyncGenerator[PlainSession]:
    address = parse_address(url)
    cluster = acsylla.create_cluster(
        list(address.hosts),
        port=address.port,
        consistency=acsylla.Consistency.ONE,
        log_level="disabled",
    )
    session = await cluster.create_session()
    try:
        yield PlainSession(session)
    finally:
        await session.close()
        cluster.destroy()
