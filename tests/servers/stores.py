"""The four real stores, empty, for services that run as processes of their own."""

import asyncio
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pymongo
import redis

from tests.contract.servers import server_url
from tests.servers.cassandra_session import plain_session

_TAKEN, _TAKEN_S = "iotflow:test:taken", 600
SECRET = "a signing secret that all replicas share"


def with_path(url: str, path: str) -> str:
    """A URL that names another database, keyspace or number on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{path}"))


@contextmanager
def fresh_database() -> Iterator[str]:
    """An empty PostgreSQL database, dropped at the end; gives its URL.

    The servers of deploy/local have a superuser `postgres` with the password of `iotflow`.
    """
    url = server_url("IOTFLOW_TEST_POSTGRES_URL")
    name, owner = f"iotflow_{secrets.token_hex(6)}", urlsplit(url).username
    _execute_now(url, f"CREATE DATABASE {name} OWNER {owner}")
    try:
        yield with_path(url, name)
    finally:
        _execute_now(url, f"DROP DATABASE {name} WITH (FORCE)")


def _execute_now(url: str, statement: str) -> None:
    """In a thread, because a loop may be running in this one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(_execute(url, statement))).result()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, user="postgres")
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@contextmanager
def four_stores() -> Iterator[dict[str, str]]:
    """Settings of a service on PostgreSQL, Cassandra, Redis and MongoDB, all empty.

    In Redis no key can meet one of another test: ids come from a registry that begins anew, so
    the database there is one of its own.
    """
    with (
        fresh_database() as registry,
        fresh_keyspace() as telemetry,
        fresh_redis() as cache,
        fresh_mongo() as events,
    ):
        yield {
            "IOTFLOW_REGISTRY__URL": registry,
            "IOTFLOW_TELEMETRY__URL": telemetry,
            "IOTFLOW_CACHE__URL": cache,
            "IOTFLOW_EVENTS__URL": events,
            "IOTFLOW_SECRET_KEY": SECRET,
        }


@contextmanager
def fresh_keyspace() -> Iterator[str]:
    """A keyspace that the service makes, dropped at the end; gives its URL."""
    name = f"iotflow_{secrets.token_hex(6)}"
    url = with_path(server_url("IOTFLOW_TEST_CASSANDRA_URL"), name)
    try:
        yield url
    finally:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(_drop_keyspace(url, name))).result()


async def _drop_keyspace(url: str, name: str) -> None:
    async with plain_session(url) as session:
        await session.rows(f"DROP KEYSPACE IF EXISTS {name}")


@contextmanager
def fresh_mongo() -> Iterator[str]:
    """A database of the MongoDB server, dropped at the end; gives its URL."""
    name = f"iotflow_{secrets.token_hex(6)}"
    url = with_path(server_url("IOTFLOW_TEST_MONGODB_URL"), name)
    try:
        yield url
    finally:
        with pymongo.MongoClient[dict[str, Any]](url) as client:
            client.drop_database(name)


@contextmanager
def fresh_redis() -> Iterator[str]:
    """An emptied database of the Redis server, of those from 8 on that nothing else uses."""
    for number in range(8, 16):
        url = with_path(server_url("IOTFLOW_TEST_REDIS_URL"), str(number))
        with redis.Redis.from_url(url) as client:
            if not client.set(_TAKEN, 1, nx=True, ex=_TAKEN_S):
                continue
            # At once: between the two another process of tests would find it free.
            client.pipeline(transaction=True).flushdb().set(_TAKEN, 1, ex=_TAKEN_S).execute()
            try:
                yield url
            finally:
                client.flushdb()
            return
    raise AssertionError("all Redis databases for tests are in use")


@contextmanager
def postgres_only() -> Iterator[dict[str, str]]:
    """Settings of the system that keeps everything in PostgreSQL."""
    with fresh_database() as url:
        yield {
            "IOTFLOW_REGISTRY__URL": url,
            "IOTFLOW_TELEMETRY__URL": url,
            "IOTFLOW_CACHE__URL": "none://",
            "IOTFLOW_EVENTS__URL": url,
            "IOTFLOW_SECRET_KEY": SECRET,
        }
