"""Headers that tell browsers what an answer is not for. Encoded once: they are on every answer."""

import base64
import re
from hashlib import sha256

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iotflow.http.answers import FixedFields

Headers = tuple[tuple[bytes, bytes], ...]

_CSP = b"content-security-policy"
_CACHE_CONTROL = b"cache-control"
# An answer of the API is data: no page may be made of it, and no cache may keep it.
_ALWAYS: Headers = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_NO_PAGE = (_CSP, b"default-src 'none'; frame-ancestors 'none'")
_NO_STORE = (_CACHE_CONTROL, b"no-store")
# What has an ETag may be kept by the caller, who asks again before using it.
_ASK_AGAIN = (_CACHE_CONTROL, b"private, no-cache")

_API = "/api/"
_PAGES = frozenset({"/docs", "/docs/oauth2-redirect", "/redoc"})
_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


class SecurityHeaders:
    """The headers of an answer. `hsts_s` is how long a browser is to insist on https, 0 for not."""

    def __init__(self, hsts_s: int) -> None:
        hsts = ((b"strict-transport-security", b"max-age=%d" % hsts_s),) if hsts_s else ()
        self._always = {"http": _ALWAYS, "https": (*_ALWAYS, *hsts)}
        self._data = {
            scheme: FixedFields.of((*always, _NO_PAGE, _NO_STORE))
            for scheme, always in self._always.items()
        }

    def of_data(self, scope: Scope) -> FixedFields:
        """For an answer of the API that sets none of these itself."""
        return self._data["https" if scope.get("scheme") == "https" else "http"]

    def missing(self, scope: Scope, present: list[tuple[bytes, bytes]]) -> Headers:
        """For any answer: those that are not among its headers yet."""
        names = {name for name, _ in present}
        found = list(self._always["https" if scope.get("scheme") == "https" else "http"])
        if _CSP not in names:
            found.append(_NO_PAGE)
        if scope["path"].startswith(_API) and _CACHE_CONTROL not in names:
            found.append(_ASK_AGAIN if b"etag" in names else _NO_STORE)
        return tuple(found)


class PagePolicy:
    """Lets the API explorer's pages run their own scripts, and nothing that is slipped in.

    Their inline scripts are allowed by their hashes, so those pages are held back until their
    one body is there.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in _PAGES:
            await self._app(scope, receive, send)
            return
        start: Message | None = None

        async def send_with_policy(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                policy = _page_policy(message.get("body", b""))
                await send({**start, "headers": [*start["headers"], (_CSP, policy)]})
                start = None
            await send(message)

        await self._app(scope, receive, send_with_policy)


def _page_policy(page: bytes) -> bytes:
    hashes = b"".join(
        b" 'sha256-%b'" % base64.b64encode(sha256(script).digest())
        for script in _INLINE_SCRIPT.findall(page)
    )
    return (
        b"default-src 'none'; script-src 'self'%b; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; "
        b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'" % hashes
    )
