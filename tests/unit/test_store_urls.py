"""URLs that name several hosts, as every version of Python reads them."""

import asyncio
import socket
from urllib.parse import SplitResult, urlsplit

import asyncpg
import pytest

from iotflow.stores.postgres import connect_arguments, target_of
from iotflow.stores.urls import split_url


def test_a_list_of_hosts_may_hold_addresses() -> None:
    assert split_url("Redis+Cluster://u:p%40@h1:7,[2001:db8::3]:8/0?a=1&b=%2F#end") == SplitResult(
        "redis+cluster", "u:p%40@h1:7,[2001:db8::3]:8", "/0", "a=1&b=%2F", "end"
    )
    url = "postgresql://u@h1,[::1]:5433/iotflow?target_session_attrs=read-write&pgbouncer=true"
    target = target_of(url)
    assert target.pgbouncer
    assert target.dsn == "postgresql://u@/iotflow?target_session_attrs=read-write"
    assert (target.hosts, target.ports) == (["h1", "::1"], [5432, 5433])
    assert target_of("postgresql:///db?host=%2Frun").hosts == []


async def test_postgresql_is_asked_at_each_of_its_hosts() -> None:
    """Nobody listens at the first two; the driver asks in the order that they are given in."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as last:
        last.settimeout(30)
        hosts = f"127.0.0.1:{nobody},[::1]:{nobody},127.0.0.1:{last.getsockname()[1]}"
        arguments = connect_arguments(f"postgresql://u@{hosts}/iotflow?sslmode=disable")
        connecting = asyncio.create_task(asyncpg.connect(**arguments))
        accepted, _ = await asyncio.to_thread(last.accept)
        accepted.close()
        with pytest.raises((OSError, asyncpg.PostgresError)):
            await connecting


@pytest.mark.parametrize(
    "url",
    [
        "cassandra://h1:9042,h2/keyspace?local_dc=a",
        "sqlite:////srv/data/events.db",
        "memory://",
        "mongodb://[::1]:27017/?x=/y",
        "//h/p?q#f",
        "a path",
        "",
    ],
)
def test_else_it_reads_what_the_standard_library_reads(url: str) -> None:
    assert split_url(url) == urlsplit(url)
