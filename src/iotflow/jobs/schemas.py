"""What jobs look like over HTTP."""

from typing import Annotated, Any

from pydantic import Field

from iotflow.domain.jobs import Job, JobKind, JobStatus
from iotflow.http.pagination import Cursor, Limit
from iotflow.http.schemas import Model, Query, Time


class ProgressOut(Model):
    done: Annotated[int, Field(description="Devices that it is through with")]
    total: Annotated[int, Field(description="How many there were when it began")]


class FindingOut(Model):
    fault: Annotated[
        str,
        Field(
            description="`latest_in_cache`, `latest_in_store`, `events_missing`, `unknown_device`"
        ),
    ]
    device_id: int
    detail: str
    repaired: bool


class JobOut(Model):
    id: int
    kind: JobKind
    status: JobStatus
    counts: Annotated[
        dict[str, int | None],
        Field(description="What was done so far; null where a store cannot know how many"),
    ]
    created_at: Time
    finished_at: Time | None
    requested_by: Annotated[int | None, Field(description="A user; null: the service itself")] = (
        None
    )
    due_at: Annotated[
        Time | None,
        Field(description="When it goes on: later than now where a store is waited for"),
    ] = None
    parameters: Annotated[dict[str, Any], Field(description="What was asked for")]
    progress: ProgressOut | None = None
    findings: Annotated[list[FindingOut], Field(description="A verification's first ones")]

    @classmethod
    def of(cls, job: Job) -> "JobOut":
        total = job.state.get("total")
        done = job.counts.get("devices") or 0
        return cls(
            id=job.id,
            kind=job.kind,
            status=job.status,
            counts=job.counts,
            created_at=job.created_at,
            finished_at=job.finished_at,
            requested_by=job.requested_by or None,
            due_at=None if job.status is JobStatus.DONE else job.due_at,
            parameters=job.parameters,
            progress=None if total is None else ProgressOut(done=done, total=total),
            findings=[FindingOut(**each) for each in job.report.get("findings", [])],
        )


class JobListQuery(Query):
    kind: Annotated[JobKind | None, Field(description="Of this kind alone")] = None
    limit: Limit = 100
    cursor: Cursor = None


class JobsOut(Model):
    items: list[JobOut]
    next_cursor: str | None


class BegunJobOut(Model):
    id: int
    status: JobStatus


class DeletionOut(Model):
    """What was deleted is gone; what is stored of it is removed in the background."""

    job: Annotated[BegunJobOut, Field(description="Follow it with GET /api/v1/jobs/{id}")]

    @classmethod
    def of(cls, job: Job) -> "DeletionOut":
        return cls(job=BegunJobOut(id=job.id, status=job.status))


class BegunOut(Model):
    """It goes on in the background, whatever happens to this process."""

    job: Annotated[BegunJobOut, Field(description="Follow it with GET /api/v1/jobs/{id}")]

    @classmethod
    def of(cls, job: Job) -> "BegunOut":
        return cls(job=BegunJobOut(id=job.id, status=job.status))
