"""The sockets on which the service listens."""

import contextlib
import socket
import sys
from collections.abc import Generator

from iotflow.errors import ConfigurationError
from iotflow.settings import Settings

ACCEPTED_A_TURN = 16
"""Connections that a turn of the event loop accepts at most."""


@contextlib.contextmanager
def listening(settings: Settings) -> Generator[list[socket.socket]]:
    """Sockets of one address, bound; connections that come are anybody's who accepts first.

    libuv accepts one connection of a listener in each turn of the event loop, and a busy loop
    turns some hundred times a second: devices that connect for each submission would wait for
    that, not for their submission (docs/decisions/0021).

    Raises:
        ConfigurationError: the address is taken, or is none of this machine.
    """
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(_bound(settings.host, settings.port))
        # Windows has no uvloop, and asyncio's own loop accepts all that wait.
        copies = 0 if sys.platform == "win32" else ACCEPTED_A_TURN - 1
        yield [first, *[stack.enter_context(first.dup()) for _ in range(copies)]]


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"IOTFLOW_PORT: cannot listen on {host}:{port} ({error.strerror}). Choose another port."
        ) from None
    return listener
