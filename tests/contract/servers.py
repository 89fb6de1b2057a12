"""Where the real servers are that a suite runs on, besides the embedded adapters."""

import os

import pytest

servers = pytest.mark.servers


def server_url(name: str) -> str:
    """The URL in the environment variable of a server, say IOTFLOW_TEST_POSTGRES_URL.

    A test that was chosen to run on a server and finds none has failed: were it
    skipped, nobody would notice that an adapter is never tried.
    """
    url = os.environ.get(name)
    if not url:
        pytest.fail(f"{name} is not set: these tests need a server (or -m 'not servers')")
    return url
