"""Signing in as OAuth 2 has it (RFC 6749, 4.3 and 6): a form in, errors in its words out.

It is for what knows nothing but that: OAuth clients, and the dialog of the API explorer. What a
sign-in may do, and how often it may fail, the accounts decide as for every other.
"""

from collections.abc import Collection, Generator
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import ValidationError

from iotflow.accounts.schemas import Login, RefreshToken
from iotflow.errors import (
    InvalidInputError,
    IoTFlowError,
    NotAllowedError,
    NotAuthenticatedError,
    TokenRequestError,
    UnsupportedMediaError,
)
from iotflow.http.bodies import read_body
from iotflow.http.examples import FORM
from iotflow.http.problems import field_error

Grant = TypeVar("Grant", Login, RefreshToken)

MAX_FORM_BYTES = 16 * 1024
_MAX_FIELDS = 32


@contextmanager
def oauth_errors() -> Generator[None]:
    """Expected errors are raised as RFC 6749 names them, with its members beside ours."""
    try:
        yield
    except IoTFlowError as error:
        told = _renamed(error)
        told.extra = {"error": told.error_code, "error_description": told.message}
        raise told from error.__cause__


def _renamed(error: IoTFlowError) -> IoTFlowError:
    match error:
        case TokenRequestError():
            return error
        case NotAuthenticatedError():
            return TokenRequestError(error.message, code="invalid_grant")
        case InvalidInputError():
            return TokenRequestError(error.message, errors=error.errors)
        case _:
            return error


def refuse_strange_pages(request: Request, origins: Collection[str]) -> None:
    """A page of another site may not sign in, unless it is one of these origins.

    Browsers send forms anywhere without asking: such a page could have its visitors fail at
    somebody's account, until the owner has to wait at home too.

    Raises:
        NotAllowedError: it is one.
    """
    site = request.headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none") and request.headers.get("origin") not in origins:
        raise NotAllowedError("A page of another site cannot sign in here.")


async def read_grant(request: Request) -> Login | RefreshToken:
    """What the form offers for a token.

    Raises:
        TokenRequestError: `invalid_request`, `unsupported_grant_type`, `invalid_scope`.
        TooLargeError, UnsupportedMediaError, UnreadableBodyError: the body is no such form.
    """
    form = await _read_form(request)
    if "scope" in form:
        raise TokenRequestError(
            "There are no scopes to ask for here. A token that only reads is a personal one.",
            code="invalid_scope",
        )
    match form.get("grant_type"):
        case "password":
            return _valid(Login, form)
        case "refresh_token":
            return _valid(RefreshToken, form)
        case None:
            raise TokenRequestError("Send grant_type=password, with username and password.")
        case _:
            raise TokenRequestError(
                "Send grant_type=password or refresh_token.", code="unsupported_grant_type"
            )


async def _read_form(request: Request) -> dict[str, str]:
    """Fields by name. What has no value counts as left out, as the RFC has it."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != FORM:
        raise UnsupportedMediaError(f"Send the body as Content-Type: {FORM}.")
    encoding = request.headers.get("content-encoding", "").encode("latin-1")
    body = await read_body(request.receive, encoding, MAX_FORM_BYTES)
    try:
        fields = parse_qsl(body.decode(), errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise TokenRequestError("The body is not a form in UTF-8.") from None
    form = dict(fields)
    if len(form) < len(fields):
        raise TokenRequestError("Send each field once.")
    return form


def _valid(grant: type[Grant], form: dict[str, str]) -> Grant:
    """Fields that it does not have are ignored, as the RFC has it: a client's id, say."""
    try:
        return grant.model_validate({name: form[name] for name in grant.model_fields.keys() & form})
    except ValidationError as error:
        fields = tuple(field_error(each) for each in error.errors(include_input=False))
        raise TokenRequestError(
            "; ".join(f"{each.field}: {each.message}" for each in fields), errors=fields
        ) from None
