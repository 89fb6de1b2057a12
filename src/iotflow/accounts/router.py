"""/auth: registering, signing in and out, passwords and personal tokens."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from iotflow.accounts.schemas import (
    CreatedTokenOut,
    Login,
    NewToken,
    PasswordChange,
    RefreshToken,
    Registration,
    Session,
    TokenListQuery,
    TokenOut,
    TokensOut,
    UserOut,
)
from iotflow.accounts.service import SignedIn
from iotflow.http.authentication import CurrentUser
from iotflow.http.paths import API
from iotflow.http.requests import client_address
from iotflow.http.responses import problems
from iotflow.http.runtime import RuntimeDep

router = APIRouter(prefix=API, tags=["accounts"])

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]


@router.post(
    "/auth/register", status_code=201, responses=problems(400, 403, 409, 415, 422, 429, 503)
)
async def register(body: Registration, request: Request, runtime: RuntimeDep) -> UserOut:
    """Create an account, where the operator lets anyone or the invited. Sign in afterwards."""
    address = client_address(request.scope)
    user = await runtime.accounts.register(
        body.username, body.email, body.password, address, body.invitation
    )
    return UserOut.of(user)


@router.post("/auth/login", responses=problems(400, 401, 415, 422, 429, 503))
async def login(body: Login, request: Request, runtime: RuntimeDep) -> Session:
    """Sign in with a username or an e-mail address; gives an access and a refresh token."""
    address = client_address(request.scope)
    return _session(await runtime.accounts.login(body.username, body.password, address))


@router.post("/auth/refresh", responses=problems(400, 401, 415, 422, 503))
async def refresh(body: RefreshToken, runtime: RuntimeDep) -> Session:
    """Exchange a refresh token for a new pair. Each works once; a reuse ends the session."""
    return _session(await runtime.accounts.refresh(body.refresh_token))


@router.post("/auth/logout", status_code=204, responses=problems(400, 415, 422, 503))
async def logout(body: RefreshToken, runtime: RuntimeDep) -> Response:
    """End the session of a refresh token."""
    await runtime.accounts.logout(body.refresh_token)
    return Response(status_code=204)


@router.post(
    "/auth/password", status_code=204, responses=problems(400, 401, 403, 415, 422, 429, 503)
)
async def change_password(
    body: PasswordChange, request: Request, caller: CurrentUser, runtime: RuntimeDep
) -> Response:
    """Change the password. This session goes on; all others and all personal tokens end."""
    address = client_address(request.scope)
    await runtime.accounts.change_password(
        caller, body.current_password, body.new_password, address
    )
    return Response(status_code=204)


@router.get("/auth/tokens", responses=problems(401, 422, 429, 503))
async def list_tokens(
    query: Annotated[TokenListQuery, Query()], caller: CurrentUser, runtime: RuntimeDep
) -> TokensOut:
    """The personal tokens of the account that is signed in, oldest first."""
    filters = ["tokens", caller.user.id]
    after_id = runtime.cursors.decode(filters, query.cursor, int) if query.cursor else 0
    tokens, more = await runtime.tokens.page(caller, after_id, query.limit)
    cursor = runtime.cursors.encode(filters, tokens[-1].id) if more else None
    return TokensOut(items=[TokenOut.of(token) for token in tokens], next_cursor=cursor)


@router.post(
    "/auth/tokens", status_code=201, responses=problems(400, 401, 403, 409, 415, 422, 429, 503)
)
async def create_token(body: NewToken, caller: CurrentUser, runtime: RuntimeDep) -> CreatedTokenOut:
    """Make a personal token. The answer shows it, this once.

    One that is made with another token expires with that one at the latest.
    """
    created = await runtime.tokens.create(
        caller, body.name, frozenset(body.scopes), body.expires_in
    )
    return CreatedTokenOut(**TokenOut.of(created.token).__dict__, token=created.secret)


@router.delete(
    "/auth/tokens/{token_id}", status_code=204, responses=problems(401, 403, 404, 422, 429, 503)
)
async def delete_token(token_id: Id, caller: CurrentUser, runtime: RuntimeDep) -> Response:
    """End a personal token: it is refused everywhere within a second."""
    await runtime.tokens.delete(caller, token_id)
    return Response(status_code=204)


def _session(signed_in: SignedIn) -> Session:
    return Session(
        access_token=signed_in.access_token,
        refresh_token=signed_in.refresh_token,
        expires_in=signed_in.expires_in_s,
        user=UserOut.of(signed_in.user),
    )
