"""Pure ASGI middleware: request ids, metrics and the access log, round every route."""

from time import perf_counter, time

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iotflow.http.bodies import too_large
from iotflow.http.problems import problem_of, problem_response, unexpected_problem
from iotflow.http.requests import declared_length, request_id
from iotflow.http.security import SecurityHeaders
from iotflow.limits.standing import Standings, current_standings
from iotflow.observability.metrics import Metrics
from iotflow.settings import LogSettings

UNMATCHED = "(none)"
_log = structlog.get_logger("iotflow.access")


class LimitBody:
    """Ends requests whose body is larger than `max_bytes` with 413."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if declared_length(scope) > self._max_bytes:
            response = problem_response(Request(scope), problem_of(too_large(self._max_bytes)))
            await response(scope, receive, send)
            return
        size = 0

        async def receive_bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_bytes:
                raise HTTPException(413)  # what the framework lets through while it reads a body
            return message

        await self._app(scope, receive_bounded, send)


class Observe:
    """Gives each request an id and its answer the security headers, counts and times it by route,
    logs it, and tells its limits.

    An exception that nothing else turned into an answer is logged and becomes a 500.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, log: LogSettings, security: SecurityHeaders
    ) -> None:
        self._app = app
        self._security = security
        self._metrics = metrics
        self._log_from = {"all": 0, "errors": 500, "off": 1000}[log.access]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        status = 0
        identifier = request_id(scope)
        scope.setdefault("state", {})["request_id"] = identifier
        standings = Standings()
        current_standings.set(standings)

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    *self._security.missing(scope, message["headers"]),
                    (b"x-request-id", identifier.encode("ascii")),
                    # A refusal tells of its own policy.
                    *(standings.headers(time()) if status != 429 else ()),
                ]
            await send(message)

        self._metrics.in_flight += 1
        with structlog.contextvars.bound_contextvars(request_id=identifier):
            try:
                await self._app(scope, receive, send_observed)
            except Exception:
                _log.exception("request_failed", method=scope["method"], route=_template(scope))
                if status:
                    raise  # the answer has begun: all that is left is to break it off
                response = problem_response(Request(scope), unexpected_problem())
                await response(scope, receive, send_observed)
            finally:
                self._metrics.in_flight -= 1
                if status:  # what was given up is answered, and counted, outside of here
                    self._observe(scope, status, perf_counter() - began)

    def _observe(self, scope: Scope, status: int, duration_s: float) -> None:
        template = _template(scope)
        self._metrics.route(scope["method"], template).observe(status, duration_s)
        if status >= self._log_from:
            _log.info(
                "request",
                method=scope["method"],
                route=template,
                status=status,
                ms=round(duration_s * 1000, 2),
            )


def _template(scope: Scope) -> str:
    """The route's template, never the path itself: paths are without number."""
    return getattr(scope.get("route"), "path", UNMATCHED)
