"""Jobs: work that goes on in the background until it is done, whatever happens meanwhile."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class JobKind(StrEnum):
    DEVICE_DELETION = "device_deletion"
    USER_DELETION = "user_deletion"


class JobStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Job:
    """`subject_id` is what is deleted, `requested_by` the user who asked for it.

    `counts` is what was removed so far; None is a number that a store cannot know. `stage` and
    `after_device_id` say how far it is, `due_at` when it goes on: never, where it is None.
    """

    id: int
    kind: JobKind
    status: JobStatus
    requested_by: int
    subject_id: int
    counts: dict[str, int | None]
    stage: int
    after_device_id: int
    attempts: int
    due_at: datetime | None
    created_at: datetime
    finished_at: datetime | None = None
