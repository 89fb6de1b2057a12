"""Routes that run for every submission: matched first, without the framework's layers.

FastAPI's routing, dependencies and responses cost about as much again as everything that a
submission does here. A hot handler gets the raw request and returns an answer in bytes. The
same handler stands behind a declared route, for the OpenAPI document (docs/decisions/0003).
"""

from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import NamedTuple

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from iotflow.errors import IoTFlowError
from iotflow.http.problems import MEDIA_TYPE, Problem, problem_of, unexpected_problem
from iotflow.http.requests import request_id
from iotflow.observability.metrics import Metrics, RouteMetrics
from iotflow.runtime import Runtime

JSON = b"application/json"
_log = structlog.get_logger("iotflow.access")


class HotRequest:
    """A request as its handler needs it: the headers that matter, found in one pass."""

    __slots__ = ("api_key", "authorization", "encoding", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.api_key: str | None = None
        self.authorization: str | None = None
        self.encoding = b""
        for name, value in scope["headers"]:
            if name == b"x-api-key":
                self.api_key = value.decode("latin-1")
            elif name == b"authorization":
                self.authorization = value.decode("latin-1")
            elif name == b"content-encoding":
                self.encoding = value

    @property
    def runtime(self) -> Runtime:
        runtime: Runtime = self.scope["state"]["runtime"]
        return runtime


class Answer(NamedTuple):
    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


Handler = Callable[[HotRequest], Awaitable[Answer]]
"""Raises IoTFlowError for what goes wrong, as every service does."""


class HotRoute(NamedTuple):
    method: str
    path: str
    handler: Handler


class HotRoutes:
    """ASGI middleware that answers `routes` itself and passes everything else on."""

    def __init__(self, app: ASGIApp, routes: tuple[HotRoute, ...], metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._routes: Mapping[tuple[str, str], tuple[Handler, RouteMetrics]] = {
            (route.method, route.path): (
                route.handler,
                metrics.route(route.method, route.path),
            )
            for route in routes
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            found = self._routes.get((scope["method"], scope["path"]))
            if found is not None:
                await self._answer(*found, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _answer(
        self, handler: Handler, metrics: RouteMetrics, scope: Scope, receive: Receive, send: Send
    ) -> None:
        began = perf_counter()
        self._metrics.in_flight += 1
        identifier = request_id(scope)
        try:
            answer = await answered(handler, HotRequest(scope, receive), identifier)
        except ClientDisconnect:
            return
        finally:
            self._metrics.in_flight -= 1
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [
                    (b"content-type", answer.content_type),
                    (b"content-length", str(len(answer.body)).encode("ascii")),
                    (b"x-request-id", identifier.encode("ascii")),
                    *answer.headers,
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer.body})
        metrics.observe(answer.status, perf_counter() - began)


async def answered(handler: Handler, request: HotRequest, identifier: str) -> Answer:
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
        headers = {name.decode(): value.decode("latin-1") for name, value in answer.headers}
        return Response(answer.body, answer.status, headers, answer.content_type.decode())

    return endpoint


def _problem_answer(problem: Problem, identifier: str) -> Answer:
    headers = tuple(
        (name.lower().encode("ascii"), value.encode("latin-1"))
        for name, value in problem.headers.items()
    )
    return Answer(problem.status, problem.body(identifier), MEDIA_TYPE.encode("ascii"), headers)
