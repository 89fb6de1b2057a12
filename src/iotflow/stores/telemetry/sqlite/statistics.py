"""Statistics of the telemetry file."""

import asyncio
from pathlib import Path

from iotflow.stores.statistics import Statistic, file_statistics
from iotflow.stores.telemetry.sqlite.writer import Writer


async def statistics(path: Path, writer: Writer) -> list[Statistic]:
    """Sizes on the disk, and what waits."""
    return [
        *await asyncio.to_thread(file_statistics, path),
        Statistic(
            "iotflow_sqlite_queued_points",
            "Points that wait for their commit",
            float(writer.queued_points),
        ),
        Statistic(
            "iotflow_sqlite_journal_points",
            "Points that are durable in the journal, and not in their table yet",
            float(writer.journal_points),
        ),
        Statistic(
            "iotflow_sqlite_commits",
            "Transactions, each a durable write to the disk",
            float(writer.groups_committed),
            (),
            True,
        ),
    ]
