"""Deleting devices and users: the rows at once, and a job for what other stores hold of them."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, FromClause, delete, func, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.domain.jobs import Job, JobKind, JobStatus
from iotflow.stores.registry.models import (
    api_keys,
    device_config,
    devices,
    group_devices,
    groups,
    job_devices,
    job_keys,
    jobs,
    users,
)
from iotflow.stores.registry.sql_base import Connections
from iotflow.stores.registry.sql_devices import lock_device
from iotflow.stores.registry.sql_jobs import to_job


class Deletions(Connections):
    async def delete_device(
        self, device_id: int, requested_by: int, unchanged_since: datetime | None, now: datetime
    ) -> Job | None:
        async with self.writing() as connection:
            if await lock_device(connection, device_id, unchanged_since) is None:
                return None
            job = await _make_job(
                connection,
                JobKind.DEVICE_DELETION,
                device_id,
                requested_by,
                devices.c.id == device_id,
                now,
            )
            await connection.execute(delete(devices).where(devices.c.id == device_id))
            return job

    async def delete_user(self, user_id: int, requested_by: int, now: datetime) -> Job | None:
        async with self.writing() as connection:
            # The locks keep devices and keys from being made that the job would not know of.
            user = await connection.execute(
                select(users.c.id).where(users.c.id == user_id).with_for_update()
            )
            if user.first() is None:
                return None
            theirs = devices.c.user_id == user_id
            await connection.execute(
                select(devices.c.id).where(theirs).order_by(devices.c.id).with_for_update()
            )
            job = await _make_job(
                connection, JobKind.USER_DELETION, user_id, requested_by, theirs, now
            )
            await connection.execute(delete(users).where(users.c.id == user_id))
            return job


async def _make_job(
    connection: AsyncConnection,
    kind: JobKind,
    subject_id: int,
    requested_by: int,
    chosen: ColumnElement[bool],
    now: datetime,
) -> Job:
    counts = await _counted(connection, chosen)
    if kind is JobKind.USER_DELETION:
        counts |= {"groups": await _count(connection, groups, groups.c.user_id == subject_id)}
    row = {
        "kind": kind.value,
        "status": JobStatus.PENDING.value,
        "requested_by": requested_by,
        "subject_id": subject_id,
        "counts": counts,
        "stage": 0,
        "after_device_id": 0,
        "attempts": 0,
        "due_at": now,
        "created_at": now,
    }
    job = to_job((await connection.execute(insert(jobs).values(row).returning(jobs))).one())
    await connection.execute(
        insert(job_devices).from_select(
            ["job_id", "device_id"], select(literal(job.id), devices.c.id).where(chosen)
        )
    )
    await connection.execute(
        insert(job_keys).from_select(
            ["job_id", "digest"],
            select(literal(job.id), api_keys.c.digest).join_from(api_keys, devices).where(chosen),
        )
    )
    return job


async def _counted(connection: AsyncConnection, chosen: ColumnElement[bool]) -> dict[str, Any]:
    """What of the registry goes with the devices."""
    ids = select(devices.c.id).where(chosen)
    return {
        "devices": await _count(connection, devices, chosen),
        "keys": await _count(connection, api_keys, api_keys.c.device_id.in_(ids)),
        "configs": await _count(connection, device_config, device_config.c.device_id.in_(ids)),
        "memberships": await _count(connection, group_devices, group_devices.c.device_id.in_(ids)),
        "points": 0,
        "events": 0,
    }


async def _count(
    connection: AsyncConnection, table: FromClause, chosen: ColumnElement[bool]
) -> int:
    found = await connection.execute(select(func.count()).select_from(table).where(chosen))
    return found.scalar_one()
