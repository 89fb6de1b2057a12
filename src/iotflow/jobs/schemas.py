"""What jobs look like over HTTP."""

from typing import Annotated

from pydantic import Field

from iotflow.domain.jobs import Job, JobKind, JobStatus
from iotflow.http.schemas import Model, Time


class JobOut(Model):
    id: int
    kind: JobKind
    status: JobStatus
    counts: Annotated[
        dict[str, int | None],
        Field(description="What was removed so far; null where a store cannot know how many"),
    ]
    created_at: Time
    finished_at: Time | None

    @classmethod
    def of(cls, job: Job) -> "JobOut":
        return cls(
            id=job.id,
            kind=job.kind,
            status=job.status,
            counts=job.counts,
            created_at=job.created_at,
            finished_at=job.finished_at,
        )


class BegunJobOut(Model):
    id: int
    status: JobStatus


class DeletionOut(Model):
    """What was deleted is gone; what is stored of it is removed in the background."""

    job: Annotated[BegunJobOut, Field(description="Follow it with GET /api/v1/jobs/{id}")]

    @classmethod
    def of(cls, job: Job) -> "DeletionOut":
        return cls(job=BegunJobOut(id=job.id, status=job.status))
