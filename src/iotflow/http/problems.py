"""The one place that turns errors into answers: problem+json as RFC 9457 has it."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from iotflow import errors
from iotflow.errors import FieldError, IoTFlowError
from iotflow.http.methods import Methods
from iotflow.http.phrases import PHRASES
from iotflow.http.schemas import NO_NUL

MEDIA_TYPE = "application/problem+json"

STATUS: dict[type[IoTFlowError], int] = {
    errors.UnreadableBodyError: 400,
    errors.NotAuthenticatedError: 401,
    errors.NotAllowedError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.StaleVersionError: 412,
    errors.TooLargeError: 413,
    errors.UnsupportedMediaError: 415,
    errors.InvalidInputError: 422,
    errors.TokenRequestError: 400,
    errors.RateLimitedError: 429,
    errors.StoreUnavailableError: 503,
    errors.OverloadedError: 503,
}

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
_DETAILS = {
    404: "There is nothing at this address. See /docs for what there is.",
    405: "This address does not take this method. See /docs for what it takes.",
    413: "The body is larger than this call takes.",
    500: "Something went wrong on our side. The request_id finds it in the log.",
}

_encode = msgspec.json.Encoder().encode


class Problem(msgspec.Struct):
    """An answer that reports an error, before it is bound to a request."""

    status: int
    code: str
    detail: str
    errors: Sequence[FieldError] = ()
    extra: Mapping[str, Any] = {}
    headers: Mapping[str, str] = {}

    def body(self, request_id: str) -> bytes:
        document: dict[str, Any] = {
            "type": f"urn:iotflow:problem:{self.code}",
            "title": PHRASES[self.status],
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        if self.errors:
            document["errors"] = self.errors
        return _encode(document | dict(self.extra))


def problem_of(error: IoTFlowError) -> Problem:
    """How an expected error is told to the caller."""
    return Problem(
        status=status_of(error),
        code=error.error_code,
        detail=error.message,
        errors=error.errors if isinstance(error, errors.InvalidInputError) else (),
        extra=error.extra,
        headers=_headers(error),
    )


def status_of(error: IoTFlowError) -> int:
    """The status of an error, inherited along its tree; 500 for what has none."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def _headers(error: IoTFlowError) -> dict[str, str]:
    if isinstance(error, errors.NotAuthenticatedError):
        return {"WWW-Authenticate": 'Bearer realm="iotflow", ApiKey realm="iotflow"'}
    if isinstance(error, errors.RateLimitedError):
        return {
            "Retry-After": str(error.retry_after_s),
            "RateLimit-Policy": f'"{error.policy}";q={error.limit};w={error.window_s}',
            "RateLimit": f'"{error.policy}";r=0;t={error.retry_after_s}',
        }
    if isinstance(error, errors.StoreUnavailableError | errors.OverloadedError):
        return {"Retry-After": str(error.retry_after_s)}
    return {}


def unexpected_problem() -> Problem:
    """What the caller learns of a defect: nothing but where to look."""
    return Problem(500, IoTFlowError.code, _DETAILS[500])


def problem_response(request: Request, problem: Problem) -> Response:
    request_id: str = request.scope.get("state", {}).get("request_id", "")
    return Response(
        problem.body(request_id), problem.status, dict(problem.headers), media_type=MEDIA_TYPE
    )


def install(app: FastAPI) -> None:
    """Let every error that a route raises become a problem."""

    async def expected(request: Request, error: IoTFlowError) -> Response:
        return problem_response(request, problem_of(error))

    methods = Methods(app)

    async def invalid(request: Request, error: RequestValidationError) -> Response:
        in_path = any(each["loc"][0] == "path" for each in error.errors())
        if in_path and (allowed := methods.of_literal(request.url.path, request.method)):
            return problem_response(request, _method_not_allowed(allowed))
        return problem_response(request, problem_of(_invalid_input(request, error)))

    async def framework(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = methods.of(request.url.path) or ""
            return problem_response(request, _method_not_allowed(allowed))
        if error.status_code == HTTPStatus.BAD_REQUEST:
            # All that the framework says so of is a body: not UTF-8, say, or nested too deep.
            return problem_response(request, problem_of(_not_json()))
        problem = _framework_problem(error.status_code, error.headers or {})
        return problem_response(request, problem)

    # Any: Starlette's annotation asks for handlers of every exception.
    handlers: dict[Any, Any] = {
        IoTFlowError: expected,
        RequestValidationError: invalid,
        HTTPException: framework,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _framework_problem(status: int, headers: Mapping[str, str]) -> Problem:
    detail = _DETAILS.get(status, PHRASES[status])
    return Problem(status, _CODES.get(status, "http_error"), detail, headers=headers)


def _method_not_allowed(allowed: str) -> Problem:
    return _framework_problem(405, {"Allow": allowed})


def _invalid_input(request: Request, error: RequestValidationError) -> IoTFlowError:
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        return _not_json()
    if any(tuple(each["loc"]) == ("body",) for each in found) and not _is_json(request):
        return errors.UnsupportedMediaError("Send the body as Content-Type: application/json.")
    fields = tuple(field_error(each) for each in found)
    return errors.InvalidInputError(
        "; ".join(f"{each.field}: {each.message}" for each in fields[:3]), errors=fields
    )


def _not_json() -> IoTFlowError:
    return errors.UnreadableBodyError("The body is not valid JSON. Send UTF-8 encoded JSON.")


def _is_json(request: Request) -> bool:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def field_error(found: Mapping[str, Any]) -> FieldError:
    """A field at fault, from what pydantic found; the first part of its place says where it was."""
    location = [str(part) for part in found["loc"]]
    # "body", "query" and "path" say where; the caller thinks of the field alone.
    field = ".".join(location[1:]) or location[0]
    if found["type"] == "extra_forbidden":
        what = "parameter" if location[0] == "query" else "field"
        return FieldError(field, "unknown_field", f"There is no such {what}. Leave it out.")
    if found.get("ctx", {}).get("pattern") == NO_NUL:
        return FieldError(field, "nul_character", "NUL characters cannot be stored.")
    return FieldError(field, found["type"], found["msg"].removeprefix("Value error, "))
