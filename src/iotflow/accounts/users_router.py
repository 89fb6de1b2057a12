"""/users: accounts as they and administrators see and change them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from iotflow.accounts.schemas import UserListQuery, UserOut, UsersOut, UserUpdate
from iotflow.http.authentication import CurrentUser
from iotflow.http.paths import API
from iotflow.http.responses import problems
from iotflow.http.runtime import RuntimeDep
from iotflow.jobs.schemas import DeletionOut
from iotflow.stores.registry.protocol import UserQuery

router = APIRouter(prefix=f"{API}/users", tags=["accounts"])

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]


@router.get("/me", responses=problems(401, 429, 503))
async def me(caller: CurrentUser) -> UserOut:
    """The account that is signed in."""
    return UserOut.of(caller.user)


@router.get("", responses=problems(401, 403, 422, 429, 503))
async def list_users(
    query: Annotated[UserListQuery, Query()], caller: CurrentUser, runtime: RuntimeDep
) -> UsersOut:
    """All users, in the order of their registration. For administrators."""
    filters = ["users", query.q, query.role, query.is_active]
    after_id = runtime.cursors.decode(filters, query.cursor, int) if query.cursor else 0
    users, more = await runtime.users.page(
        UserQuery(query.limit, query.q, query.role, query.is_active, after_id)
    )
    cursor = runtime.cursors.encode(filters, users[-1].id) if more else None
    return UsersOut(items=[UserOut.of(user) for user in users], next_cursor=cursor)


@router.get("/{user_id}", responses=problems(401, 404, 422, 429, 503))
async def get_user(user_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> UserOut:
    """A user: oneself or, for an administrator, anyone."""
    return UserOut.of(await runtime.users.get(user_id))


@router.put("/{user_id}", responses=problems(400, 401, 403, 404, 409, 415, 422, 429, 503))
async def update_user(
    user_id: Id, body: UserUpdate, caller: CurrentUser, runtime: RuntimeDep
) -> UserOut:
    """Set username or e-mail address, and as an administrator the role; what is left out stays."""
    changes = body.model_dump(exclude_unset=True)
    return UserOut.of(await runtime.users.update(caller, user_id, changes))


@router.patch("/{user_id}/deactivate", responses=problems(401, 403, 404, 409, 422, 429, 503))
async def deactivate_user(user_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> UserOut:
    """Switch an account off: its sessions and tokens end, and its devices are refused."""
    return UserOut.of(await runtime.users.set_active(caller, user_id, False))


@router.patch("/{user_id}/activate", responses=problems(401, 403, 404, 422, 429, 503))
async def activate_user(user_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> UserOut:
    """Switch an account on again: its user can sign in, its devices are accepted."""
    return UserOut.of(await runtime.users.set_active(caller, user_id, True))


@router.delete("/{user_id}", status_code=202, responses=problems(401, 403, 404, 409, 422, 429, 503))
async def delete_user(user_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> DeletionOut:
    """Delete a user with all devices. They are gone at once; the rest follows in the background."""
    runtime.users.check_deletable(caller, user_id)
    job = await runtime.jobs.delete_user(caller, user_id)
    runtime.bearers.forget_user(user_id)
    return DeletionOut.of(job)
