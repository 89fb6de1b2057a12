"""/auth and /users: accounts over HTTP."""

from fastapi import APIRouter, Request, Response

from iotflow.accounts.schemas import Login, RefreshToken, Registration, Session, UserOut
from iotflow.accounts.service import SignedIn
from iotflow.http.authentication import CurrentUser
from iotflow.http.paths import API
from iotflow.http.requests import client_address
from iotflow.http.responses import problems
from iotflow.http.runtime import RuntimeDep

router = APIRouter(prefix=API, tags=["accounts"])


@router.post("/auth/register", status_code=201, responses=problems(400, 409, 415, 422, 429, 503))
async def register(body: Registration, request: Request, runtime: RuntimeDep) -> UserOut:
    """Create an account. Sign in with it afterwards."""
    address = client_address(request.scope)
    user = await runtime.accounts.register(body.username, body.email, body.password, address)
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


@router.get("/users/me", responses=problems(401, 429, 503))
async def me(caller: CurrentUser) -> UserOut:
    """The account that is signed in."""
    return UserOut.of(caller.user)


def _session(signed_in: SignedIn) -> Session:
    return Session(
        access_token=signed_in.access_token,
        refresh_token=signed_in.refresh_token,
        expires_in=signed_in.expires_in_s,
        user=UserOut.of(signed_in.user),
    )
