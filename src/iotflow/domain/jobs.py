"""Jobs: work that goes on in the background until it is done, whatever happens meanwhile."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class JobKind(StrEnum):
    DEVICE_DELETION = "device_deletion"
    USER_DELETION = "user_deletion"
    EVENT_REPLAY = "event_replay"
    VERIFICATION = "verification"
    CACHE_WARMING = "cache_warming"


DELETIONS = frozenset({JobKind.DEVICE_DELETION, JobKind.USER_DELETION})
NOBODY = 0
"""Who has asked for a job that the service began by itself."""


class JobStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Job:
    """`subject_id` is what it is about (0: no one thing), `requested_by` the user who asked for it.

    `counts` is what was done so far; None is a number that a store cannot know. `stage`,
    `after_device_id` and `state` say how far it is, `due_at` when it goes on: never, where it is
    None. `parameters` is what was asked for, `report` what was found; all must be JSON-encodable.
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
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    report: dict[str, Any] = field(default_factory=dict[str, Any])
