"""What all tests share."""

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
def _authorities_read_once() -> Iterator[None]:
    """httpx reads all certificate authorities for each client, and each call by itself is one.

    That takes longer than most requests here, on the core that the service needs.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "httpx._transports.default.create_ssl_context", cache(httpx.create_ssl_context)
        )
        yield
