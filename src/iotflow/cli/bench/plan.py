"""What a load generator is told, and what it found: both cross a process boundary."""

import math
from collections.abc import Iterator, Sequence
from itertools import cycle

import msgspec


class FixedRequests(msgspec.Struct, tag="fixed", frozen=True):
    """Requests that are sent over and over, in turn."""

    payloads: list[bytes]


class TimedRequests(msgspec.Struct, tag="timed", frozen=True):
    """Requests with fresh timestamps each time, in turn.

    A template holds `slots` places `%d` for epoch milliseconds, all with the same
    number of digits, so that Content-Length stays true. Each round through the
    templates goes on where the last one ended.
    """

    templates: list[bytes]
    slots: int
    first_ms: int
    step_ms: int

    def after(self, issued: int) -> "TimedRequests":
        """The same requests, beginning above everything that `issued` requests have used."""
        rounds = math.ceil(issued / len(self.templates))
        first_ms = self.first_ms + rounds * self.slots * self.step_ms
        return msgspec.structs.replace(self, first_ms=first_ms)


Requests = FixedRequests | TimedRequests


class Plan(msgspec.Struct, frozen=True):
    """One measurement. Without `rate` a closed loop: each connection sends as soon as it may.

    With `rate` an open loop: requests are due at fixed times, however slow the answers
    are, and latency counts from the time they were due.
    """

    host: str
    port: int
    requests: Requests
    connections: int
    seconds: float
    warmup_s: float = 0.5
    rate: float | None = None
    drain_s: float = 5.0

    @property
    def load_s(self) -> float:
        """How long requests are sent, warm-up included."""
        return self.warmup_s + self.seconds


class Latency(msgspec.Struct, frozen=True):
    """Exact percentiles in milliseconds: every request counts, nothing is sampled."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Result(msgspec.Struct, frozen=True):
    """What one measurement found.

    `statuses` counts answers in the measured window by status, 0 for a connection that
    broke. `issued` counts every request sent, warm-up included. `unanswered` were still
    without an answer when the drain time was over. `lag` (open loop) is how late the
    generator itself sent: a part of `latency`, not added to it. `generator_share` is the part
    of a core that the generator took, `generator_rss_bytes` the most memory it held.
    """

    seconds: float
    issued: int
    answered: int
    unanswered: int
    statuses: dict[int, int]
    latency: Latency
    lag: Latency | None
    generator_share: float
    generator_rss_bytes: int

    @property
    def rate(self) -> float:
        """Successes per second: refusing is cheap, and no throughput."""
        return (self.answered - sum(self.failures.values())) / self.seconds

    @property
    def failures(self) -> dict[int, int]:
        """Answers that were no success, by status."""
        return {status: n for status, n in self.statuses.items() if not 200 <= status < 300}


class ValidationPlan(msgspec.Struct, frozen=True):
    """Ask for keys in the process itself. `cold` empties its own cache before each look-up.

    `dsn` and `schema` are those of the naive app's tables; without them the stores are those that
    the IOTFLOW_ settings name.
    """

    keys: list[str]
    tasks: int
    seconds: float
    cold: bool
    warmup_s: float = 0.5
    dsn: str = ""
    schema: str = ""


class ValidationResult(msgspec.Struct, frozen=True):
    """What came of it: keys found valid within `seconds`."""

    seconds: float
    count: int
    latency: Latency

    @property
    def rate(self) -> float:
        """Validations per second."""
        return self.count / self.seconds


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of values in rising order: a value that occurred.

    It is the smallest that at least `share` of all do not exceed; 0 for no values.
    """
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(round(share * len(ordered), 9)) - 1)]


def summarise(latencies_s: Sequence[float]) -> Latency:
    """Percentiles in milliseconds of latencies in seconds, in any order."""
    ordered = sorted(latencies_s)
    mean = sum(ordered) / len(ordered) if ordered else 0.0
    p50, p90, p99, p999, most = (
        percentile(ordered, share) * 1000 for share in (0.5, 0.9, 0.99, 0.999, 1.0)
    )
    return Latency(len(ordered), mean * 1000, p50, p90, p99, p999, most)


def payloads(requests: Requests) -> Iterator[bytes]:
    """The requests' bytes, without end."""
    if isinstance(requests, FixedRequests):
        return cycle(requests.payloads)
    return _timed(requests)


def _timed(requests: TimedRequests) -> Iterator[bytes]:
    span_ms = requests.slots * requests.step_ms
    first_ms = requests.first_ms
    while True:
        times = tuple(range(first_ms, first_ms + span_ms, requests.step_ms))
        for template in requests.templates:
            yield template % times
        first_ms += span_ms
