"""Deletions: at once for every caller, and complete some seconds later."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

from iotflow.devices.authentication import KeyAuthenticator
from iotflow.domain.callers import UserCaller
from iotflow.domain.devices import Device
from iotflow.domain.events import Event
from iotflow.domain.jobs import Job
from iotflow.errors import NotFoundError
from iotflow.stores.registry.protocol import JobQuery, Registry

_DIGESTS_AT_ONCE = 1_000


async def revoke_keys(registry: Registry, keys: KeyAuthenticator, job_id: int) -> None:
    """Refuse the deleted keys of a job on every replica. Done again it changes nothing."""
    after, digests = "", [""]
    while digests:
        digests = await registry.job_keys(job_id, after, _DIGESTS_AT_ONCE)
        if digests:
            await keys.revoke(digests)
            after = digests[-1]


class Jobs:
    """Begins deletions and tells how far they are.

    `wake` tells the worker of a new one, `gone` whoever remembers whose device is whose.
    """

    def __init__(
        self,
        registry: Registry,
        keys: KeyAuthenticator,
        *,
        wake: Callable[[], None],
        gone: Callable[[], None],
        log_event: Callable[[Event], None],
        now: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._keys = keys
        self._wake = wake
        self._gone = gone
        self._log_event = log_event
        self._now_s = now

    async def get(self, caller: UserCaller, job_id: int) -> Job:
        """A job that the caller has begun; an admin sees all.

        Raises:
            NotFoundError: there is none, or it is someone else's.
        """
        job = await self._registry.job(job_id)
        if job is None or not caller.may_act_for(job.requested_by):
            raise NotFoundError("There is no such job.")
        return job

    async def page(self, query: JobQuery) -> tuple[list[Job], bool]:
        """One page, and whether there is more. Whose jobs may be seen, the query says."""
        return await self._registry.jobs(query)

    async def delete_device(
        self, caller: UserCaller, device: Device, unchanged_since: datetime | None = None
    ) -> Job:
        """Delete a device that the caller may delete; the answer is the job of the rest.

        Raises:
            NotFoundError: it is gone already.
            StaleVersionError: its `updated_at` is not `unchanged_since`, where that is given.
        """
        # A caller that gives up now must not leave the keys alive in some cache.
        return await asyncio.shield(self._delete_device(caller, device, unchanged_since))

    async def _delete_device(
        self, caller: UserCaller, device: Device, unchanged_since: datetime | None
    ) -> Job:
        by = caller.user.id
        job = await self._registry.delete_device(device.id, by, unchanged_since, self._now())
        if job is None:
            raise NotFoundError("There is no such device.")
        # Not as an event of the device, whose events go with it.
        details = {"device_id": str(device.id), "name": device.name, "by": str(by)}
        await self._begun(job, "device.deleted", device.user_id, details)
        return job

    async def delete_user(self, caller: UserCaller, user_id: int) -> Job:
        """Delete a user with all devices, for a caller who may; as `delete_device`.

        Raises:
            NotFoundError: there is no such user.
        """
        return await asyncio.shield(self._delete_user(caller.user.id, user_id))

    async def _delete_user(self, by: int, user_id: int) -> Job:
        job = await self._registry.delete_user(user_id, by, self._now())
        if job is None:
            raise NotFoundError("There is no such user.")
        await self._begun(job, "user.deleted", by, {"user_id": str(user_id)})
        return job

    async def _begun(
        self, job: Job, event_type: str, user_id: int, details: dict[str, str]
    ) -> None:
        self._gone()
        self._wake()
        at_ms = int(self._now_s() * 1000)
        self._log_event(Event(uuid4().hex, event_type, at_ms, user_id, None, details))
        await revoke_keys(self._registry, self._keys, job.id)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s(), UTC)
