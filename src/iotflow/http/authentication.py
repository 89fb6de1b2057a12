"""Who is asking: the dependencies that turn headers into callers.

Credentials are taken from headers alone, never from a URL. What a caller may do with them says
the operation's rule (http/authorisation.py).
"""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import (
    APIKeyHeader,
    HTTPAuthorizationCredentials,
    HTTPBearer,
    OAuth2PasswordBearer,
)

from iotflow.domain.callers import Caller, DeviceCaller, UserCaller
from iotflow.errors import NotAllowedError
from iotflow.http.authorisation import admit
from iotflow.http.paths import TOKEN
from iotflow.http.runtime import RuntimeDep
from iotflow.runtime import Runtime

_device_key = APIKeyHeader(
    name="X-API-Key",
    scheme_name="DeviceKey",
    description="A device's key, `iotd_…`, as its registration showed it.",
    auto_error=False,
)
_bearer = HTTPBearer(
    scheme_name="Bearer",
    description=(
        "An access token, as `POST /api/v1/auth/login` gives it, or a personal token, `iotp_…`."
    ),
    auto_error=False,
)
_sign_in = OAuth2PasswordBearer(
    tokenUrl=TOKEN,
    refreshUrl=TOKEN,
    scheme_name="SignIn",
    description=(
        "Sign in with username (or e-mail address) and password. Client id and secret stay empty."
    ),
    auto_error=False,
)

device_key_scheme = Depends(_device_key)
"""For routes that read the key themselves: it puts the scheme into the OpenAPI document."""


async def _token(
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    _: Annotated[str | None, Depends(_sign_in)],
) -> str | None:
    """One header, and two ways in which the document says how to come by what is in it."""
    return None if bearer is None else bearer.credentials


Key = Annotated[str | None, Depends(_device_key)]
Token = Annotated[str | None, Depends(_token)]


def bearer_token(authorization: str | None) -> str | None:
    """The token of an Authorization header of that scheme."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


async def current_user(request: Request, runtime: RuntimeDep, token: Token) -> UserCaller:
    """A dependency: the user whom the operation's rule admits."""
    caller = await _admitted(request, runtime, token, None)
    if not isinstance(caller, UserCaller):
        raise NotAllowedError("A device cannot do this; its owner can.")
    return caller


async def current_device(request: Request, runtime: RuntimeDep, key: Key) -> DeviceCaller:
    """A dependency: the device that the operation's rule admits."""
    caller = await _admitted(request, runtime, None, key)
    if not isinstance(caller, DeviceCaller):
        raise NotAllowedError("Only a device can do this, with its key.")
    return caller


async def current_caller(request: Request, runtime: RuntimeDep, token: Token, key: Key) -> Caller:
    """A dependency: the user or device that the operation's rule admits."""
    return await _admitted(request, runtime, token, key)


async def _admitted(
    request: Request,
    runtime: Runtime,
    token: str | None,
    key: str | None,
) -> Caller:
    operation: str = request.scope["route"].name
    return await admit(runtime, operation, token, key, request.path_params)


CurrentUser = Annotated[UserCaller, Depends(current_user)]
CurrentDevice = Annotated[DeviceCaller, Depends(current_device)]
CurrentCaller = Annotated[Caller, Depends(current_caller)]
