"""Jobs: claimed under a lease by one replica at a time."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Table, delete, insert, or_, select, true, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from iotflow.domain.jobs import Job, JobKind, JobStatus
from iotflow.stores.registry.models import job_devices, job_keys, jobs
from iotflow.stores.registry.protocol import JobQuery, NewJob
from iotflow.stores.registry.sql_base import Connections

_FORGET_AT_ONCE = 100
_ROWS_AT_ONCE = 1_000


def to_job(row: Any) -> Job:
    return Job(
        id=row.id,
        kind=JobKind(row.kind),
        status=JobStatus(row.status),
        requested_by=row.requested_by,
        subject_id=row.subject_id,
        counts=row.counts,
        stage=row.stage,
        after_device_id=row.after_device_id,
        attempts=row.attempts,
        due_at=row.due_at,
        created_at=row.created_at,
        finished_at=row.finished_at,
        parameters=row.parameters,
        state=row.state,
        report=row.report,
    )


def _free(now: datetime) -> ColumnElement[bool]:
    """Nobody works at it."""
    return or_(jobs.c.lease_until.is_(None), jobs.c.lease_until <= now)


class Jobs(Connections):
    async def job(self, job_id: int) -> Job | None:
        async with self.reading() as connection:
            row = (await connection.execute(select(jobs).where(jobs.c.id == job_id))).first()
        return to_job(row) if row else None

    async def jobs(self, query: JobQuery) -> tuple[list[Job], bool]:
        statement = select(jobs).order_by(jobs.c.id.desc()).limit(query.limit + 1)
        if query.requested_by is not None:
            statement = statement.where(jobs.c.requested_by == query.requested_by)
        if query.kind is not None:
            statement = statement.where(jobs.c.kind == query.kind.value)
        if query.before_id is not None:
            statement = statement.where(jobs.c.id < query.before_id)
        async with self.reading() as connection:
            found = [to_job(row) for row in await connection.execute(statement)]
        return found[: query.limit], len(found) > query.limit

    async def add_job(self, new: NewJob, now: datetime) -> Job:
        row = {
            "kind": new.kind.value,
            "status": JobStatus.PENDING.value,
            "requested_by": new.requested_by,
            "subject_id": new.subject_id,
            "parameters": dict(new.parameters),
            "counts": {},
            "stage": 0,
            "after_device_id": 0,
            "attempts": 0,
            "due_at": new.due_at or now,
            "created_at": now,
        }
        async with self.writing() as connection:
            made = await connection.execute(insert(jobs).values(row).returning(jobs))
            return to_job(made.one())

    async def amend_job(
        self, job_id: int, parameters: Mapping[str, Any], due_at: datetime, now: datetime
    ) -> bool:
        amended = (
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.stage == 0, jobs.c.due_at.is_not(None), _free(now))
            .values(parameters=dict(parameters), due_at=due_at)
        )
        async with self.writing() as connection:
            return (await connection.execute(amended)).rowcount > 0

    async def claim_job(
        self,
        owner: str,
        now: datetime,
        lease_until: datetime,
        kinds: Collection[JobKind] | None = None,
    ) -> Job | None:
        column = jobs.c
        wanted = true() if kinds is None else column.kind.in_([kind.value for kind in kinds])
        due = (
            select(column.id)
            .where(column.due_at <= now, _free(now), wanted)
            .order_by(column.due_at, column.id)
            .limit(1)
        )
        # Read first: a worker that finds nothing shall not take a write lock for that.
        async with self.reading() as connection:
            if (await connection.execute(due)).first() is None:
                return None
        async with self.writing() as connection:
            job_id = (await connection.execute(due.with_for_update(skip_locked=True))).scalar()
            if job_id is None:
                return None
            claimed = await connection.execute(
                update(jobs)
                .where(column.id == job_id)
                .values(lease_owner=owner, lease_until=lease_until)
                .returning(jobs)
            )
            return to_job(claimed.one())

    async def save_job(self, job: Job, owner: str, lease_until: datetime | None) -> bool:
        values = {
            "status": job.status.value,
            "counts": job.counts,
            "state": job.state,
            "report": job.report,
            "stage": job.stage,
            "after_device_id": job.after_device_id,
            "attempts": job.attempts,
            "due_at": job.due_at,
            "finished_at": job.finished_at,
            "lease_until": lease_until,
            "lease_owner": owner if lease_until else None,
        }
        mine = (jobs.c.id == job.id, jobs.c.lease_owner == owner)
        async with self.writing() as connection:
            saved = await connection.execute(update(jobs).where(*mine).values(values))
        return saved.rowcount > 0

    async def job_devices(self, job_id: int, after_id: int, limit: int) -> list[int]:
        column = job_devices.c
        statement = (
            select(column.device_id)
            .where(column.job_id == job_id, column.device_id > after_id)
            .order_by(column.device_id)
            .limit(limit)
        )
        async with self.reading() as connection:
            return list((await connection.execute(statement)).scalars())

    async def job_keys(self, job_id: int, after_digest: str, limit: int) -> list[str]:
        column = job_keys.c
        statement = (
            select(column.digest)
            .where(column.job_id == job_id, column.digest > after_digest)
            .order_by(column.digest)
            .limit(limit)
        )
        async with self.reading() as connection:
            return list((await connection.execute(statement)).scalars())

    async def being_deleted(self, device_ids: Collection[int]) -> set[int]:
        statement = (
            select(job_devices.c.device_id)
            .join_from(job_devices, jobs)
            .where(job_devices.c.device_id.in_(device_ids), jobs.c.due_at.is_not(None))
        )
        async with self.reading() as connection:
            return set((await connection.execute(statement)).scalars())

    async def forget_jobs(self, finished_before: datetime) -> bool:
        old = (
            select(jobs.c.id)
            .where(jobs.c.due_at.is_(None), jobs.c.finished_at < finished_before)
            .order_by(jobs.c.id)
            .limit(_FORGET_AT_ONCE)
        )
        # Read first: a worker that finds nothing shall not take a write lock for that.
        async with self.reading() as connection:
            if (await connection.execute(old)).first() is None:
                return False
        async with self.writing() as connection:
            # Those that another replica drops just now are none of ours.
            found = await connection.execute(old.with_for_update(skip_locked=True))
            job_ids = list(found.scalars())
            # A user's deletion may list very many devices: some of them at a time.
            for table, listed in ((job_devices, "device_id"), (job_keys, "digest")):
                if await _drop_some(connection, table, listed, job_ids):
                    return True
            await connection.execute(delete(jobs).where(jobs.c.id.in_(job_ids)))
        return len(job_ids) == _FORGET_AT_ONCE


async def _drop_some(
    connection: AsyncConnection, table: Table, listed: str, job_ids: Collection[int]
) -> bool:
    """Drop rows of a table that lists something for the jobs; whether there may be more."""
    key = (table.c.job_id, table.c[listed])
    some = select(*key).where(table.c.job_id.in_(job_ids)).limit(_ROWS_AT_ONCE)
    dropped = await connection.execute(delete(table).where(tuple_(*key).in_(some)))
    return dropped.rowcount == _ROWS_AT_ONCE
