"""The telemetry role on Cassandra."""

from collections.abc import Collection, Mapping, Sequence

from iotflow.domain.points import DevicePoint, LatestPoint, Point, Submission
from iotflow.domain.times import TimeRange
from iotflow.errors import StoreUnavailableError
from iotflow.stores.breaker import Breaker, BreakerState
from iotflow.stores.statistics import Statistic
from iotflow.stores.telemetry.cassandra import aggregates, fleet, history, latest, submissions
from iotflow.stores.telemetry.cassandra.address import parse_address
from iotflow.stores.telemetry.cassandra.deletes import Deleter
from iotflow.stores.telemetry.cassandra.driver import Driver
from iotflow.stores.telemetry.cassandra.history import Reader
from iotflow.stores.telemetry.cassandra.migrate import Migrations
from iotflow.stores.telemetry.cassandra.statements import Statements
from iotflow.stores.telemetry.cassandra.statistics import statistics
from iotflow.stores.telemetry.cassandra.writer import Writer
from iotflow.stores.telemetry.cassandra.written import WrittenIndex
from iotflow.stores.telemetry.protocol import (
    DevicePage,
    FleetHistoryQuery,
    HistoryQuery,
    MarkPage,
    MarkQuery,
    Page,
    Sample,
    Slot,
    SlotQuery,
)


class _Opened:
    """What works on a session."""

    def __init__(self, driver: Driver, keyspace: str, index_ttl_s: int, remembered: int) -> None:
        statements = Statements(keyspace, driver.prepare)
        self.written = WrittenIndex(remembered)
        self.writer = Writer(driver, statements, self.written, index_ttl_s)
        self.reader = Reader(driver, statements)
        self.deleter = Deleter(driver, statements)


class CassandraTelemetryStore:
    """Implements `TelemetryStore` (protocol.py) on Cassandra 5 for a URL (see `parse_address`).

    A call on which requests wait is answered or refused within about `limit_s`; scans (slots,
    samples, history of few of many measurements) within SCAN_S for each day. At most
    `max_in_flight` statements are under way and `max_waiting` wait for their turn. Up to
    `remembered_entries` index entries are known to have been written.

    Raises:
        ConfigurationError: the URL cannot work.
    """

    backend = "cassandra"

    def __init__(
        self,
        url: str,
        *,
        breaker: Breaker | None = None,
        limit_s: float = 2.0,
        request_timeout_s: float = 0.9,
        max_in_flight: int = 4_096,
        max_waiting: int = 4_096,
        io_threads: int = 1,
        connections_a_host: int = 2,
        remembered_entries: int = 500_000,
    ) -> None:
        self._address = parse_address(url)
        self.breaker = breaker or Breaker("telemetry")
        self._driver = Driver(
            self._address,
            self.breaker,
            limit_s=limit_s,
            request_timeout_s=request_timeout_s,
            max_in_flight=max_in_flight,
            max_waiting=max_waiting,
            io_threads=io_threads,
            connections_a_host=connections_a_host,
        )
        self._remembered_entries = remembered_entries
        self._opened: _Opened | None = None

    @property
    def breaker_state(self) -> BreakerState:
        return self.breaker.state

    async def open(self) -> None:
        await self._driver.connect()
        await Migrations(self._driver, self._address).apply()
        self._opened = _Opened(
            self._driver,
            self._address.keyspace,
            self._address.index_ttl_s,
            self._remembered_entries,
        )

    async def close(self) -> None:
        self._opened = None
        await self._driver.close()

    async def statistics(self) -> list[Statistic]:
        return await statistics(self._driver, self._address.keyspace)

    async def ping(self) -> None:
        # A read with a quorum of one partition. No device has the number 0.
        await self._ready.reader.days(0, 0, 1, history.Order.DESC)

    async def write(self, submission: Submission) -> None:
        await self._ready.writer.write(submission)

    async def history(self, query: HistoryQuery) -> Page[Point]:
        return await history.history(self._ready.reader, query)

    async def fleet_history(self, query: FleetHistoryQuery) -> Page[DevicePoint]:
        return await fleet.fleet_history(self._ready.reader, query)

    async def latest(self, device_ids: Sequence[int]) -> Mapping[int, list[LatestPoint]]:
        return await latest.latest(self._ready.reader, device_ids)

    async def measurements(self, device_id: int) -> Collection[str]:
        return await latest.measurements(self._ready.reader, device_id)

    async def slots(self, query: SlotQuery) -> list[Slot]:
        return await aggregates.slots(self._ready.reader, query)

    async def samples(
        self, device_id: int, measurement: str, within: TimeRange, row_budget: int
    ) -> list[Sample]:
        reader = self._ready.reader
        return await aggregates.samples(reader, device_id, measurement, within, row_budget)

    async def marks(self, query: MarkQuery) -> MarkPage:
        return await submissions.marks(self._ready.reader, query)

    async def devices(self, after: int | None, limit: int) -> DevicePage:
        return await submissions.devices(self._ready.reader, after, limit)

    async def delete_range(self, device_id: int, within: TimeRange, written_us: int) -> None:
        await self._ready.deleter.delete_range(device_id, within, written_us)

    async def delete_device(self, device_id: int) -> None:
        opened = self._ready
        opened.written.forget(device_id)
        await opened.deleter.delete_device(device_id)
        opened.written.forget(device_id)

    @property
    def statements(self) -> int:
        """Statements that were sent, retries included."""
        return self._driver.statements

    @property
    def waiting_statements(self) -> int:
        """Statements that wait for their turn."""
        return self._driver.waiting

    @property
    def _ready(self) -> _Opened:
        if self._opened is None:
            raise StoreUnavailableError("telemetry")
        return self._opened
