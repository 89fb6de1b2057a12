"""Sending again what did not get through: bounded, and no sooner than the server asks."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import SystemRandom

import httpx

from iotflow.cli.client import RefusedError, ServerUnreachableError, problem_of, unreachable
from iotflow.pipeline.backoff import Backoff

LONGEST_WAIT_S = 300.0
MOST_LIMITED = 20
_TRY_AGAIN = frozenset({500, 502, 503, 504})
_FIRST_S, _CAP_S = 0.5, 10.0

Waiting = Callable[[str, float], None]
"""Told why nothing happens, and for how many seconds."""


class StillLimitedError(RefusedError):
    """The server went on answering 429, however often its Retry-After was honoured."""


class Retrying:
    """Repeats a request that may be repeated.

    A connection error and a 5xx are tried again, with growing pauses, for `patience_s`
    seconds after the first failure; a 429 after what the server asks for, a bounded
    number of times.
    """

    def __init__(
        self,
        url: str,
        patience_s: float,
        waiting: Waiting,
        *,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        self._url = url
        self._patience_s = patience_s
        self._waiting = waiting
        self._sleep = sleep
        self._now = now
        self._jitter = jitter or SystemRandom().random

    def call(
        self, send: Callable[[], httpx.Response], most_limited: int = MOST_LIMITED
    ) -> httpx.Response:
        """The first answer that is no reason to wait.

        Raises:
            ServerUnreachableError: no answer, or only 5xx, for `patience_s` seconds.
            StillLimitedError: 429, `most_limited` times.
            RefusedError: the server asks for a longer wait than LONGEST_WAIT_S.
        """
        pauses, limited = Backoff(_FIRST_S, _CAP_S), 0
        gives_up_at: float | None = None
        while True:
            answer, failure = self._attempt(send)
            if answer is not None and answer.status_code == 429:
                limited += 1
                if limited >= most_limited:
                    raise StillLimitedError(429, problem_of(answer))
                self._wait("the server's rate limit", self._asked_s(answer) or pauses.next_s())
                continue
            if failure is None and answer is not None:
                return answer
            if gives_up_at is None:
                gives_up_at = self._now() + self._patience_s
            pause_s = self._spread(pauses.next_s())
            pause_s = max(pause_s, self._asked_s(answer) if answer is not None else 0.0)
            if self._now() + pause_s > gives_up_at:
                raise failure or self._kept_failing(answer)
            self._wait("the server does not answer", pause_s)

    def _attempt(
        self, send: Callable[[], httpx.Response]
    ) -> tuple[httpx.Response | None, ServerUnreachableError | None]:
        try:
            answer = send()
        except httpx.TransportError as error:
            return None, unreachable(self._url, error)
        if answer.status_code in _TRY_AGAIN:
            return answer, self._kept_failing(answer)
        return answer, None

    def _kept_failing(self, answer: httpx.Response | None) -> ServerUnreachableError:
        status = answer.status_code if answer is not None else 0
        why = problem_of(answer) if answer is not None else "no answer"
        return ServerUnreachableError(f"{self._url} goes on answering {status}: {why}")

    def _asked_s(self, answer: httpx.Response) -> float:
        asked_s = retry_after_s(answer.headers.get("retry-after", ""))
        if asked_s > LONGEST_WAIT_S:
            raise RefusedError(
                answer.status_code,
                f"The server asks to wait {asked_s:.0f} s. Run the command again after that.",
            )
        return asked_s

    def _spread(self, pause_s: float) -> float:
        return pause_s * (0.5 + self._jitter() / 2)

    def _wait(self, why: str, seconds: float) -> None:
        self._waiting(why, seconds)
        self._sleep(seconds)


def retry_after_s(value: str) -> float:
    """Seconds of a Retry-After header, a number or a date; 0 where it says nothing of use."""
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return 0.0
    if moment.tzinfo is None:
        return 0.0
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
