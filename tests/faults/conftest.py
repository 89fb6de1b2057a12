"""Servers for the faults alone, beside whatever else runs here."""

from collections.abc import Iterator

import pytest

from tests.faults.ring import Ring, running_ring


@pytest.fixture(scope="session")
def own_ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ring]:
    with running_ring(tmp_path_factory.mktemp("ring")) as ring:
        yield ring


@pytest.fixture
def ring(own_ring: Ring) -> Iterator[Ring]:
    """Three Cassandra nodes that all work, before and after."""
    own_ring.start()
    yield own_ring
    own_ring.start()
