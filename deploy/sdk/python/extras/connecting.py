"""A client for each kind of caller, with retries."""

from typing import overload

import httpx

from .client import AuthenticatedClient, Client
from .retrying import Retry, RetryTransport

_RETRY = Retry()
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


@overload
def connect(
    url: str, *, token: str, retry: Retry = ..., timeout: httpx.Timeout = ..., verify: bool = ...
) -> AuthenticatedClient: ...
@overload
def connect(
    url: str, *, api_key: str, retry: Retry = ..., timeout: httpx.Timeout = ..., verify: bool = ...
) -> AuthenticatedClient: ...
@overload
def connect(
    url: str, *, retry: Retry = ..., timeout: httpx.Timeout = ..., verify: bool = ...
) -> Client: ...
def connect(
    url: str,
    *,
    token: str | None = None,
    api_key: str | None = None,
    retry: Retry = _RETRY,
    timeout: httpx.Timeout = _TIMEOUT,
    verify: bool = True,
) -> AuthenticatedClient | Client:
    """A client of the service at `url`, for example `https://iot.example.com`.

    Args:
        token: a user's: an access token from login, or better for programs a personal token.
        api_key: a device's. Give one of the two, or neither to register and to sign in.
        retry: `Retry(attempts=1)` for none.

    Use it in a `with` (or `async with`) block, or for as long as the program runs.

    Raises:
        ValueError: token and key together.
    """
    if token and api_key:
        raise ValueError("give a token or an api_key, not both")
    transport = RetryTransport(retry, verify=verify)
    arguments = {"transport": transport}
    base_url = url.rstrip("/")
    if api_key:
        return AuthenticatedClient(
            base_url, api_key, prefix="", auth_header_name="X-API-Key",
            timeout=timeout, verify_ssl=verify, httpx_args=arguments,
        )  # fmt: skip
    if token:
        return AuthenticatedClient(
            base_url, token, timeout=timeout, verify_ssl=verify, httpx_args=arguments
        )
    return Client(base_url, timeout=timeout, verify_ssl=verify, httpx_args=arguments)
