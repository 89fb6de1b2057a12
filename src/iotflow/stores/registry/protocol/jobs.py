"""Deletions, and other work in the background that outlives its process."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from iotflow.domain.jobs import Job, JobKind


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that is no deletion. `requested_by` may be NOBODY; it is due at once if not set."""

    kind: JobKind
    requested_by: int
    subject_id: int
    parameters: Mapping[str, Any]
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Jobs newest first, below the id `before_id`. None means any."""

    limit: int
    requested_by: int | None = None
    kind: JobKind | None = None
    before_id: int | None = None


class Jobs(Protocol):
    """What is to be done in the background, and how far it is."""

    async def delete_device(
        self, device_id: int, requested_by: int, unchanged_since: datetime | None, now: datetime
    ) -> Job | None:
        """Delete a device with keys, config and memberships, and make the job of the rest.

        One transaction: what is deleted has a job, and whatever has a job is deleted. None
        where there is no such device.

        Raises:
            StaleVersionError: as `update_device`.
        """
        ...

    async def delete_user(self, user_id: int, requested_by: int, now: datetime) -> Job | None:
        """As `delete_device`, for a user with all devices, groups and sessions."""
        ...

    async def job(self, job_id: int) -> Job | None: ...

    async def jobs(self, query: JobQuery) -> tuple[list[Job], bool]:
        """One page, and whether there is more."""
        ...

    async def add_job(self, new: NewJob, now: datetime) -> Job:
        """Make a job."""
        ...

    async def amend_job(
        self, job_id: int, parameters: Mapping[str, Any], due_at: datetime, now: datetime
    ) -> bool:
        """Ask for something else of a job that was not begun yet (stage 0, and nobody's).

        False, and nothing changed, where it was.
        """
        ...

    async def claim_job(
        self,
        owner: str,
        now: datetime,
        lease_until: datetime,
        kinds: Collection[JobKind] | None = None,
    ) -> Job | None:
        """The job that has been due for longest and that nobody else works at, as running.

        Of these kinds alone, where any are named.
        """
        ...

    async def save_job(self, job: Job, owner: str, lease_until: datetime | None) -> bool:
        """Keep how far a job is, and renew its lease or (None) give it up.

        False, and nothing kept, where someone else has taken the job over.
        """
        ...

    async def job_devices(self, job_id: int, after_id: int, limit: int) -> list[int]:
        """The deleted devices of a job whose ids lie above `after_id`, in order."""
        ...

    async def job_keys(self, job_id: int, after_digest: str, limit: int) -> list[str]:
        """Digests of the deleted keys of a job, in order."""
        ...

    async def being_deleted(self, device_ids: Collection[int]) -> set[int]:
        """Those of the devices whose deletion is not over yet."""
        ...

    async def forget_jobs(self, finished_before: datetime) -> bool:
        """Drop old jobs that are never due again, with their lists: a bounded number.

        Whether there may be more. The lists are kept as long as their jobs: a backup begins
        deletions again that had ended shortly before.
        """
        ...
