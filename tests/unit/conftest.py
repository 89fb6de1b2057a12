"""What several of the unit tests stand on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from iotflow.stores.registry.sql import SqlRegistry


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[SqlRegistry]:
    """An empty one, open."""
    registry = SqlRegistry(f"sqlite:///{tmp_path}/registry.db")
    await registry.open()
    yield registry
    await registry.close()
