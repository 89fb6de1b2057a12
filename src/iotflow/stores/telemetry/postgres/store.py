"""The telemetry role on PostgreSQL."""

from collections.abc import Collection, Mapping, Sequence

from iotflow.domain.points import DevicePoint, LatestPoint, Point, Submission
from iotflow.domain.times import TimeRange
from iotflow.errors import StoreUnavailableError
from iotflow.stores.breaker import Breaker, BreakerState
from iotflow.stores.postgres import target_of
from iotflow.stores.sql import migrated
from iotflow.stores.statistics import Statistic
from iotflow.stores.telemetry.postgres import aggregates, fleet, history, submissions
from iotflow.stores.telemetry.postgres.connections import Connections
from iotflow.stores.telemetry.postgres.deletes import ALL_TIME, EVERY_WRITE_US, Deletes
from iotflow.stores.telemetry.postgres.statistics import statistics
from iotflow.stores.telemetry.postgres.writer import Writer
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

_PING = "SELECT device_id FROM telemetry.latest LIMIT 1"
_PING_S = 2.0


class PostgresTelemetryStore:
    """Implements `TelemetryStore` (protocol.py) for a `postgresql://` URL (stores/postgres.py).

    Replicas may share a database. `writers` groups of submissions are committed at once, of at
    most `max_queued_points` that wait, and `readers` reads at once; what comes above raises
    OverloadedError. A group and a chunk of a delete have `write_s` to be committed. Closing
    writes what is queued, for at most about `drain_s`. It uses `writers` + `readers` + 1
    connections.

    Raises:
        ConfigurationError: the URL cannot work.
    """

    backend = "postgres"

    def __init__(
        self,
        url: str,
        *,
        writers: int = 2,
        readers: int = 8,
        max_queued_points: int = 200_000,
        write_s: float = 5.0,
        drain_s: float = 10.0,
        breaker: Breaker | None = None,
    ) -> None:
        target_of(url)  # what cannot work is said now
        self.breaker = breaker or Breaker("telemetry")
        self._url = url
        self._writers = writers
        self._readers = readers
        self._max_queued_points = max_queued_points
        self._write_s = write_s
        self._drain_s = drain_s
        self._opened: tuple[Connections, Writer, Deletes] | None = None

    @property
    def breaker_state(self) -> BreakerState:
        return self.breaker.state

    async def open(self) -> None:
        await migrated("telemetry", self._url)
        others = self._writers + 1
        connections = await Connections.open(
            self._url, self.breaker, readers=self._readers, others=others
        )
        writer = Writer(
            connections,
            workers=self._writers,
            max_queued_points=self._max_queued_points,
            limit_s=self._write_s,
        )
        self._opened = (connections, writer, Deletes(connections, self._write_s))

    async def close(self) -> None:
        if self._opened is None:
            return
        (connections, writer, _), self._opened = self._opened, None
        try:
            await writer.close(self._drain_s)
        finally:
            await connections.close()

    async def statistics(self) -> list[Statistic]:
        return await statistics(self._connections, self._writer.queued_points)

    async def ping(self) -> None:
        if not self._writer.is_alive:
            raise StoreUnavailableError("telemetry")
        await self._connections.rows(_PING, (), int, _PING_S)

    async def write(self, submission: Submission) -> None:
        await self._writer.submit(submission)

    async def history(self, query: HistoryQuery) -> Page[Point]:
        return await history.history(self._connections, query)

    async def fleet_history(self, query: FleetHistoryQuery) -> Page[DevicePoint]:
        return await fleet.fleet_history(self._connections, query)

    async def latest(self, device_ids: Sequence[int]) -> Mapping[int, list[LatestPoint]]:
        return await history.latest(self._connections, device_ids)

    async def measurements(self, device_id: int) -> Collection[str]:
        return await history.measurements(self._connections, device_id)

    async def slots(self, query: SlotQuery) -> list[Slot]:
        return await aggregates.slots(self._connections, query)

    async def samples(
        self, device_id: int, measurement: str, within: TimeRange, row_budget: int
    ) -> list[Sample]:
        return await aggregates.samples(
            self._connections, device_id, measurement, within, row_budget
        )

    async def marks(self, query: MarkQuery) -> MarkPage:
        return await submissions.marks(self._connections, query)

    async def devices(self, after: int | None, limit: int) -> DevicePage:
        return await submissions.devices(self._connections, after, limit)

    async def delete_range(self, device_id: int, within: TimeRange, written_us: int) -> int:
        _, writer, deletes = self._required()
        deletes.admit()
        try:
            await writer.settled(device_id)
            return await deletes.run(device_id, within, written_us)
        finally:
            deletes.done()

    async def delete_device(self, device_id: int) -> int:
        return await self.delete_range(device_id, ALL_TIME, EVERY_WRITE_US)

    @property
    def queued_points(self) -> int:
        """Points that wait for their commit."""
        return 0 if self._opened is None else self._opened[1].queued_points

    @property
    def groups_committed(self) -> int:
        """Transactions since the store was opened."""
        return 0 if self._opened is None else self._opened[1].groups_committed

    @property
    def submissions_committed(self) -> int:
        """Submissions since the store was opened."""
        return 0 if self._opened is None else self._opened[1].submissions_committed

    @property
    def _connections(self) -> Connections:
        return self._required()[0]

    @property
    def _writer(self) -> Writer:
        return self._required()[1]

    def _required(self) -> tuple[Connections, Writer, Deletes]:
        if self._opened is None:
            raise StoreUnavailableError("telemetry")
        return self._opened
