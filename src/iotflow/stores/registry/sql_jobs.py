"""Jobs: claimed under a lease by one replica at a time."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, or_, select, update

from iotflow.domain.jobs import Job, JobKind, JobStatus
from iotflow.stores.registry.models import job_devices, job_keys, jobs
from iotflow.stores.registry.sql_base import Connections

_FORGET_AT_ONCE = 100


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
    )


class Jobs(Connections):
    async def job(self, job_id: int) -> Job | None:
        async with self.reading() as connection:
            row = (await connection.execute(select(jobs).where(jobs.c.id == job_id))).first()
        return to_job(row) if row else None

    async def claim_job(self, owner: str, now: datetime, lease_until: datetime) -> Job | None:
        column = jobs.c
        free = or_(column.lease_until.is_(None), column.lease_until <= now)
        due = (
            select(column.id)
            .where(column.due_at <= now, free)
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

    async def forget_jobs(self, finished_before: datetime) -> None:
        over = select(jobs.c.id).where(jobs.c.due_at.is_(None))
        old = over.where(jobs.c.finished_at < finished_before).limit(_FORGET_AT_ONCE)
        async with self.writing() as connection:
            for table in (job_devices, job_keys):
                await connection.execute(delete(table).where(table.c.job_id.in_(over)))
            await connection.execute(delete(jobs).where(jobs.c.id.in_(old)))
