"""Who is asking: the dependencies that turn headers into callers.

Credentials are taken from headers alone, never from a URL.
"""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from iotflow.domain.callers import Caller, DeviceCaller, UserCaller
from iotflow.errors import NotAuthenticatedError
from iotflow.http.runtime import RuntimeDep

_device_key = APIKeyHeader(
    name="X-API-Key",
    scheme_name="DeviceKey",
    description="A device's key, `iotd_…`, as its registration showed it.",
    auto_error=False,
)
_bearer = HTTPBearer(
    scheme_name="Bearer",
    description="An access token, as `POST /api/v1/auth/login` gives it.",
    auto_error=False,
)

device_key_scheme = Depends(_device_key)
"""For routes that read the key themselves: it puts the scheme into the OpenAPI document."""

Key = Annotated[str | None, Depends(_device_key)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def current_user(request: Request, runtime: RuntimeDep, bearer: Bearer) -> UserCaller:
    """The user of an access token, within their rate limit."""
    if bearer is None:
        raise NotAuthenticatedError(
            "Sign in, and send the access token as Authorization: Bearer <token>."
        )
    caller = UserCaller(await runtime.accounts.user_of(bearer.credentials))
    await _limit(request, runtime, caller)
    return caller


async def current_device(request: Request, runtime: RuntimeDep, key: Key) -> DeviceCaller:
    """The device of a key, within its rate limit."""
    if key is None:
        raise NotAuthenticatedError("Send the device's key as X-API-Key: iotd_…")
    caller = DeviceCaller(await runtime.keys.authenticate(key))
    await _limit(request, runtime, caller)
    return caller


async def current_caller(request: Request, runtime: RuntimeDep, bearer: Bearer, key: Key) -> Caller:
    """A user or a device. With both credentials sent, the user's counts."""
    if bearer is not None:
        return await current_user(request, runtime, bearer)
    if key is not None:
        return await current_device(request, runtime, key)
    raise NotAuthenticatedError(
        "Send an access token (Authorization: Bearer <token>) or a device's key (X-API-Key)."
    )


async def _limit(request: Request, runtime: RuntimeDep, caller: Caller) -> None:
    reading = request.method in ("GET", "HEAD")
    await runtime.limiter.check("read" if reading else "write", caller.subject)


CurrentUser = Annotated[UserCaller, Depends(current_user)]
CurrentDevice = Annotated[DeviceCaller, Depends(current_device)]
CurrentCaller = Annotated[Caller, Depends(current_caller)]
