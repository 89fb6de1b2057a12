"""The naive app's tables: a schema of their own, filled, and dropped at the end."""

import asyncio
import contextlib
import secrets
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from iotflow.cli.bench.options import BenchError
from iotflow.domain.secrets import DEVICE_KEY_PREFIX, new_secret
from iotflow.stores.postgres import connect_arguments

_TABLES = """
CREATE TABLE devices (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id bigint NOT NULL,
    name text NOT NULL, status text NOT NULL DEFAULT 'active', last_seen timestamptz);
CREATE TABLE api_keys (
    api_key text PRIMARY KEY, device_id bigint NOT NULL REFERENCES devices);
CREATE TABLE telemetry (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id bigint NOT NULL REFERENCES devices, timestamp timestamptz NOT NULL,
    measurement_name text NOT NULL, value double precision NOT NULL, unit text);
CREATE INDEX ON telemetry (device_id, timestamp DESC);
CREATE INDEX ON telemetry (device_id, measurement_name, timestamp DESC);
CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event_type text NOT NULL,
    device_id bigint NOT NULL, user_id bigint NOT NULL, timestamp timestamptz NOT NULL,
    measurements text[] NOT NULL);
CREATE INDEX ON events (device_id, timestamp DESC);
"""
_DAY_MINUTES = 1440


@dataclass(frozen=True, slots=True)
class NaiveTables:
    """The schema, and (id, key) of its devices; the last `histories` have a day of minutes."""

    schema: str
    devices: list[tuple[int, str]]


@contextlib.contextmanager
def naive_tables(url: str, devices: int, histories: int) -> Generator[NaiveTables]:
    """Tables with `devices` that have a reading each, and `histories` more with a day of minutes.

    Raises:
        BenchError: the database cannot be reached, or lets nobody make a schema.
    """
    schema = f"iotflow_bench_{secrets.token_hex(6)}"
    try:
        try:
            made = asyncio.run(_make(url, schema, devices, histories))
        except (OSError, asyncpg.PostgresError) as error:
            raise BenchError(f"The naive system's tables cannot be made: {error}") from None
        yield NaiveTables(schema, made)
    finally:
        asyncio.run(_drop(url, schema))


async def _make(url: str, schema: str, devices: int, histories: int) -> list[tuple[int, str]]:
    connection = await _connect(url)
    try:
        await connection.execute(f"CREATE SCHEMA {schema}")
        await connection.execute(f"SET search_path TO {schema}")
        await connection.execute(_TABLES)
        made = await _register(connection, devices + histories)
        await _fill(connection, [it[0] for it in made[:devices]], [it[0] for it in made[devices:]])
        await connection.execute("ANALYZE devices, api_keys, telemetry")
    finally:
        await connection.close()
    return made


async def _drop(url: str, schema: str) -> None:
    with contextlib.suppress(OSError):
        connection = await _connect(url)
        try:
            await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        finally:
            await connection.close()


async def _connect(url: str) -> "asyncpg.Connection[Any]":
    return await asyncpg.connect(**connect_arguments(url, patient=True))


async def _register(connection: "asyncpg.Connection[Any]", count: int) -> list[tuple[int, str]]:
    names = [f"bench-{number:04d}" for number in range(count)]
    rows = await connection.fetch(
        "INSERT INTO devices (user_id, name) SELECT 1, unnest($1::text[]) RETURNING id", names
    )
    made = [(row["id"], new_secret(DEVICE_KEY_PREFIX).secret) for row in rows]
    keys = [(key, device_id) for device_id, key in made]
    await connection.copy_records_to_table("api_keys", records=keys)
    return made


async def _fill(
    connection: "asyncpg.Connection[Any]", writers: list[int], histories: list[int]
) -> None:
    now = datetime.now(UTC)
    once = [(it, now, name, 20.0) for it in writers for name in ("temperature", "humidity")]
    minutes = [
        (it, now - timedelta(minutes=minute), "temperature", 20 + minute % 100 / 10)
        for it in histories
        for minute in range(_DAY_MINUTES)
    ]
    await connection.copy_records_to_table(
        "telemetry",
        records=once + minutes,
        columns=["device_id", "timestamp", "measurement_name", "value"],
    )
