"""Web pages of other origins: none may call the API unless the settings name theirs."""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from iotflow.http.security import SecurityHeaders

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_SENT = (
    "Accept",
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "If-Match",
    "If-None-Match",
    "X-API-Key",
    "X-Request-ID",
)
_SHOWN = (
    "ETag",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Cache",
    "X-Next-Cursor",
    "X-Request-ID",
)


class AllowOrigins(CORSMiddleware):
    """Answers preflights, and lets pages of `origins` read answers. There are no cookies, and so
    no credentials that a browser would send by itself."""

    def __init__(
        self, app: ASGIApp, origins: Collection[str], max_age_s: int, security: SecurityHeaders
    ) -> None:
        super().__init__(
            app,
            allow_origins=frozenset(origins),
            allow_methods=_METHODS,
            allow_headers=_SENT,
            expose_headers=_SHOWN,
            max_age=max_age_s,
        )
        self._security = security

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_preflight(scope):
            response = self.preflight_response(Headers(scope=scope))
            response.raw_headers += self._security.missing(scope, response.raw_headers)
            await response(scope, receive, send)
            return
        await super().__call__(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """As the base class has it, without its text: the status and the headers say it all."""
        answer = super().preflight_response(request_headers)
        headers = {name: value for name, value in answer.headers.items() if name != "content-type"}
        headers.pop("content-length", None)
        return Response(status_code=answer.status_code, headers=headers)


def _is_preflight(scope: Scope) -> bool:
    if scope["method"] != "OPTIONS":
        return False
    names = {name for name, _ in scope["headers"]}
    return {b"origin", b"access-control-request-method"} <= names
