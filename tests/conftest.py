"""What all tests share."""

import signal
from collections.abc import Iterator
from functools import cache

import httpx
import pytest

from iotflow.observability.logging import configure_logging
from iotflow.settings import LogSettings


@pytest.fixture(autouse=True, scope="session")
def _logs() -> None:
    """As the service logs, without the noise."""
    configure_logging(LogSettings(level="warning"))


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard() -> None:
    """A shell starts what runs in the background deaf to SIGINT, and whom it starts inherits it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _authorities_read_once() -> Iterator[None]:
    """httpx reads all certificate authorities for each client, and each call by itself is one.

    That takes longer than most requests here, on the core that the service needs.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "httpx._transports.default.create_ssl_context", cache(httpx.create_ssl_context)
        )
        yield
