"""The four real stores, empty, for services that run as processes of their own."""

import asyncio
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.contract.servers import server_url

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
    name = f"iotflow_{secrets.token_hex(6)}"
    with fresh_database() as registry:
        yield {
            "IOTFLOW_REGISTRY__URL": registry,
            "IOTFLOW_TELEMETRY__URL": with_path(server_url("IOTFLOW_TEST_CASSANDRA_URL"), name),
            "IOTFLOW_CACHE__URL": fresh_redis(),
            "IOTFLOW_EVENTS__URL": with_path(server_url("IOTFLOW_TEST_MONGODB_URL"), name),
            "IOTFLOW_SECRET_KEY": SECRET,
        }


def fresh_redis() -> str:
    """An emptied database of the Redis server, of those from 8 on that nothing else uses."""
    import redis

    for number in range(8, 16):
        url = with_path(server_url("IOTFLOW_TEST_REDIS_URL"), str(number))
        client = redis.Redis.from_url(url)
        if client.set("iotflow:test:taken", 1, nx=True, ex=120):
            client.flushdb()
            client.set("iotflow:test:taken", 1, ex=120)
            client.close()
            return url
        client.close()
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
