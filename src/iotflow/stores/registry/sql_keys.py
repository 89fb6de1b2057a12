"""Device keys: what they open, rotation, revocation, and when they were last used."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Protocol

import msgspec
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    FromClause,
    String,
    any_,
    bindparam,
    column,
    func,
    insert,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.domain.devices import ApiKey, DeviceStatus, KeyRecord
from iotflow.domain.times import from_ms, to_ms
from iotflow.errors import ConflictError, NotFoundError, StoreUnavailableError
from iotflow.stores.registry.models import UtcDateTime, api_keys, aware, devices, users
from iotflow.stores.registry.protocol import NewKey
from iotflow.stores.registry.sql_base import Connections

MAX_LIVE_KEYS = 2


def to_key(row: Any) -> ApiKey:
    return ApiKey(
        id=row.id,
        device_id=row.device_id,
        prefix=row.prefix,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
    )


def live(now: datetime) -> ColumnElement[bool]:
    """The condition of keys that open something."""
    expires_at = api_keys.c.expires_at
    return api_keys.c.revoked_at.is_(None) & or_(expires_at.is_(None), expires_at > now)


async def insert_keys(
    connection: AsyncConnection, new: Sequence[tuple[int, NewKey]], now: datetime
) -> list[ApiKey]:
    """Insert keys, each with the id of its device; returns them in the order given."""
    rows = [
        {
            "device_id": device_id,
            "digest": key.digest,
            "prefix": key.prefix,
            "created_at": now,
            "expires_at": key.expires_at,
        }
        for device_id, key in new
    ]
    statement = insert(api_keys).returning(api_keys, sort_by_parameter_order=True)
    return [to_key(row) for row in await connection.execute(statement, rows)]


class Lookups(Protocol):
    """Finds records of keys by their digests."""

    async def get(self, key: str, /) -> KeyRecord | None:
        """The record of a key that is not revoked.

        Raises:
            StoreUnavailableError, TimeoutError: nobody can tell.
        """
        ...


class Keys(Connections):
    _lookups: Lookups

    async def key_record(self, digest: str, now: datetime) -> KeyRecord | None:
        now_ms = to_ms(aware(now))
        try:
            record = await self._lookups.get(digest)
        except TimeoutError as error:
            raise StoreUnavailableError("registry") from error
        if record is None or (record.expires_ms is not None and record.expires_ms <= now_ms):
            return None
        return record

    async def key_records(self, digests: Sequence[str]) -> dict[str, KeyRecord]:
        """The records of keys that are not revoked, by their digests, from a server."""
        async with self.reading() as connection:
            rows = await connection.execute(_records_of_many(), {"digests": list(digests)})
            return {digest: to_record(*columns) for digest, *columns in rows}

    async def keys(self, device_id: int, now: datetime) -> list[ApiKey]:
        statement = (
            select(api_keys)
            .where(api_keys.c.device_id == device_id, live(now))
            .order_by(api_keys.c.id)
        )
        async with self.reading() as connection:
            return [to_key(row) for row in await connection.execute(statement)]

    async def rotate_key(
        self, device_id: int, new: NewKey, others_end_at: datetime, now: datetime
    ) -> tuple[ApiKey, list[str]]:
        key = api_keys.c
        async with self.writing() as connection:
            # The device's row is the lock: two rotations at once must not make three keys.
            device = await connection.execute(
                select(devices.c.id).where(devices.c.id == device_id).with_for_update()
            )
            if device.first() is None:
                raise NotFoundError("There is no such device.")
            others = (
                await connection.execute(
                    select(key.id, key.digest).where(key.device_id == device_id, live(now))
                )
            ).all()
            if len(others) >= MAX_LIVE_KEYS and others_end_at > now:
                raise ConflictError(
                    "This device has two live keys. Revoke one, or send overlap 0 to end both.",
                    code="too_many_keys",
                )
            await connection.execute(
                update(api_keys)
                .where(key.id.in_([other.id for other in others]))
                .where(or_(key.expires_at.is_(None), key.expires_at > others_end_at))
                .values(expires_at=others_end_at)
            )
            [created] = await insert_keys(connection, [(device_id, new)], now)
        return created, [other.digest for other in others]

    async def revoke_key(self, device_id: int, key_id: int, now: datetime) -> str | None:
        key = api_keys.c
        async with self.writing() as connection:
            revoked = await connection.execute(
                update(api_keys)
                .where(key.id == key_id, key.device_id == device_id, live(now))
                .values(revoked_at=now)
                .returning(key.digest)
            )
            return revoked.scalar()

    async def note_seen(self, seen_ms_by_key: Mapping[int, int]) -> None:
        if not seen_ms_by_key:
            return
        async with self.writing() as connection:
            sqlite = connection.dialect.name == "sqlite"
            parameters = _seen_parameters(sqlite, seen_ms_by_key)
            for statement in _stamps(sqlite):
                await connection.execute(statement, parameters)


@cache
def _records_of_many() -> Any:
    """One parameter, `digests`: the statement is the same for any number of them."""
    return records().where(api_keys.c.digest == any_(bindparam("digests", type_=ARRAY(String))))


def records() -> Any:
    """The digests and the records (see `to_record`) of keys that are not revoked."""
    key = api_keys.c
    return (
        select(
            key.digest,
            key.id,
            key.prefix,
            key.created_at,
            key.expires_at,
            devices.c.id,
            devices.c.user_id,
            devices.c.name,
            devices.c.status,
            users.c.is_active,
        )
        .join_from(api_keys, devices)
        .join(users)
        .where(key.revoked_at.is_(None))
    )


def to_record(
    key_id: int,
    prefix: str,
    created_at: datetime,
    expires_at: datetime | None,
    device_id: int,
    user_id: int,
    name: str,
    status: str,
    is_active: bool,
) -> KeyRecord:
    """From the columns of `records` behind the digest."""
    return KeyRecord(
        key_id=key_id,
        prefix=prefix,
        device_id=device_id,
        user_id=user_id,
        name=name,
        status=DeviceStatus(status),
        active=bool(is_active) and status != DeviceStatus.INACTIVE,
        created_ms=to_ms(created_at),
        expires_ms=None if expires_at is None else to_ms(expires_at),
    )


@cache
def _stamps(sqlite: bool) -> list[Any]:
    """What stamps the keys that `_seen_parameters` names, and their devices."""
    seen = _seen_rows(sqlite)
    stamps = [_stamp_devices(seen), _stamp_keys(seen)]
    return stamps if sqlite else [_held_devices(seen), *stamps]


def _seen_rows(sqlite: bool) -> FromClause:
    """The parameter as a table (key_id, seen_at): one statement, however many keys."""
    if sqlite:
        rows = func.json_each(bindparam("seen")).table_valued("value", name="seen")
        key_id, seen_ms = (func.json_extract(rows.c.value, f"$[{n}]") for n in (0, 1))
        # As SQLAlchemy writes datetimes on SQLite; text in this form compares as time does.
        text = func.strftime("%Y-%m-%d %H:%M:%f000", seen_ms / 1000.0, "unixepoch")
        seen_at = type_coerce(text, UtcDateTime)
        return select(key_id.label("key_id"), seen_at.label("seen_at")).subquery("seen")
    return (
        func.unnest(
            bindparam("key_ids", type_=ARRAY(BigInteger)),
            bindparam("seen_at", type_=ARRAY(UtcDateTime)),
        )
        .table_valued(column("key_id", BigInteger), column("seen_at", UtcDateTime))
        .render_derived(name="seen")
    )


def _seen_parameters(sqlite: bool, seen_ms_by_key: Mapping[int, int]) -> dict[str, Any]:
    # In one order everywhere, so that two replicas lock the rows in the same order.
    seen = sorted(seen_ms_by_key.items())
    if sqlite:
        return {"seen": msgspec.json.encode(seen).decode()}
    return {"key_ids": [key for key, _ in seen], "seen_at": [from_ms(ms) for _, ms in seen]}


def _held_devices(seen: FromClause) -> Any:
    """Locks the devices in one order, and before their keys, as a rotation does.

    Two replicas that stamp the same ones, or one that rotates a key meanwhile, would wait for
    each other in a circle otherwise: the server updates rows in any order.
    """
    stamped = select(api_keys.c.device_id).join_from(api_keys, seen, api_keys.c.id == seen.c.key_id)
    return (
        select(devices.c.id)
        .where(devices.c.id.in_(stamped))
        .order_by(devices.c.id)
        .with_for_update(key_share=True)
    )


def _stamp_keys(seen: FromClause) -> Any:
    last_used_at = api_keys.c.last_used_at
    return (
        update(api_keys)
        .where(api_keys.c.id == seen.c.key_id)
        .where(or_(last_used_at.is_(None), last_used_at < seen.c.seen_at))
        .values(last_used_at=seen.c.seen_at)
    )


def _stamp_devices(seen: FromClause) -> Any:
    newest = (
        select(api_keys.c.device_id, func.max(seen.c.seen_at).label("seen_at"))
        .join_from(api_keys, seen, api_keys.c.id == seen.c.key_id)
        .group_by(api_keys.c.device_id)
        .subquery("newest")
    )
    return (
        update(devices)
        .where(devices.c.id == newest.c.device_id)
        .where(or_(devices.c.last_seen.is_(None), devices.c.last_seen < newest.c.seen_at))
        .values(last_seen=newest.c.seen_at)
    )
