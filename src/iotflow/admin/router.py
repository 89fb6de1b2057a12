"""/admin: what only administrators may do. Their rule says so (http/authorisation.py)."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from iotflow.admin import examples
from iotflow.admin.schemas import (
    AllDevicesQuery,
    DeviceStatusesOut,
    InvitationOut,
    NewInvitation,
    StatsOut,
    StatusChange,
)
from iotflow.devices import examples as device_examples
from iotflow.devices.schemas import DeviceOut, DevicesOut, DeviceStatusOut, DeviceUpdate
from iotflow.devices.service import DeviceView
from iotflow.http.authentication import CurrentUser
from iotflow.http.paths import API
from iotflow.http.responses import problems
from iotflow.http.runtime import RuntimeDep
from iotflow.jobs import examples as job_examples
from iotflow.jobs.schemas import DeletionOut
from iotflow.runtime import Runtime
from iotflow.stores.registry.protocol import DeviceQuery

router = APIRouter(prefix=f"{API}/admin", tags=["admin"])

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]


@router.get(
    "/devices",
    summary="List all users' devices",
    responses=device_examples.DEVICES | problems(401, 403, 422, 429, 503),
)
async def admin_list_devices(
    query: Annotated[AllDevicesQuery, Query()], _: CurrentUser, runtime: RuntimeDep
) -> DevicesOut:
    """The devices of all users, in the order of their registration."""
    views, cursor = await _page(query, runtime)
    return DevicesOut(items=[DeviceOut.of(view) for view in views], next_cursor=cursor)


@router.get(
    "/devices/statuses",
    summary="List all devices' statuses",
    responses=device_examples.STATUSES | problems(401, 403, 422, 429, 503),
)
async def admin_device_statuses(
    query: Annotated[AllDevicesQuery, Query()], _: CurrentUser, runtime: RuntimeDep
) -> DeviceStatusesOut:
    """Whether devices are heard of, and when they last were; all users' devices."""
    views, cursor = await _page(query, runtime)
    return DeviceStatusesOut(items=[DeviceStatusOut.of(view) for view in views], next_cursor=cursor)


@router.get(
    "/devices/{device_id}",
    summary="Get any device",
    responses=device_examples.DEVICE | problems(401, 403, 404, 422, 429, 503),
)
async def admin_get_device(device_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> DeviceOut:
    """Any user's device."""
    return DeviceOut.of(await runtime.devices.get(caller, device_id))


@router.put(
    "/devices/{device_id}",
    summary="Change any device",
    responses=device_examples.DEVICE | problems(400, 401, 403, 404, 413, 415, 422, 429, 503),
    openapi_extra=device_examples.UPDATE,
)
async def admin_update_device(
    device_id: Id, body: DeviceUpdate, caller: CurrentUser, runtime: RuntimeDep
) -> DeviceOut:
    """Change any user's device: the fields that are sent, and no others."""
    changes = body.model_dump(exclude_unset=True)
    return DeviceOut.of(await runtime.devices.update(caller, device_id, changes))


@router.delete(
    "/devices/{device_id}",
    summary="Delete any device",
    status_code=202,
    responses=job_examples.DELETING | problems(401, 403, 404, 422, 429, 503),
)
async def admin_delete_device(
    device_id: Id, caller: CurrentUser, runtime: RuntimeDep
) -> DeletionOut:
    """Delete any user's device: gone at once, what is stored of it in the background."""
    device = await runtime.devices.of(caller, device_id)
    return DeletionOut.of(await runtime.jobs.delete_device(caller, device))


@router.put(
    "/devices/{device_id}/status",
    summary="Set any device's status",
    responses=device_examples.STATUS | problems(400, 401, 403, 404, 413, 415, 422, 429, 503),
    openapi_extra=examples.STATUS,
)
async def admin_set_device_status(
    device_id: Id, body: StatusChange, caller: CurrentUser, runtime: RuntimeDep
) -> DeviceStatusOut:
    """Switch any user's device on or off, or into maintenance.

    It holds everywhere within a second: an inactive device gets 403 `device_inactive`, one in
    maintenance is accepted.
    """
    view = await runtime.devices.update(caller, device_id, {"status": body.status})
    return DeviceStatusOut.of(view)


@router.get(
    "/stats",
    summary="Count users, devices and groups",
    responses=examples.STATS | problems(401, 403, 429, 503),
)
async def admin_stats(_: CurrentUser, runtime: RuntimeDep) -> StatsOut:
    """How many users, devices and groups there are, and for how long this process has run."""
    return StatsOut.of(await runtime.users.counts(), runtime.uptime_s())


@router.post(
    "/invitations",
    summary="Invite someone",
    status_code=201,
    responses=examples.INVITED | problems(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=examples.INVITATION,
)
async def create_invitation(
    caller: CurrentUser, runtime: RuntimeDep, body: NewInvitation | None = None
) -> InvitationOut:
    """Invite one person to register. The answer shows the invitation's code, this once.

    The code works for one registration, where the operator has set registration to `invitation`.
    """
    expires_in = body.expires_in if body else None
    lifetime_s = expires_in or runtime.settings.accounts.invitation_s
    made, code = await runtime.users.invite(caller.user.id, lifetime_s)
    return InvitationOut(
        id=made.id, invitation=code, created_at=made.created_at, expires_at=made.expires_at
    )


async def _page(query: AllDevicesQuery, runtime: Runtime) -> tuple[list[DeviceView], str | None]:
    wanted = query.model_dump(mode="json", exclude={"limit", "cursor"})
    filters = ["admin devices", wanted]
    after_id = runtime.cursors.decode(filters, query.cursor, int) if query.cursor else 0
    labels = (label.partition(":") for label in query.label)
    views, more = await runtime.devices.page(
        DeviceQuery(
            limit=query.limit,
            user_id=query.user_id,
            status=query.status,
            device_type=query.device_type,
            labels=tuple((key, value) for key, _, value in labels),
            text=query.q,
            after_id=after_id,
            group_id=query.group_id,
        )
    )
    return views, runtime.cursors.encode(filters, views[-1].device.id) if more else None
