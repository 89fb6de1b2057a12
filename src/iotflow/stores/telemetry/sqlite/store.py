"""The telemetry role on SQLite."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import apsw

from iotflow.domain.points import DevicePoint, LatestPoint, Point, Submission
from iotflow.domain.times import TimeRange
from iotflow.errors import StoreUnavailableError
from iotflow.stores.breaker import BreakerState
from iotflow.stores.migrations import head_revision
from iotflow.stores.sql import migrated, translated_errors
from iotflow.stores.statistics import Statistic
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
from iotflow.stores.telemetry.sqlite import aggregates, history, submissions
from iotflow.stores.telemetry.sqlite.checkpoints import Checkpointer
from iotflow.stores.telemetry.sqlite.connections import connect, revision_of
from iotflow.stores.telemetry.sqlite.deletes import ALL_TIME, EVERY_WRITE_US, RangeDelete
from iotflow.stores.telemetry.sqlite.driver import translated
from iotflow.stores.telemetry.sqlite.journal import Journal
from iotflow.stores.telemetry.sqlite.readers import Readers
from iotflow.stores.telemetry.sqlite.statistics import statistics
from iotflow.stores.telemetry.sqlite.writer import Writer


class SqliteTelemetryStore:
    """Implements `TelemetryStore` (protocol.py) in one file that this process alone writes.

    At most `max_queued_points` wait to be written and `max_waiting_reads` large reads for one of
    `reader_threads`; what comes above that raises OverloadedError. Closing writes what is queued,
    for at most about `drain_s`.
    """

    backend = "sqlite"

    def __init__(
        self,
        path: Path,
        *,
        max_queued_points: int = 200_000,
        reader_threads: int = 4,
        max_waiting_reads: int = 256,
        drain_s: float = 10.0,
    ) -> None:
        self._path = path
        self._max_queued_points = max_queued_points
        self._reader_threads = reader_threads
        self._max_waiting_reads = max_waiting_reads
        self._drain_s = drain_s
        self._opened: tuple[Writer, Readers] | None = None

    @property
    def breaker_state(self) -> BreakerState:
        return BreakerState.CLOSED

    async def open(self) -> None:
        try:
            await self._migrate()
            connections = await asyncio.to_thread(connect, self._path, self._reader_threads)
            journal = await asyncio.to_thread(Journal, connections.writer)
        except apsw.Error as error:
            raise translated(error) from error
        self._opened = (
            Writer(
                connections.writer,
                journal,
                Checkpointer(connections.checkpointer, connections.writer),
                self._max_queued_points,
            ),
            Readers(connections.inline, connections.readers, self._max_waiting_reads),
        )

    async def _migrate(self) -> None:
        with translated_errors("telemetry"):
            revision = await asyncio.to_thread(revision_of, self._path)
        # By Python's driver, so never where the file may be open already (driver.py).
        if revision != head_revision("telemetry"):
            await migrated("telemetry", f"sqlite:///{self._path}")

    async def close(self) -> None:
        if self._opened is None:
            return
        writer, readers = self._opened
        self._opened = None
        await writer.close(self._drain_s)
        await readers.close()

    async def statistics(self) -> list[Statistic]:
        return await statistics(self._path, self._writer)

    async def ping(self) -> None:
        if not self._writer.is_alive:
            raise StoreUnavailableError("telemetry")
        await self._readers.rows("SELECT device_id FROM latest LIMIT 1", (), int)

    async def write(self, submission: Submission) -> None:
        await self._writer.submit(submission)

    async def history(self, query: HistoryQuery) -> Page[Point]:
        await self._writer.merge((query.device_id,))
        return await history.history(self._readers, query)

    async def fleet_history(self, query: FleetHistoryQuery) -> Page[DevicePoint]:
        await self._writer.merge(query.device_ids)
        return await history.fleet_history(self._readers, query)

    async def latest(self, device_ids: Sequence[int]) -> Mapping[int, list[LatestPoint]]:
        await self._writer.merge(device_ids)
        return await history.latest(self._readers, device_ids)

    async def measurements(self, device_id: int) -> Collection[str]:
        await self._writer.merge((device_id,))
        return await history.measurements(self._readers, device_id)

    async def slots(self, query: SlotQuery) -> list[Slot]:
        await self._writer.merge((query.device_id,))
        return await aggregates.slots(self._readers, query)

    async def samples(
        self, device_id: int, measurement: str, within: TimeRange, row_budget: int
    ) -> list[Sample]:
        await self._writer.merge((device_id,))
        return await aggregates.samples(self._readers, device_id, measurement, within, row_budget)

    async def marks(self, query: MarkQuery) -> MarkPage:
        await self._writer.merge((query.device_id,))
        return await submissions.marks(self._readers, query)

    async def devices(self, after: int | None, limit: int) -> DevicePage:
        await self._writer.merge(self._writer.unmerged)
        return await submissions.devices(self._readers, after, limit)

    async def delete_range(self, device_id: int, within: TimeRange, written_us: int) -> int:
        return await self._writer.delete(RangeDelete(device_id, within, written_us))

    async def delete_device(self, device_id: int) -> int:
        return await self._writer.delete(RangeDelete(device_id, ALL_TIME, EVERY_WRITE_US))

    @property
    def queued_points(self) -> int:
        """Points that wait for their commit."""
        return 0 if self._opened is None else self._opened[0].queued_points

    @property
    def groups_committed(self) -> int:
        """Transactions since the store was opened; each is one durable write to the disk."""
        return 0 if self._opened is None else self._opened[0].groups_committed

    @property
    def submissions_committed(self) -> int:
        """Submissions since the store was opened."""
        return 0 if self._opened is None else self._opened[0].submissions_committed

    @property
    def _writer(self) -> Writer:
        if self._opened is None:
            raise StoreUnavailableError("telemetry")
        return self._opened[0]

    @property
    def _readers(self) -> Readers:
        if self._opened is None:
            raise StoreUnavailableError("telemetry")
        return self._opened[1]
