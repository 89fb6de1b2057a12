"""Coming again after 429, 503 and lost connections, as long as that can do no harm."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import SystemRandom

import httpx

_RANDOM = SystemRandom()
_SAFE_TO_REPEAT = frozenset({"GET", "HEAD", "PUT", "DELETE"})


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how long. `Retry()` is four attempts with at most a minute's wait each.

    A server that asks for more than `longest_wait_s` gets no further attempt: its answer is
    returned, and `Retry-After` in its headers says when to come again.
    """

    attempts: int = 4
    first_wait_s: float = 0.5
    longest_wait_s: float = 60.0


class RetryTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """An httpx transport, for `httpx.Client` and `httpx.AsyncClient` alike, that retries.

    - 429: always; the server did nothing.
    - 503 and lost connections: for GET, HEAD, PUT and DELETE, and for telemetry that carries its
      own timestamps, because the same point again changes nothing. Any other POST may have been
      done before the answer was lost, so it is not sent again.
    - A connection that could not be opened: always.
    """

    def __init__(self, retry: Retry, *, verify: bool = True) -> None:
        self._retry = retry
        self._sync = httpx.HTTPTransport(verify=verify)
        self._async = httpx.AsyncHTTPTransport(verify=verify)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for backoff_s in self._backoffs():
            try:
                response = self._sync.handle_request(request)
            except httpx.TransportError as error:
                if not _may_repeat(request, error):
                    raise
                time.sleep(backoff_s)
                continue
            wait_s = self._wait_s(request, response, backoff_s)
            if wait_s is None:
                return response
            response.close()
            time.sleep(wait_s)
        return self._sync.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for backoff_s in self._backoffs():
            try:
                response = await self._async.handle_async_request(request)
            except httpx.TransportError as error:
                if not _may_repeat(request, error):
                    raise
                await asyncio.sleep(backoff_s)
                continue
            wait_s = self._wait_s(request, response, backoff_s)
            if wait_s is None:
                return response
            await response.aclose()
            await asyncio.sleep(wait_s)
        return await self._async.handle_async_request(request)

    def close(self) -> None:
        self._sync.close()

    async def aclose(self) -> None:
        await self._async.aclose()

    def _backoffs(self) -> Iterator[float]:
        """A wait for each attempt but the last: doubling, with jitter."""
        for attempt in range(self._retry.attempts - 1):
            highest_s = min(self._retry.first_wait_s * 2**attempt, self._retry.longest_wait_s)
            yield _RANDOM.uniform(highest_s / 2, highest_s)

    def _wait_s(
        self, request: httpx.Request, response: httpx.Response, backoff_s: float
    ) -> float | None:
        """None: this answer is the caller's."""
        refused = response.status_code == 429
        if not refused and not (response.status_code == 503 and is_repeatable(request)):
            return None
        asked = response.headers.get("Retry-After", "")
        if not asked.isdecimal():
            return backoff_s
        # Jitter on top, so that a fleet that was refused together does not come back together.
        wait_s = float(asked) + _RANDOM.uniform(0, self._retry.first_wait_s)
        return wait_s if float(asked) <= self._retry.longest_wait_s else None


def is_repeatable(request: httpx.Request) -> bool:
    """Whether doing it twice is the same as doing it once."""
    if request.method in _SAFE_TO_REPEAT:
        return True
    if request.url.path.endswith("/telemetry/batch"):
        return True  # each record has its timestamp
    if not request.url.path.endswith("/telemetry"):
        return False
    try:
        return json.loads(request.content).get("timestamp") is not None
    except (ValueError, AttributeError, httpx.RequestNotRead):
        return False


def _may_repeat(request: httpx.Request, error: httpx.TransportError) -> bool:
    never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
    return never_sent or is_repeatable(request)
