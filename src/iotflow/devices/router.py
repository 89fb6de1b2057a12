"""/devices: devices over HTTP, for their owners and for themselves."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from iotflow.devices import etags, examples
from iotflow.devices.bulk import bulk_result, judge_registration
from iotflow.devices.etags import NOT_MODIFIED, IfMatch, IfNoneMatch
from iotflow.devices.schemas import (
    BulkOut,
    BulkRegistration,
    CredentialsOut,
    DeviceListQuery,
    DeviceOut,
    DeviceRegistration,
    DevicesOut,
    DeviceStatusOut,
    DeviceUpdate,
    HeartbeatOut,
    KeyRotation,
    KeysOut,
    ListedKeyOut,
    NewKeyOut,
    OwnStatusOut,
    RegisteredDeviceOut,
)
from iotflow.domain.callers import UserCaller
from iotflow.errors import FieldError
from iotflow.groups import examples as group_examples
from iotflow.groups.schemas import GroupOut, GroupsOut, PageQuery
from iotflow.http.authentication import CurrentDevice, CurrentUser
from iotflow.http.paths import API
from iotflow.http.responses import problems
from iotflow.http.runtime import RuntimeDep
from iotflow.jobs import examples as job_examples
from iotflow.jobs.schemas import DeletionOut
from iotflow.runtime import Runtime
from iotflow.stores.registry.protocol import DeviceQuery, GroupQuery, NewDevice

router = APIRouter(prefix=f"{API}/devices", tags=["devices"])

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]


@router.post(
    "/register",
    summary="Register a device",
    status_code=201,
    responses=examples.REGISTERED | problems(400, 401, 403, 409, 413, 415, 422, 429, 503),
    openapi_extra=examples.REGISTRATION,
)
async def register_device(
    body: DeviceRegistration, caller: CurrentUser, runtime: RuntimeDep
) -> RegisteredDeviceOut:
    """Register a device. The answer shows its API key, this once: store it on the device.

    Only a digest of the key is kept here. A lost key cannot be shown again; give the device a
    new one with `POST /devices/{device_id}/keys`.
    """
    new = NewDevice(user_id=caller.user.id, **body.model_dump())
    return RegisteredDeviceOut.of(await runtime.devices.register(new))


@router.post(
    "/bulk",
    summary="Register many devices",
    status_code=201,
    response_model_exclude_unset=True,
    responses={
        **examples.BULK_REGISTERED,
        207: {
            **examples.BULK_PARTLY[207],
            "model": BulkOut,
            "description": "Some are registered; the others say why not",
        },
        **problems(400, 401, 409, 413, 415, 422, 429, 503),
    },
    openapi_extra=examples.BULK,
)
async def register_devices(
    body: BulkRegistration, caller: CurrentUser, runtime: RuntimeDep, response: Response
) -> BulkOut:
    """Register up to 1,000 devices. Each is judged by itself: a bad one costs no other."""
    judged = [judge_registration(raw, caller.user.id) for raw in body.devices]
    registered = iter(
        await runtime.devices.register_many([new for new in judged if isinstance(new, NewDevice)])
    )
    if not all(isinstance(each, NewDevice) for each in judged):
        response.status_code = 207
    return BulkOut(
        results=[
            bulk_result(index, each if isinstance(each, FieldError) else next(registered))
            for index, each in enumerate(judged)
        ]
    )


@router.get(
    "", summary="List devices", responses=examples.DEVICES | problems(401, 404, 422, 429, 503)
)
async def list_devices(
    query: Annotated[DeviceListQuery, Query()], caller: CurrentUser, runtime: RuntimeDep
) -> DevicesOut:
    """The devices of the account that is signed in, in the order of their registration.

    All filters must match. `label` may be repeated; `q` looks in name, description and location.
    """
    return await _list(caller, caller.user.id, query, runtime)


@router.get(
    "/user/{user_id}",
    summary="List a user's devices",
    responses=examples.DEVICES | problems(401, 404, 422, 429, 503),
)
async def list_user_devices(
    user_id: Id,
    query: Annotated[DeviceListQuery, Query()],
    caller: CurrentUser,
    runtime: RuntimeDep,
) -> DevicesOut:
    """The devices of a user: oneself or, for an admin, anyone."""
    return await _list(caller, user_id, query, runtime)


@router.get(
    "/status",
    summary="A device's own status",
    responses=examples.OWN_STATUS | problems(401, 403, 429, 503),
)
async def own_status(caller: CurrentDevice, runtime: RuntimeDep) -> OwnStatusOut:
    """What a device may know of itself: its name, its status, when it was last heard of."""
    view = await runtime.devices.get(caller, caller.key.device_id)
    status = DeviceStatusOut.of(view)
    return OwnStatusOut(name=view.device.name, **status.__dict__)


@router.get(
    "/credentials",
    summary="Which key is this?",
    responses=examples.CREDENTIALS | problems(401, 403, 429, 503),
)
async def own_credentials(caller: CurrentDevice, runtime: RuntimeDep) -> CredentialsOut:
    """Which device a key opens, and what is known of the key; never the key itself."""
    return CredentialsOut.of(caller.key, runtime.now_ms())


@router.post(
    "/heartbeat",
    summary="Send a sign of life",
    responses=examples.HEARTBEAT | problems(401, 403, 429, 503),
)
async def heartbeat(caller: CurrentDevice, runtime: RuntimeDep) -> HeartbeatOut:
    """A sign of life from a device that has nothing to measure. A submission is one as well."""
    timestamp = await runtime.devices.heartbeat(caller)
    return HeartbeatOut(device_id=caller.key.device_id, timestamp=timestamp)


@router.get(
    "/{device_id}",
    summary="Get a device",
    response_model=DeviceOut,
    responses={**examples.DEVICE_WITH_ETAG, **NOT_MODIFIED, **problems(401, 404, 422, 429, 503)},
)
async def get_device(
    device_id: Id,
    caller: CurrentUser,
    runtime: RuntimeDep,
    response: Response,
    if_none_match: IfNoneMatch = None,
) -> Response | DeviceOut:
    """A device with all that is known of it. Its key is never shown, only the key's prefix.

    The ETag says whether anything was changed, not whether the device was heard of. Send it as
    `If-Match` with a change that must not undo someone else's.
    """
    view = await runtime.devices.get(caller, device_id)
    etag = etags.device_etag(view.device)
    if etags.is_known(if_none_match, etag):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return DeviceOut.of(view)


@router.patch(
    "/{device_id}",
    summary="Change a device",
    responses=examples.DEVICE_WITH_ETAG | problems(400, 401, 404, 412, 413, 415, 422, 429, 503),
    openapi_extra=examples.UPDATE,
)
async def update_device(
    device_id: Id,
    body: DeviceUpdate,
    caller: CurrentUser,
    runtime: RuntimeDep,
    response: Response,
    if_match: IfMatch = None,
) -> DeviceOut:
    """Change a device: the fields that are sent, and no others. `labels` are replaced as a whole.

    With `If-Match` the change is made to the version that you have read, or not at all: 412.
    A device that is set `inactive` is refused everywhere within a second.
    """
    device = await runtime.devices.of(caller, device_id)
    etags.require_match(if_match, etags.device_etag(device))
    view = await runtime.devices.update(
        caller,
        device_id,
        body.model_dump(exclude_unset=True),
        device.updated_at if if_match else None,
    )
    response.headers["ETag"] = etags.device_etag(view.device)
    return DeviceOut.of(view)


@router.delete(
    "/{device_id}",
    summary="Delete a device",
    status_code=202,
    responses=job_examples.DELETING | problems(401, 404, 412, 422, 429, 503),
)
async def delete_device(
    device_id: Id, caller: CurrentUser, runtime: RuntimeDep, if_match: IfMatch = None
) -> DeletionOut:
    """Delete a device with its keys, telemetry, events, config and memberships, for good.

    It is gone for every caller at once; the job removes what is stored of it.
    """
    device = await runtime.devices.of(caller, device_id)
    etags.require_match(if_match, etags.device_etag(device))
    unchanged_since = device.updated_at if if_match else None
    return DeletionOut.of(await runtime.jobs.delete_device(caller, device, unchanged_since))


@router.get(
    "/{device_id}/groups",
    summary="List a device's groups",
    responses=group_examples.GROUPS | problems(401, 404, 422, 429, 503),
)
async def list_device_groups(
    device_id: Id,
    query: Annotated[PageQuery, Query()],
    caller: CurrentUser,
    runtime: RuntimeDep,
) -> GroupsOut:
    """The groups that a device is in."""
    await runtime.devices.of(caller, device_id)
    filters = ["device groups", device_id]
    after_id = runtime.cursors.decode(filters, query.cursor, int) if query.cursor else 0
    groups, more = await runtime.groups.page(
        GroupQuery(limit=query.limit, device_id=device_id, after_id=after_id)
    )
    cursor = runtime.cursors.encode(filters, groups[-1].id) if more else None
    return GroupsOut(items=[GroupOut.of(group) for group in groups], next_cursor=cursor)


@router.get(
    "/{device_id}/status",
    summary="Get a device's status",
    responses=examples.STATUS | problems(401, 404, 422, 429, 503),
)
async def get_device_status(
    device_id: Id, caller: CurrentUser, runtime: RuntimeDep
) -> DeviceStatusOut:
    """Whether a device is heard of, and when it last was.

    `is_online` turns false when nothing has come for five minutes (a setting).
    """
    return DeviceStatusOut.of(await runtime.devices.get(caller, device_id))


@router.get(
    "/{device_id}/keys",
    summary="List a device's keys",
    responses=examples.KEYS | problems(401, 404, 422, 429, 503),
)
async def list_device_keys(device_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> KeysOut:
    """The live keys of a device, oldest first: two at most."""
    keys = await runtime.devices.keys(caller, device_id)
    return KeysOut(items=[ListedKeyOut.of(key) for key in keys])


@router.post(
    "/{device_id}/keys",
    summary="Give a device a new key",
    status_code=201,
    responses=examples.NEW_KEY | problems(400, 401, 404, 409, 413, 415, 422, 429, 503),
    openapi_extra=examples.ROTATION,
)
async def rotate_device_key(
    device_id: Id, caller: CurrentUser, runtime: RuntimeDep, body: KeyRotation | None = None
) -> NewKeyOut:
    """Give a device a new key; it is shown this once.

    The old key goes on for `overlap` seconds, a day if not said, so that the device can be
    given the new one meanwhile. A device has two live keys at most; a third is 409.
    """
    rotation = body or KeyRotation()
    created = await runtime.devices.rotate_key(
        caller, device_id, rotation.expires_in, rotation.overlap
    )
    return NewKeyOut(key=ListedKeyOut.of(created.key), api_key=created.api_key)


@router.delete(
    "/{device_id}/keys/{key_id}",
    summary="Revoke a key",
    status_code=204,
    responses=problems(401, 404, 422, 429, 503),
)
async def revoke_device_key(
    device_id: Id, key_id: Id, caller: CurrentUser, runtime: RuntimeDep
) -> Response:
    """Revoke a key: it is refused everywhere within a second."""
    await runtime.devices.revoke_key(caller, device_id, key_id)
    return Response(status_code=204)


async def _list(
    caller: UserCaller, user_id: int, query: DeviceListQuery, runtime: Runtime
) -> DevicesOut:
    if query.group_id is not None:
        await runtime.groups.of(caller, query.group_id)
    filters = [user_id, query.group_id, query.status, query.device_type, query.label, query.q]
    after_id = runtime.cursors.decode(filters, query.cursor, int) if query.cursor else 0
    labels = (label.partition(":") for label in query.label)
    views, more = await runtime.devices.page(
        DeviceQuery(
            limit=query.limit,
            user_id=user_id,
            status=query.status,
            device_type=query.device_type,
            labels=tuple((key, value) for key, _, value in labels),
            text=query.q,
            after_id=after_id,
            group_id=query.group_id,
        )
    )
    cursor = runtime.cursors.encode(filters, views[-1].device.id) if more else None
    return DevicesOut(items=[DeviceOut.of(view) for view in views], next_cursor=cursor)
