"""Routes that run most: matched first, without the framework's layers.

FastAPI's routing, dependencies and responses cost about as much again as everything that a
submission does here. A hot handler gets the raw request and returns an answer in bytes. Every
hot route is declared to the framework too, for the OpenAPI document (docs/decisions/0003): the
requests that a hot handler leaves alone, odd ones with errors to explain, are answered there.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter, time
from typing import NamedTuple

import msgspec
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from iotflow.errors import IoTFlowError
from iotflow.http.admission import AT_ONCE, Admission, NoRoomError, Slot
from iotflow.http.answers import send_answer
from iotflow.http.problems import MEDIA_TYPE, Problem, problem_of, unexpected_problem
from iotflow.http.requests import request_id
from iotflow.http.security import SecurityHeaders
from iotflow.limits.standing import Standings, current_standings
from iotflow.observability.metrics import Metrics, RouteMetrics
from iotflow.runtime import Runtime

JSON = b"application/json"
_MAX_DIGITS = 18  # of 64 bits
_log = structlog.get_logger("iotflow.access")


class HotRequest:
    """A request as its handler needs it: the headers that matter, found in one pass.

    `id` is the number that the path holds, 0 for a route without one. `arrived_body` gives the
    body if it need not be waited for, once; else None, and `receive` is to be asked.
    """

    __slots__ = (
        "accept",
        "api_key",
        "arrived_body",
        "authorization",
        "encoding",
        "id",
        "receive",
        "scope",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        identifier: int = 0,
        arrived_body: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.id = identifier
        self.arrived_body = arrived_body
        self.api_key: str | None = None
        self.accept = b""
        self.authorization: str | None = None
        self.encoding = b""
        for name, value in scope["headers"]:
            if name == b"x-api-key":
                self.api_key = value.decode("latin-1")
            elif name == b"authorization":
                self.authorization = value.decode("latin-1")
            elif name == b"content-encoding":
                self.encoding = value
            elif name == b"accept":
                self.accept = value

    @property
    def runtime(self) -> Runtime:
        runtime: Runtime = self.scope["state"]["runtime"]
        return runtime


class Answer(msgspec.Struct, frozen=True, gc=False):
    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


Handler = Callable[[HotRequest], Awaitable[Answer | None]]
"""Raises IoTFlowError for what goes wrong, as every service does.

None leaves the request to the framework's route; its body must be unread then.
"""


class HotRoute(NamedTuple):
    """`path` is as the framework has it, with at most one `{…_id}` for a positive integer."""

    method: str
    path: str
    handler: Handler


class _Matched(NamedTuple):
    handler: Handler
    metrics: RouteMetrics
    id: int = 0


class _Template(NamedTuple):
    """A path with a number between `prefix` and `suffix`."""

    method: str
    prefix: str
    suffix: str
    found: _Matched

    def match(self, method: str, path: str) -> _Matched | None:
        if method != self.method or not path.startswith(self.prefix):
            return None
        end = len(path) - len(self.suffix)
        if not path.endswith(self.suffix):
            return None
        number = path[len(self.prefix) : end]
        if not (number.isascii() and number.isdigit() and len(number) <= _MAX_DIGITS):
            return None
        if number.startswith("0"):
            return None
        return self.found._replace(id=int(number))


class HotRoutes:
    """An ASGI app that answers `routes` itself and passes everything else on, of what
    `admission` lets in."""

    def __init__(
        self,
        app: ASGIApp,
        routes: tuple[HotRoute, ...],
        metrics: Metrics,
        security: SecurityHeaders,
        admission: Admission,
    ) -> None:
        self._app = app
        self._admission = admission
        self._security = security
        self._metrics = metrics
        self._exact: dict[tuple[str, str], _Matched] = {}
        self._templates: list[_Template] = []
        for route in routes:
            found = _Matched(route.handler, metrics.route(route.method, route.path))
            prefix, brace, rest = route.path.partition("{")
            if brace:
                suffix = rest.partition("}")[2]
                self._templates.append(_Template(route.method, prefix, suffix, found))
            else:
                self._exact[route.method, route.path] = found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        admission = self._admission
        may_begin = (
            scope["path"] in AT_ONCE
            or not admission.turn.is_over()
            or await admission.wait_for_turn(scope)
        )
        slot = admission.enter(scope, receive) if may_begin else None
        if slot is None:
            await admission.refuse(scope, send)
            return
        try:
            found = self._match(scope["method"], scope["path"])
            if found is None or not await self._answer(found, scope, slot, send):
                await self._app(scope, slot.receive, slot.sending(send))
        except NoRoomError:
            await self._admission.refuse_late(scope, send)
        except asyncio.CancelledError:
            # The service stops, and has waited for long enough.
            self._metrics.cut_off += 1
            if slot.has_begun:
                raise
            await self._admission.break_off(scope, send)
        finally:
            slot.leave()

    def _match(self, method: str, path: str) -> _Matched | None:
        found = self._exact.get((method, path))
        if found is not None:
            return found
        for template in self._templates:
            found = template.match(method, path)
            if found is not None:
                return found
        return None

    async def _answer(self, found: _Matched, scope: Scope, slot: Slot, send: Send) -> bool:
        """Whether the request was dealt with."""
        began = perf_counter()
        self._metrics.in_flight += 1
        identifier = request_id(scope)
        standings = Standings()
        current_standings.set(standings)
        request = HotRequest(scope, slot.receive, found.id, slot.arrived_body)
        try:
            answer = await answered(found.handler, request, identifier)
        except ClientDisconnect:
            return True
        finally:
            self._metrics.in_flight -= 1
        if answer is None:
            return False
        headers = (
            (b"content-type", answer.content_type),
            (b"x-request-id", identifier.encode("ascii")),
            *answer.headers,
            # A refusal tells of its own policy.
            *(standings.headers(time()) if answer.status != 429 else ()),
        )
        fixed = self._security.of_data(scope)
        await send_answer(send, answer.status, fixed, headers, answer.body)
        found.metrics.observe(answer.status, perf_counter() - began)
        return True


async def answered(handler: Handler, request: HotRequest, identifier: str) -> Answer | None:
    """The handler's answer, or the problem that it raised."""
    try:
        return await handler(request)
    except IoTFlowError as error:
        return _problem_answer(problem_of(error), identifier)
    except ClientDisconnect:
        raise
    except Exception:
        _log.exception("request_failed", route=request.scope["path"], request_id=identifier)
        return _problem_answer(unexpected_problem(), identifier)


def as_endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """The handler as an ordinary endpoint, so that its route can be declared and documented."""

    async def endpoint(request: Request) -> Response:
        hot = HotRequest(request.scope, request.receive)
        answer = await answered(handler, hot, request.scope["state"]["request_id"])
        if answer is None:
            raise RuntimeError("This handler leaves nothing to the framework.")
        headers = {name.decode(): value.decode("latin-1") for name, value in answer.headers}
        return Response(answer.body, answer.status, headers, answer.content_type.decode())

    return endpoint


def _problem_answer(problem: Problem, identifier: str) -> Answer:
    headers = tuple(
        (name.lower().encode("ascii"), value.encode("latin-1"))
        for name, value in problem.headers.items()
    )
    return Answer(problem.status, problem.body(identifier), MEDIA_TYPE.encode("ascii"), headers)
