"""A row of one system at one number of connections, while it is measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from iotflow.cli.bench.fleet import Fleet, reporting
from iotflow.cli.bench.generator import generate
from iotflow.cli.bench.hit_rates import between, lookups_of
from iotflow.cli.bench.options import BenchError
from iotflow.cli.bench.plan import Plan, Requests, Result, TimedRequests, payloads
from iotflow.cli.bench.scenarios import Row
from iotflow.cli.bench.servers import HOST
from iotflow.cli.bench.tables import Slice
from iotflow.cli.bench.usage import Usage, usage_of

SERVER, GENERATOR = "server", "generator"
_WARMUP_S = 0.5


@dataclass(slots=True)
class Feed:
    """Requests that move on with what was issued: no load takes times that another has taken.

    Lanes that send the same to one server share it.
    """

    requests: Requests

    def moved_on(self, issued: int) -> None:
        if isinstance(self.requests, TimedRequests):
            self.requests = self.requests.after(issued)


@dataclass(slots=True)
class Lane:
    """`stores` are the processes of the system's stores."""

    system: str
    row: Row
    fleet: Fleet
    connections: int
    feed: Feed
    stores: Mapping[str, set[int]] = field(default_factory=dict[str, set[int]])
    slices: list[Slice] = field(default_factory=list[Slice])

    def load(self, seconds: float, rate: float | None = None) -> Result:
        """One measurement by a generator process, as a closed loop or at a rate.

        Raises:
            BenchError: the generator failed.
        """
        plan = Plan(
            host=HOST,
            port=self.fleet.server.port,
            requests=self.feed.requests,
            connections=self.connections,
            seconds=seconds,
            warmup_s=_WARMUP_S,
            rate=rate,
        )
        result = generate(plan)
        self.feed.moved_on(result.issued)
        return result

    def take_slice(self, seconds: float, open_load: float, fixed_rate: float) -> None:
        """Measure once: at full speed, then at a share of that; or at the fixed rate alone."""
        before, asked = self._usages(), lookups_of(self.fleet.server)
        main = self.load(seconds, fixed_rate if self.row.fixed_rate else None)
        after, lookups = self._usages(), between(asked, lookups_of(self.fleet.server))
        load_s = _WARMUP_S + seconds
        cpu_s = {name: after[name].cpu_s - before[name].cpu_s for name in after if name in before}
        shares = {name: spent_s / load_s for name, spent_s in cpu_s.items()}
        memory = {name: usage.rss_bytes for name, usage in after.items()}
        closed = None if self.row.fixed_rate else main
        opened = main if self.row.fixed_rate else self._half_speed(main, seconds, open_load)
        self.slices.append(
            Slice(
                closed=closed,
                opened=opened,
                cpu_s_per_request=_each(cpu_s.get(SERVER), main.issued),
                cpu_shares={**shares, GENERATOR: main.generator_share},
                memory_bytes={**memory, GENERATOR: main.generator_rss_bytes},
                lookups=lookups,
            )
        )

    def _half_speed(self, closed: Result, seconds: float, open_load: float) -> Result | None:
        return self.load(seconds, max(1.0, closed.rate * open_load)) if open_load else None

    def probe(self) -> None:
        """One request by an ordinary client: a row that measures refusals measures nothing.

        Raises:
            BenchError: the answer is not what the row expects.
        """
        head, _, body = next(payloads(self.feed.requests)).partition(b"\r\n\r\n")
        request_line, *header_lines = head.decode().split("\r\n")
        method, target, _ = request_line.split(" ")
        headers = dict(line.split(": ", 1) for line in header_lines)
        url = self.fleet.server.base_url + target
        with reporting(self.fleet.server):
            answer = httpx.request(method, url, headers=headers, content=body, timeout=30)
        self.feed.moved_on(1)
        if answer.status_code != self.row.expect:
            raise BenchError(
                f"{self.system}, row '{self.row.name}': {answer.status_code} instead of "
                f"{self.row.expect}: {answer.text[:300]}"
            )

    def _usages(self) -> dict[str, Usage]:
        pids = {SERVER: {self.fleet.server.pid}, **self.stores}
        found = {name: usage_of(each) for name, each in pids.items()}
        return {name: usage for name, usage in found.items() if usage is not None}


def _each(total: float | None, count: int) -> float | None:
    return total / count if total is not None and count else None
