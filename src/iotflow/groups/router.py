"""/groups over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from iotflow.devices import examples as device_examples
from iotflow.devices.schemas import DeviceOut, DevicesOut
from iotflow.domain.groups import Membership
from iotflow.errors import NotFoundError
from iotflow.groups import examples
from iotflow.groups.schemas import (
    GroupBody,
    GroupMember,
    GroupMembers,
    GroupOut,
    GroupsOut,
    MembershipOut,
    MembershipsOut,
    PageQuery,
)
from iotflow.http.authentication import CurrentUser
from iotflow.http.paths import API
from iotflow.http.responses import problems
from iotflow.http.runtime import RuntimeDep
from iotflow.stores.registry.protocol import DeviceQuery, GroupQuery, NewGroup

router = APIRouter(prefix=f"{API}/groups", tags=["groups"])

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]


@router.post(
    "",
    summary="Create a group",
    status_code=201,
    responses=examples.CREATED | problems(400, 401, 409, 413, 415, 422, 429, 503),
    openapi_extra=examples.NEW_GROUP,
)
async def create_group(body: GroupBody, caller: CurrentUser, runtime: RuntimeDep) -> GroupOut:
    """Create a group: a named collection of one's own devices, for lists and latest values."""
    new = NewGroup(caller.user.id, body.name, body.description, body.color)
    return GroupOut.of(await runtime.groups.create(new))


@router.get("", summary="List groups", responses=examples.GROUPS | problems(401, 422, 429, 503))
async def list_groups(
    query: Annotated[PageQuery, Query()], caller: CurrentUser, runtime: RuntimeDep
) -> GroupsOut:
    """The groups of the account that is signed in, in the order of their creation."""
    filters = ["groups", caller.user.id]
    after_id = runtime.cursors.decode(filters, query.cursor, int) if query.cursor else 0
    groups, more = await runtime.groups.page(
        GroupQuery(limit=query.limit, user_id=caller.user.id, after_id=after_id)
    )
    cursor = runtime.cursors.encode(filters, groups[-1].id) if more else None
    return GroupsOut(items=[GroupOut.of(group) for group in groups], next_cursor=cursor)


@router.get(
    "/{group_id}",
    summary="Get a group",
    responses=examples.GROUP | problems(401, 404, 422, 429, 503),
)
async def get_group(group_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> GroupOut:
    """A group and how many devices it has."""
    return GroupOut.of(await runtime.groups.of(caller, group_id))


@router.put(
    "/{group_id}",
    summary="Change a group",
    responses=examples.GROUP | problems(400, 401, 404, 413, 415, 422, 429, 503),
    openapi_extra=examples.REPLACED,
)
async def replace_group(
    group_id: Id, body: GroupBody, caller: CurrentUser, runtime: RuntimeDep
) -> GroupOut:
    """Replace name, description and color: what is left out is null after that."""
    replaced = await runtime.groups.replace(
        caller, group_id, body.name, body.description, body.color
    )
    return GroupOut.of(replaced)


@router.delete(
    "/{group_id}",
    summary="Delete a group",
    status_code=204,
    responses=problems(401, 404, 422, 429, 503),
)
async def delete_group(group_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> Response:
    """Delete a group. Its devices stay."""
    await runtime.groups.delete(caller, group_id)
    return Response(status_code=204)


@router.get(
    "/{group_id}/devices",
    summary="List a group's devices",
    responses=device_examples.DEVICES | problems(401, 404, 422, 429, 503),
)
async def list_group_devices(
    group_id: Id,
    query: Annotated[PageQuery, Query()],
    caller: CurrentUser,
    runtime: RuntimeDep,
) -> DevicesOut:
    """The devices of a group, in the order of their registration."""
    await runtime.groups.of(caller, group_id)
    filters: list[Any] = ["group", group_id]
    after_id = runtime.cursors.decode(filters, query.cursor, int) if query.cursor else 0
    views, more = await runtime.devices.page(
        DeviceQuery(limit=query.limit, group_id=group_id, after_id=after_id)
    )
    cursor = runtime.cursors.encode(filters, views[-1].device.id) if more else None
    return DevicesOut(items=[DeviceOut.of(view) for view in views], next_cursor=cursor)


@router.post(
    "/{group_id}/devices",
    summary="Add a device to a group",
    status_code=201,
    responses={
        **examples.ADDED,
        200: {
            **examples.ALREADY[200],
            "model": MembershipOut,
            "description": "It is in the group already",
        },
        **problems(400, 401, 404, 413, 415, 422, 429, 503),
    },
    openapi_extra=examples.MEMBER,
)
async def add_group_device(
    group_id: Id, body: GroupMember, caller: CurrentUser, runtime: RuntimeDep, response: Response
) -> MembershipOut:
    """Add a device to a group: 201, or 200 where it is in already."""
    added = await runtime.groups.add(caller, group_id, [body.device_id])
    result = added[body.device_id]
    if result is Membership.NOT_FOUND:
        raise NotFoundError("There is no such device.")
    if result is Membership.ALREADY:
        response.status_code = 200
    return MembershipOut(device_id=body.device_id, result=result)


@router.post(
    "/{group_id}/devices/bulk",
    summary="Add many devices to a group",
    responses={
        **examples.ALL_ADDED,
        207: {
            **examples.SOME_ADDED[207],
            "model": MembershipsOut,
            "description": "Some of the devices do not exist",
        },
        **problems(400, 401, 404, 413, 415, 422, 429, 503),
    },
    openapi_extra=examples.MEMBERS,
)
async def add_group_devices(
    group_id: Id, body: GroupMembers, caller: CurrentUser, runtime: RuntimeDep, response: Response
) -> MembershipsOut:
    """Add up to 1,000 devices to a group; each has its own result."""
    added = await runtime.groups.add(caller, group_id, set(body.device_ids))
    if Membership.NOT_FOUND in added.values():
        response.status_code = 207
    return MembershipsOut(
        results=[
            MembershipOut(device_id=device_id, result=added[device_id])
            for device_id in body.device_ids
        ]
    )


@router.delete(
    "/{group_id}/devices/{device_id}",
    summary="Take a device out of a group",
    status_code=204,
    responses=problems(401, 404, 422, 429, 503),
)
async def remove_group_device(
    group_id: Id, device_id: Id, caller: CurrentUser, runtime: RuntimeDep
) -> Response:
    """Take a device out of a group."""
    await runtime.groups.remove(caller, group_id, device_id)
    return Response(status_code=204)
