"""Statistics of the stores that speak SQL: of their file, or of the PostgreSQL server."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iotflow.stores.statistics import Statistic, each, file_statistics

TABLES = """
SELECT relname, pg_total_relation_size(relid), n_live_tup, n_dead_tup
FROM pg_stat_user_tables WHERE schemaname = '{schema}'
"""
CONNECTIONS = """
SELECT coalesce(state, 'unknown'), count(*) FROM pg_stat_activity
WHERE datname = current_database() GROUP BY 1
"""
DATABASE = """
SELECT pg_database_size(datname), blks_hit, blks_read, xact_commit, xact_rollback, deadlocks
FROM pg_stat_database WHERE datname = current_database()
"""
# Of each standby, as the primary sees it; of this server's own, where it is one. Without the
# right to see it the delay is NULL.
LAG = """
SELECT application_name, extract(epoch FROM replay_lag)::float8 FROM pg_stat_replication
UNION ALL
SELECT 'self', extract(epoch FROM now() - pg_last_xact_replay_timestamp())::float8
WHERE pg_is_in_recovery()
"""


def queries(schema: str) -> tuple[str, str, str, str]:
    """What is asked, in the order in which `postgres_statistics` takes the answers."""
    return (TABLES.format(schema=schema), CONNECTIONS, DATABASE, LAG)


def postgres_statistics(answers: Sequence[Sequence[Any]]) -> list[Statistic]:
    """The answers to `queries`, each as rows; an empty one for what was not allowed."""
    tables, connections, database, lag = answers
    found: list[Statistic] = []
    for kind, column in (("live", 2), ("dead", 3)):
        found += (
            Statistic(
                "iotflow_postgres_table_rows",
                "Rows of a table, estimated; dead ones wait for a vacuum",
                float(row[column]),
                (("table", row[0]), ("kind", kind)),
            )
            for row in tables
        )
    found += each(
        "iotflow_postgres_table_bytes",
        "Size of a table with its indexes",
        "table",
        {row[0]: row[1] for row in tables},
    )
    found += each(
        "iotflow_postgres_connections",
        "The server's connections to the database, of every client",
        "state",
        {row[0]: row[1] for row in connections},
    )
    found += each(
        "iotflow_postgres_replication_lag_seconds",
        "How far a standby is behind",
        "standby",
        {row[0]: row[1] for row in lag if row[1] is not None},
    )
    for row in database:
        found += _of_database(row)
    return found


def _of_database(row: Sequence[Any]) -> list[Statistic]:
    size, hit, read, commits, rollbacks, deadlocks = row
    return [
        Statistic("iotflow_postgres_database_bytes", "Size of the database", float(size)),
        *each(
            "iotflow_postgres_blocks",
            "Blocks that were asked for, by where they were found",
            "from",
            {"cache": hit, "disk": read},
            is_counter=True,
        ),
        *each(
            "iotflow_postgres_transactions",
            "Transactions of the database, by their end",
            "end",
            {"commit": commits, "rollback": rollbacks},
            is_counter=True,
        ),
        Statistic(
            "iotflow_postgres_deadlocks",
            "Deadlocks that the server broke",
            float(deadlocks),
            (),
            True,
        ),
    ]


def pool_statistics(in_use: int, idle: int, limit: int) -> list[Statistic]:
    """Of a pool of connections in this process."""
    return [
        *each(
            "iotflow_postgres_pool_connections",
            "Connections of this process's pool",
            "state",
            {"in_use": in_use, "idle": idle},
        ),
        Statistic("iotflow_postgres_pool_limit", "Connections that a pool may have", float(limit)),
    ]


async def sqlite_statistics(path: Path) -> list[Statistic]:
    """Of an SQLite file; the disk is asked off the event loop."""
    return await asyncio.to_thread(file_statistics, path)
