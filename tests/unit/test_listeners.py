"""Listening: a turn of the event loop accepts many connections, and nobody listens afterwards."""

import asyncio
import errno
import os
import socket
import sys
from contextlib import ExitStack, suppress

import pytest

from iotflow.cli.listeners import ACCEPTED_A_TURN, listening
from iotflow.errors import ConfigurationError
from iotflow.settings import Settings

COMING = 2 * ACCEPTED_A_TURN


def settings(port: int = 0, host: str = "127.0.0.1") -> Settings:
    return Settings.load(host=host, port=port)


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not there")
def test_a_turn_of_the_loop_accepts_many_connections() -> None:
    import uvloop

    async def turns_until_all_are_accepted(listeners: list[socket.socket]) -> int:
        loop = asyncio.get_running_loop()
        accepted: list[asyncio.BaseTransport] = []

        class Accepting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted.append(transport)

        servers = [await loop.create_server(Accepting, sock=listener) for listener in listeners]
        turns = 0
        with ExitStack() as stack:
            address = listeners[0].getsockname()
            # The system answers them; the loop hears of all in one turn.
            for _ in range(COMING):
                stack.enter_context(socket.create_connection(address, timeout=10))
            while len(accepted) < COMING:
                turns += 1
                assert turns < 1_000
                await asyncio.sleep(0)
        for each in (*accepted, *servers):
            each.close()
        return turns

    with listening(settings()) as listeners:
        took = uvloop.run(turns_until_all_are_accepted(listeners))
    # Two turns accept, another two tell of it.
    assert took <= 6


def test_nobody_listens_afterwards() -> None:
    with listening(settings()) as listeners:
        address = listeners[0].getsockname()
        for listener in listeners:
            listener.listen()
        socket.create_connection(address, timeout=10).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=10)


def addresses() -> list[str]:
    """Those of this machine; it may have no IPv6."""
    found = ["127.0.0.1"]
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        found.append("::1")
    return found


@pytest.mark.parametrize("host", addresses())
def test_an_address_that_is_taken_is_named(host: str) -> None:
    with listening(settings(host=host)) as listeners:
        port = listeners[0].getsockname()[1]
        listeners[0].listen()
        reason = os.strerror(errno.EADDRINUSE)
        told = f"IOTFLOW_PORT: cannot listen on {host}:{port} ({reason})"
        with (
            pytest.raises(ConfigurationError) as raised,
            listening(settings(port, host)),
        ):
            pass
    assert str(raised.value).startswith(told)
