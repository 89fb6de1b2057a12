"""The telemetry store and the main job on a ring of three Cassandra nodes (LOCAL_QUORUM)."""

import asyncio
from collections.abc import AsyncGenerator, Iterator

import pytest

from iotflow.stores.telemetry.cassandra import CassandraTelemetryStore
from tests.contract.telemetry_adapters import CassandraHarness, TelemetryHarness
from tests.contract.telemetry_device import DrivenDevice, point
from tests.contract.test_telemetry_store import TestConcurrency as TestConcurrency
from tests.contract.test_telemetry_store import TestDeleteRange as TestDeleteRange
from tests.contract.test_telemetry_store import TestHistory as TestHistory
from tests.contract.test_telemetry_store import TestLastWriteWins as TestLastWriteWins
from tests.contract.test_telemetry_store import TestLatest as TestLatest
from tests.contract.test_telemetry_store import TestLatestAfterDeletes as TestLatestAfterDeletes
from tests.faults.ring import Ring
from tests.process.conftest import register, served
from tests.process.test_main_job import FILES, Record, read_file, run_import
from tests.process.test_main_job import test_all_daily_means as test_all_daily_means
from tests.process.test_main_job import (
    test_every_hour_is_there_with_its_value as test_every_hour_is_there_with_its_value,
)
from tests.process.test_main_job import (
    test_importing_again_changes_nothing as test_importing_again_changes_nothing,
)
from tests.process.test_main_job import test_the_latest_value as test_the_latest_value
from tests.servers.cassandra_session import plain_session

pytestmark = [pytest.mark.servers, pytest.mark.faults]


@pytest.fixture(scope="session", name="started")
def _started(own_ring: Ring) -> Ring:
    own_ring.start()
    return own_ring


@pytest.fixture(scope="session", name="telemetry")
async def _telemetry(started: Ring) -> AsyncGenerator[TelemetryHarness]:
    harness = RingHarness(started.fresh_keyspace())
    await harness.store.open()
    await warm_up(harness)
    yield harness
    await harness.store.close()


class RingHarness(CassandraHarness):
    """What is right is asked here, not how fast: 1,200 new devices at once take three nodes that
    share two cores longer than a device may be made to wait."""

    def unopened(self) -> CassandraTelemetryStore:
        return CassandraTelemetryStore(self.url, limit_s=20.0, request_timeout_s=9.0)


async def warm_up(harness: CassandraHarness) -> None:
    """Three JVMs that have just started share two cores: the first thousands of writes are slow."""
    device = DrivenDevice(harness)
    for round_ in range(400):
        await asyncio.gather(*(device.write(point(round_ * 16 + n)) for n in range(16)))


@pytest.fixture
def driven(telemetry: TelemetryHarness) -> DrivenDevice:
    return DrivenDevice(telemetry)


@pytest.fixture(scope="session")
def record(started: Ring, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Record]:
    directory = tmp_path_factory.mktemp("main-job")
    file = directory / "seattle-temps.csv"
    file.write_bytes((FILES / file.name).read_bytes())
    url = started.fresh_keyspace()
    with served(directory / "data", IOTFLOW_TELEMETRY__URL=url) as service:
        credentials = register(service.url)
        assert "8,759" in run_import(service.url, credentials.api_key, file)
        yield Record(service.url, credentials, read_file(file))


async def test_its_keyspace_has_three_replicas(started: Ring, telemetry: CassandraHarness) -> None:
    keyspace = telemetry.url.rpartition("/")[2].partition("?")[0]
    schema = f"SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = '{keyspace}'"
    async with plain_session(started.url) as session:
        ((replication,),) = await session.rows(schema)
    assert replication["class"].endswith("NetworkTopologyStrategy")
    assert [count for name, count in replication.items() if name != "class"] == ["3"]
