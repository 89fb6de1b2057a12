"""/users: accounts as they and administrators see and change them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from iotflow.accounts import examples
from iotflow.accounts.schemas import UserListQuery, UserOut, UsersOut, UserUpdate
from iotflow.http.authentication import CurrentUser
from iotflow.http.paths import API
from iotflow.http.responses import problems
from iotflow.http.runtime import RuntimeDep
from iotflow.jobs import examples as job_examples
from iotflow.jobs.schemas import DeletionOut
from iotflow.stores.registry.protocol import UserQuery

router = APIRouter(prefix=f"{API}/users", tags=["accounts"])

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]


@router.get("/me", summary="Who am I?", responses=examples.USER | problems(401, 429, 503))
async def me(caller: CurrentUser) -> UserOut:
    """The account that is signed in."""
    return UserOut.of(caller.user)


@router.get(
    "", summary="List all users", responses=examples.USERS | problems(401, 403, 422, 429, 503)
)
async def list_users(
    query: Annotated[UserListQuery, Query()], caller: CurrentUser, runtime: RuntimeDep
) -> UsersOut:
    """All users, in the order of their registration. For administrators.

    `q` looks in names and addresses.
    """
    filters = ["users", query.q, query.role, query.is_active]
    after_id = runtime.cursors.decode(filters, query.cursor, int) if query.cursor else 0
    users, more = await runtime.users.page(
        UserQuery(query.limit, query.q, query.role, query.is_active, after_id)
    )
    cursor = runtime.cursors.encode(filters, users[-1].id) if more else None
    return UsersOut(items=[UserOut.of(user) for user in users], next_cursor=cursor)


@router.get(
    "/{user_id}", summary="Get a user", responses=examples.USER | problems(401, 404, 422, 429, 503)
)
async def get_user(user_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> UserOut:
    """A user: oneself or, for an administrator, anyone."""
    return UserOut.of(await runtime.users.get(user_id))


@router.put(
    "/{user_id}",
    summary="Change a user",
    responses=examples.USER | problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
    openapi_extra=examples.UPDATE,
)
async def update_user(
    user_id: Id, body: UserUpdate, caller: CurrentUser, runtime: RuntimeDep
) -> UserOut:
    """Set username or e-mail address, and as an administrator the role; what is left out stays."""
    changes = body.model_dump(exclude_unset=True)
    return UserOut.of(await runtime.users.update(caller, user_id, changes))


@router.patch(
    "/{user_id}/deactivate",
    summary="Switch an account off",
    responses=examples.INACTIVE | problems(401, 403, 404, 409, 422, 429, 503),
)
async def deactivate_user(user_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> UserOut:
    """Switch an account off: its sessions and tokens end, its devices get 403 `device_inactive`.

    It holds on every replica within a second. For administrators, and not for one's own account.
    """
    return UserOut.of(await runtime.users.set_active(caller, user_id, False))


@router.patch(
    "/{user_id}/activate",
    summary="Switch an account on",
    responses=examples.USER | problems(401, 403, 404, 422, 429, 503),
)
async def activate_user(user_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> UserOut:
    """Switch an account on again: its user can sign in, its devices are accepted.

    Tokens that ended when it was switched off stay ended.
    """
    return UserOut.of(await runtime.users.set_active(caller, user_id, True))


@router.delete(
    "/{user_id}",
    summary="Delete a user",
    status_code=202,
    responses=job_examples.DELETING | problems(401, 403, 404, 409, 422, 429, 503),
)
async def delete_user(user_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> DeletionOut:
    """Delete a user with all devices. They are gone at once; the rest follows in the background."""
    runtime.users.check_deletable(caller, user_id)
    job = await runtime.jobs.delete_user(caller, user_id)
    runtime.bearers.forget_user(user_id)
    return DeletionOut.of(job)
