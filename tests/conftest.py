"""What all tests share."""

import pytest

from iotflow.observability.logging import configure_logging
from iotflow.settings import LogSettings


@pytest.fixture(autouse=True, scope="session")
def _logs() -> None:
    """As the service logs, without the noise."""
    configure_logging(LogSettings(level="warning"))
