"""/auth: registering, signing in and out, passwords and personal tokens."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from iotflow.accounts import examples
from iotflow.accounts.grants import oauth_errors, read_grant, refuse_strange_pages
from iotflow.accounts.schemas import (
    TOKEN_REQUEST,
    CreatedTokenOut,
    Login,
    NewToken,
    PasswordChange,
    RefreshToken,
    Registration,
    Session,
    TokenListQuery,
    TokenOut,
    TokenRefusalOut,
    TokensOut,
    UserOut,
)
from iotflow.accounts.service import SignedIn
from iotflow.http.authentication import CurrentUser
from iotflow.http.examples import FORM, shown
from iotflow.http.paths import API, TOKEN
from iotflow.http.requests import client_address
from iotflow.http.responses import problems
from iotflow.http.runtime import RuntimeDep

router = APIRouter(prefix=API, tags=["accounts"])

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]
# What may come from in front of the route says it in our words alone.
_TOKEN_ANSWERS = (
    examples.SIGNED_IN | problems(400, 403, 415, 429, model=TokenRefusalOut) | problems(413, 503)
)
_TOKEN_BODY = {"requestBody": {"required": True, "content": {FORM: {"schema": TOKEN_REQUEST}}}}


@router.post(
    "/auth/register",
    summary="Create an account",
    status_code=201,
    responses=examples.REGISTERED | problems(400, 403, 409, 413, 415, 422, 429, 503),
    openapi_extra=examples.REGISTRATION,
)
async def register(body: Registration, request: Request, runtime: RuntimeDep) -> UserOut:
    """Create an account. Sign in afterwards.

    The operator decides who may: anyone, whoever has an invitation (send its code as
    `invitation`), or nobody (`registration_closed`).
    """
    address = client_address(request.scope)
    user = await runtime.accounts.register(
        body.username, body.email, body.password, address, body.invitation
    )
    return UserOut.of(user)


@router.post(
    "/auth/login",
    summary="Sign in",
    responses=examples.SIGNED_IN | problems(400, 401, 413, 415, 422, 429, 503),
    openapi_extra=examples.LOGIN,
)
async def login(body: Login, request: Request, runtime: RuntimeDep) -> Session:
    """Sign in with a username or an e-mail address.

    The answer has an access token for `Authorization: Bearer`, which lives 15 minutes unless
    the operator says otherwise, and a refresh token to get the next one with. An unknown user
    and a wrong password get one and the same answer. After ten failures in five minutes an
    account takes no further attempts from there for a while: 429.
    """
    address = client_address(request.scope)
    return _session(await runtime.accounts.login(body.username, body.password, address))


@router.post(
    TOKEN.removeprefix(API),
    summary="Sign in as OAuth 2 does it",
    responses=_TOKEN_ANSWERS,
    openapi_extra=shown(_TOKEN_BODY, examples.TOKEN_REQUEST),
)
async def issue_token(request: Request, runtime: RuntimeDep) -> Session:
    """Sign in, or go on with a session, by a form: for OAuth 2 clients (RFC 6749, 4.3 and 6) and
    for *Authorize* on this page. The same rules hold as for the calls with JSON.

    What is refused is told in the RFC's words too, `error` and `error_description`, and with its
    status: 400 for a wrong password. Clients need no id. There are no scopes: a token that only
    reads is a personal one.
    """
    address = client_address(request.scope)
    with oauth_errors():
        refuse_strange_pages(request, runtime.settings.cors.origins)
        match await read_grant(request):
            case Login() as body:
                signed_in = await runtime.accounts.login(body.username, body.password, address)
            case RefreshToken() as body:
                signed_in = await runtime.accounts.refresh(body.refresh_token, address)
    return _session(signed_in)


@router.post(
    "/auth/refresh",
    summary="Stay signed in",
    responses=examples.SIGNED_IN | problems(400, 401, 413, 415, 422, 503),
    openapi_extra=examples.REFRESH,
)
async def refresh(body: RefreshToken, request: Request, runtime: RuntimeDep) -> Session:
    """Exchange a refresh token for a new pair of tokens.

    Each refresh token works once. One that comes a second time ends its whole session, because
    then two parties have it.
    """
    address = client_address(request.scope)
    return _session(await runtime.accounts.refresh(body.refresh_token, address))


@router.post(
    "/auth/logout",
    summary="Sign out",
    status_code=204,
    responses=problems(400, 413, 415, 422, 503),
    openapi_extra=examples.LOGOUT,
)
async def logout(body: RefreshToken, request: Request, runtime: RuntimeDep) -> Response:
    """End the session of a refresh token; an unknown or ended one gets 204 too.

    An access token that was given out before lives until it expires: 15 minutes at most.
    """
    await runtime.accounts.logout(body.refresh_token, client_address(request.scope))
    return Response(status_code=204)


@router.post(
    "/auth/password",
    summary="Change the password",
    status_code=204,
    responses=problems(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=examples.PASSWORD,
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


@router.get(
    "/auth/tokens",
    summary="List personal tokens",
    responses=examples.TOKENS | problems(401, 422, 429, 503),
)
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
    "/auth/tokens",
    summary="Make a personal token",
    status_code=201,
    responses=examples.CREATED_TOKEN | problems(400, 401, 403, 409, 413, 415, 422, 429, 503),
    openapi_extra=examples.NEW_TOKEN,
)
async def create_token(body: NewToken, caller: CurrentUser, runtime: RuntimeDep) -> CreatedTokenOut:
    """Make a long-lived token for a dashboard, a script or an SDK. It is shown this once.

    With the scope `read` it reads what you may read; with `write` it may do all that you may.
    One that is made with another token expires with that one at the latest.
    """
    created = await runtime.tokens.create(
        caller, body.name, frozenset(body.scopes), body.expires_in
    )
    return CreatedTokenOut(**TokenOut.of(created.token).__dict__, token=created.secret)


@router.delete(
    "/auth/tokens/{token_id}",
    summary="End a personal token",
    status_code=204,
    responses=problems(401, 403, 404, 422, 429, 503),
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
