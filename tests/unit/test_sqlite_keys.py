"""Look-ups of keys in the registry's file: at once, and in nobody's way."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from iotflow.domain.devices import KeyRecord
from iotflow.errors import StoreUnavailableError
from iotflow.stores.registry.protocol import NewDevice, NewKey, NewUser
from iotflow.stores.registry.sql import SqlRegistry
from iotflow.stores.registry.sqlite_keys import SqliteKeys

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "d" * 64


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    """A registry's file with a device and its key, which is open."""
    path = tmp_path / "registry.db"
    registry = SqlRegistry(f"sqlite:///{path}")
    await registry.open()
    user = await registry.create_user(NewUser("u", "u@example.com", "hash"), NOW)
    await registry.create_device(NewDevice(user.id, "boiler"), NewKey(DIGEST, "iotd_12"), NOW)
    yield path
    await registry.close()


@pytest.fixture
async def keys(path: Path) -> AsyncIterator[SqliteKeys]:
    keys = SqliteKeys(path)
    keys.open()
    yield keys
    keys.close()


def at_once(keys: SqliteKeys, digest: str) -> KeyRecord | None:
    """What a look-up finds without letting anybody else run."""
    with pytest.raises(StopIteration) as ended:
        keys.get(digest).send(None)
    found: KeyRecord | None = ended.value.value
    return found


async def test_a_key_is_found_without_waiting(keys: SqliteKeys) -> None:
    record = at_once(keys, DIGEST)
    assert record is not None
    assert (record.name, record.prefix, record.active) == ("boiler", "iotd_12", True)
    assert at_once(keys, "e" * 64) is None


async def test_a_look_up_leaves_the_file_free(keys: SqliteKeys, path: Path) -> None:
    at_once(keys, DIGEST)
    with closing(sqlite3.connect(path, timeout=0)) as other:
        busy, *_ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0


async def test_nobody_is_told_of_keys_while_it_is_closed(keys: SqliteKeys) -> None:
    keys.close()
    with pytest.raises(StoreUnavailableError):
        await keys.get(DIGEST)


async def test_a_file_without_its_tables_is_unavailable(tmp_path: Path) -> None:
    keys = SqliteKeys(tmp_path / "empty.db")
    keys.open()
    with pytest.raises(StoreUnavailableError):
        await keys.get(DIGEST)
    keys.close()


async def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError):
        SqliteKeys(tmp_path / "nowhere" / "registry.db").open()
