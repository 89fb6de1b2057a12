"""Statistics of the telemetry tables and their server."""

from typing import Any

from iotflow.stores.sql_statistics import pool_statistics, postgres_statistics, queries
from iotflow.stores.statistics import Statistic
from iotflow.stores.telemetry.postgres.connections import Connections

_SCHEMA = "telemetry"


async def statistics(connections: Connections, queued_points: int) -> list[Statistic]:
    """Raises StoreUnavailableError."""
    answers = [await connections.rows(sql, (), _as_tuple) for sql in queries(_SCHEMA)]
    return [
        *postgres_statistics(answers),
        *pool_statistics(*connections.pool_sizes()),
        Statistic(
            "iotflow_postgres_queued_points",
            "Points that wait for their commit",
            float(queued_points),
        ),
    ]


def _as_tuple(*columns: Any) -> tuple[Any, ...]:
    return columns
