"""The admission limit: what is too much is refused at once, before anything is done for it.

A service that takes in more than it can do answers everybody late and in the end nobody. Here a
request that comes while too many are under way, or that has waited too long for its turn on the
event loop, costs no more than a short answer; those that were let in stay quick
(docs/decisions/0015).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from time import monotonic

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import Message, Receive, Scope, Send

from iotflow.http.answers import send_answer
from iotflow.http.bodies import arrived_body
from iotflow.http.load import Gate, Lateness, Load, Pace, Turn
from iotflow.http.paths import API
from iotflow.http.problems import MEDIA_TYPE, Problem
from iotflow.http.requests import request_id
from iotflow.http.security import SecurityHeaders
from iotflow.observability.metrics import gauge, labelled

PROBES = frozenset(
    {"/health", "/health/live", "/health/ready", "/metrics", f"{API}/telemetry/status"}
)
"""What must answer above all while there is too much to do."""

_SUBMIT = f"{API}/telemetry"

INGEST = frozenset({_SUBMIT, f"{_SUBMIT}/batch"})
"""Submissions. Some places are theirs alone: those who wait for a registry that stands still,
hundreds of them perhaps, must not take all from devices that do not need it."""

AT_ONCE = PROBES | {_SUBMIT}
"""What begins in the turn of the event loop in which it came, however many others do, too: it
takes less time than to put it off. (A batch may take milliseconds.)"""

ARRIVED_S = "iotflow.arrived_s"
"""Under which a server may put into a request's scope when its headers came, by `monotonic`.
Under one that does not, nothing is ever late."""

_MAX_PROBES = 64
# As long as a submission at a thousand a second may take in all.
_TURN_S = 0.005
_REASONS = ("in_flight", "queue_delay", "put_off")
_RETRY_AFTER_S = 1
_REFUSAL = Problem(
    503,
    "overloaded",
    f"The service has as much to do as it can. Try again in {_RETRY_AFTER_S} s.",
)
_BROKEN_OFF = Problem(
    503,
    "overloaded",
    "The service stops before this was finished: whether it was done is unknown. Send it again.",
)
_TYPE = MEDIA_TYPE.encode("ascii")


class NoRoomError(BaseException):
    """A request that was let in finds no room any more, now that its body has come.

    No Exception: the framework turns those into answers of its own while it reads a body.
    """


class Slot:
    """A request that was let in. It counts while there is work to do for it: not while its
    client is still sending the body, and not once the answer has begun, which the client's
    reading paces."""

    __slots__ = ("_gate", "_has_body", "_is_counted", "_receive", "has_begun")

    def __init__(self, gate: Gate, receive: Receive) -> None:
        gate.enter()
        self._gate = gate
        self._receive = receive
        self._is_counted = True
        self._has_body = False
        self.has_begun = False
        """Whether the answer has begun."""

    async def receive(self) -> Message:
        """In place of the request's own.

        Raises:
            NoRoomError: while it waited for its client, others took all places. What need not be
                waited for costs no place.
        """
        if self._has_body or self.has_begun:
            return await self._receive()
        gate = self._gate
        gate.leave()
        self._is_counted = False
        message = await self._receive()
        if not self.has_begun:
            if gate.is_full():
                raise NoRoomError
            gate.enter()
            self._is_counted = True
        self._has_body = not message.get("more_body", False)
        return message

    def arrived_body(self) -> bytes | None:
        """The request's body if it need not be waited for; that costs no place either."""
        body = arrived_body(self._receive)
        self._has_body = body is not None
        return body

    def sending(self, send: Send) -> Send:
        """`send`, with which the request leaves as its answer begins."""

        async def send_and_leave(message: Message) -> None:
            self.has_begun = True
            self.leave()
            await send(message)

        return send_and_leave

    def leave(self) -> None:
        """The work is done; more than once is harmless."""
        if self._is_counted:
            self._is_counted = False
            self._gate.leave()
            self._gate.load.done += 1


class Admission:
    """Lets requests in, or refuses them with 503. Probes have a limit of their own.

    At most `limit` requests are in flight, or fewer while they take longer than `max_mean_s`, but
    always some submissions; none is let in that waited for `max_queue_s` for its turn where others
    have, too. Those that came when a turn of the event loop was long enough wait for a later one,
    at most `limit` and for `max_put_off_s`.
    """

    def __init__(
        self,
        security: SecurityHeaders,
        *,
        limit: int,
        max_mean_s: float,
        max_queue_s: float,
        max_put_off_s: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.work = Load(limit)
        self.ingest = Gate(self.work, reserved=Pace.LEAST)
        self.others = Gate(self.work)
        self.probes = Gate(Load(_MAX_PROBES))
        self.shed: Counter[str] = Counter()
        self.turn = Turn(_TURN_S, clock)
        """Asked before `enter` for what does not begin AT_ONCE."""
        self.put_off = 0
        """Requests that did not begin in the turn of the event loop in which they came, ever."""
        self._limit = limit
        self._waiting = 0
        self._max_put_off_s = max_put_off_s
        self._pace = Pace(self.work, max_mean_s)
        self._lateness = Lateness(max_queue_s)
        self._security = security
        self._clock = clock

    async def wait_for_turn(self, scope: Scope) -> bool:
        """Have a request begin once `turn` is not over, before those that came after.

        Returns False if it is to be refused.
        """
        self.put_off += 1
        may_begin = self._waiting < self._limit and await self._wait(scope)
        if not may_begin:
            self.shed["put_off"] += 1
        return may_begin

    async def _wait(self, scope: Scope) -> bool:
        ends_s = scope.get(ARRIVED_S, self._clock()) + self._max_put_off_s
        self._waiting += 1
        try:
            while True:
                await asyncio.sleep(0)
                if not self.turn.is_over():
                    # What it waits for from here on is what the loop does, not others of its kind.
                    scope[ARRIVED_S] = self._clock()
                    return True
                if self._clock() >= ends_s:
                    return False
        finally:
            self._waiting -= 1

    def enter(self, scope: Scope, receive: Receive) -> Slot | None:
        """None for a request that is to be refused."""
        now_s, path = self._clock(), scope["path"]
        waited_s = now_s - scope.get(ARRIVED_S, now_s)
        self._pace.adjust(now_s, waited_s)
        gate = self.ingest if path in INGEST else self.others
        is_full = gate.is_full()
        if not is_full and not self._lateness.is_late(waited_s, now_s):
            return Slot(gate, receive)
        if path in PROBES and not self.probes.is_full():
            return Slot(self.probes, receive)
        self.shed["in_flight" if is_full else "queue_delay"] += 1
        return None

    async def refuse(self, scope: Scope, send: Send) -> None:
        """Answer a request that was not let in; its body is not read."""
        await self._answer(_REFUSAL, scope, send)

    async def refuse_late(self, scope: Scope, send: Send) -> None:
        """Answer a request that was let in, and had no place when its body had come."""
        self.shed["in_flight"] += 1
        await self._answer(_REFUSAL, scope, send)

    async def break_off(self, scope: Scope, send: Send) -> None:
        """Answer a request that was let in, and is not waited for any longer."""
        await self._answer(_BROKEN_OFF, scope, send)

    async def _answer(self, problem: Problem, scope: Scope, send: Send) -> None:
        identifier = request_id(scope)
        headers = (
            (b"content-type", _TYPE),
            (b"retry-after", b"%d" % _RETRY_AFTER_S),
            (b"x-request-id", identifier.encode("ascii")),
        )
        fixed = self._security.of_data(scope)
        await send_answer(send, problem.status, fixed, headers, problem.body(identifier))

    def metrics(self) -> Iterable[Metric]:
        yield gauge(
            "iotflow_admission_limit", "Requests that are let in at once", float(self.work.limit)
        )
        gates = {"ingest": self.ingest, "other": self.others}
        yield labelled(
            GaugeMetricFamily,
            "iotflow_admission_in_flight",
            "Requests that are being worked on",
            "kind",
            [(kind, float(gate.in_flight)) for kind, gate in gates.items()],
        )
        reasons = [(name, float(self.shed[name])) for name in _REASONS]
        yield labelled(
            CounterMetricFamily,
            "iotflow_http_shed",
            "Requests refused before anything was done for them",
            "reason",
            reasons,
        )
        yield CounterMetricFamily(
            "iotflow_http_put_off",
            "Requests that began in a later turn of the event loop, for this one was long enough",
            self.put_off,
        )
