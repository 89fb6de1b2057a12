"""Begins jobs that look after the stores, for administrators."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec

from iotflow.domain.callers import UserCaller
from iotflow.domain.jobs import Job, JobKind
from iotflow.maintenance.parameters import as_json
from iotflow.stores.registry.protocol import NewJob, Registry


class Maintenance:
    """`wake` tells the worker of a new job.

    What was submitted within the last `settle_s` may still be on its way to the event log: a job
    that looks at it waits so long.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        settle_s: float,
        wake: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._settle = timedelta(seconds=settle_s)
        self._wake = wake
        self._now_s = now

    async def begin(
        self,
        caller: UserCaller,
        kind: JobKind,
        parameters: msgspec.Struct,
        *,
        device_id: int | None = None,
        until_ms: int | None = None,
    ) -> Job:
        """A job that looks at what was submitted before `until_ms`, or at nothing of the kind."""
        now = datetime.fromtimestamp(self._now_s(), UTC)
        due_at = now
        if until_ms is not None:
            settled = datetime.fromtimestamp(until_ms / 1000, UTC) + self._settle
            due_at = min(max(settled, now), now + self._settle)
        new = NewJob(kind, caller.user.id, device_id or 0, as_json(parameters), due_at)
        job = await self._registry.add_job(new, now)
        self._wake()
        return job
