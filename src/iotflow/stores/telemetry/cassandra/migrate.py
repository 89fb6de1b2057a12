"""Makes the keyspace and its tables, once, however many replicas start at the same time."""

import asyncio
import re
from importlib import resources
from secrets import token_hex
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import structlog

from iotflow.errors import ConfigurationError, StoreUnavailableError
from iotflow.stores.telemetry.cassandra.address import Address
from iotflow.stores.telemetry.cassandra.driver import Driver
from iotflow.stores.telemetry.cassandra.failures import CALLERS_FAULT, SERVER_ERROR

_LOCK_S = 120
_POLL_S = 0.25
_AGREEMENT_S = 10.0
_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.cql")

_CREATE_TABLE = (
    "CREATE TABLE IF NOT EXISTS {keyspace}.iotflow_migrations (kind text, version int,"
    " holder text, applied_at timestamp, PRIMARY KEY ((kind), version))"
)
_APPLIED = "SELECT version FROM {keyspace}.iotflow_migrations WHERE kind = 'applied'"
_NOTE_APPLIED = (
    "INSERT INTO {keyspace}.iotflow_migrations (kind, version, holder, applied_at)"
    " VALUES ('applied', :version, '{holder}', toTimestamp(now()))"
)
_LOCK = (
    "INSERT INTO {keyspace}.iotflow_migrations (kind, version, holder)"
    " VALUES ('lock', 0, '{holder}') IF NOT EXISTS USING TTL {lock_s}"
)
_UNLOCK = (
    "DELETE FROM {keyspace}.iotflow_migrations WHERE kind = 'lock' AND version = 0"
    " IF holder = '{holder}'"
)
_TTL = (
    "SELECT default_time_to_live FROM system_schema.tables"
    " WHERE keyspace_name = '{keyspace}' AND table_name = 'telemetry_by_device'"
)

_log = structlog.get_logger(__name__)


class Migrations:
    """Files of the folder cql/ that a keyspace does not have yet."""

    def __init__(self, driver: Driver, address: Address) -> None:
        self._driver = driver
        self._address = address
        self._holder = token_hex(8)

    async def apply(self) -> None:
        """Bring the keyspace up to date, waiting for another replica that is doing it.

        Raises:
            StoreUnavailableError: the cluster, or the other replica, did not finish.
        """
        await self._make_table()
        files = migration_files()
        deadline = asyncio.get_running_loop().time() + _LOCK_S
        while pending := {v: cql for v, cql in files.items() if v not in await self._applied()}:
            if await self._lock():
                try:
                    await self._apply(pending)
                finally:
                    await self._unlock()
            elif asyncio.get_running_loop().time() > deadline:
                raise StoreUnavailableError("telemetry")
            else:
                await asyncio.sleep(_POLL_S)
        await self._set_ttl()

    async def _make_table(self) -> None:
        """The table that the others are counted in, and that holds the lock while they change."""
        if await self._can_be_read():
            return
        await self._driver.define(await self._create_keyspace())
        # Two nodes that make a table at the same time do not see each other. With an id that
        # follows from its name they make the same table, not two.
        table_id = uuid5(NAMESPACE_URL, f"cassandra:{self._address.keyspace}.iotflow_migrations")
        await self._rows(f"{_CREATE_TABLE} WITH id = {table_id}")
        await self._agree()

    async def _can_be_read(self) -> bool:
        """Whether there is a table, and it is whole."""
        try:
            await self._applied()
        except CALLERS_FAULT:
            return False
        except StoreUnavailableError as error:
            # A node lists a table in its schema a moment before it can open it, and fails on a
            # statement that comes between. To make the table, too, waits for who is making it.
            if isinstance(error.__cause__, SERVER_ERROR):
                return False
            raise
        return True

    async def _create_keyspace(self) -> str:
        local_dc = self._address.local_dc
        if local_dc is None:
            ((local_dc,),) = await self._rows("SELECT data_center FROM system.local")
        copies = ", ".join(f"'{dc or local_dc}': {n}" for dc, n in self._address.replication)
        strategy = f"{{'class': 'NetworkTopologyStrategy', {copies}}}"
        return (
            f"CREATE KEYSPACE IF NOT EXISTS {self._address.keyspace} WITH replication = {strategy}"
        )

    async def _applied(self) -> set[int]:
        rows = await self._rows(_APPLIED)
        return {row[0] for row in rows}

    async def _lock(self) -> bool:
        """Whether this replica may change the schema now. Its right ends by itself."""
        rows = await self._rows(_LOCK)
        return bool(rows[0][0])

    async def _unlock(self) -> None:
        await self._rows(_UNLOCK)

    async def _apply(self, pending: dict[int, str]) -> None:
        done = await self._applied()  # by who held the lock before
        for version, text in sorted(pending.items()):
            if version in done:
                continue
            for statement in statements_of(text):
                await self._driver.define(statement.format(keyspace=self._address.keyspace))
            await self._agree()
            await self._rows(_NOTE_APPLIED.replace(":version", str(version)))
            _log.info("migrated", role="telemetry", version=version)

    async def _set_ttl(self) -> None:
        """Points that are written from now on are kept as long as the URL says."""
        rows = await self._rows(_TTL)
        if rows and rows[0][0] != self._address.ttl_s:
            await self._driver.define(
                f"ALTER TABLE {self._address.keyspace}.telemetry_by_device"
                f" WITH default_time_to_live = {self._address.ttl_s}"
            )
            await self._agree()

    async def _agree(self) -> None:
        """Wait until all nodes have one schema; one that is down is not waited for."""
        deadline = asyncio.get_running_loop().time() + _AGREEMENT_S
        while True:
            rows = await self._rows("SELECT schema_version FROM system.local")
            rows += await self._rows("SELECT schema_version FROM system.peers")
            if len({str(row[0]) for row in rows}) == 1:
                return
            if asyncio.get_running_loop().time() > deadline:
                _log.warning("schemas_differ", role="telemetry")
                return
            await asyncio.sleep(_POLL_S)

    async def _rows(self, cql: str) -> list[tuple[Any, ...]]:
        names = {"keyspace": self._address.keyspace, "holder": self._holder, "lock_s": _LOCK_S}
        return [row.as_tuple() for row in await self._driver.define(cql.format_map(names))]


def migration_files() -> dict[int, str]:
    """The text of each file by its version."""
    found: dict[int, str] = {}
    for file in resources.files("iotflow.stores.telemetry.cassandra.cql").iterdir():
        match = _FILE.fullmatch(file.name)
        if match is None:
            continue
        version = int(match[1])
        if version in found:
            raise ConfigurationError(f"Two migrations of Cassandra have the number {version}.")
        found[version] = file.read_text(encoding="utf-8")
    return found


def statements_of(text: str) -> list[str]:
    """The statements of a file: comments are lines of their own, a semicolon ends each."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return [each.strip() for each in "\n".join(lines).split(";") if each.strip()]
