"""Metrics: plain numbers on the hot path, turned into Prometheus families at a scrape.

Incrementing a labelled prometheus_client counter costs about a microsecond and a lock. Here
an increment is an addition to an attribute or a list; a collector reads them when asked.
"""

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from iotflow.observability.slow import SlowCalls

LATENCY_BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Source = Callable[[], Iterable[Metric]]


class Latencies:
    """A histogram of durations in seconds."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self.total_s = 0.0

    def observe(self, duration_s: float) -> None:
        self.counts[bisect_left(LATENCY_BUCKETS_S, duration_s)] += 1
        self.total_s += duration_s

    @contextmanager
    def timed(self) -> Generator[None]:
        began = perf_counter()
        try:
            yield
        finally:
            self.observe(perf_counter() - began)

    def cumulative(self) -> list[tuple[str, float]]:
        """Buckets as Prometheus wants them: each counts all that is below it."""
        buckets: list[tuple[str, float]] = []
        running = 0
        for bound, count in zip((*map(str, LATENCY_BUCKETS_S), "+Inf"), self.counts, strict=True):
            running += count
            buckets.append((bound, running))
        return buckets


class StoreLatencies(Latencies):
    """Durations of one operation on a store; slow ones are told to `slow`."""

    __slots__ = ("_operation", "_slow", "_store")

    def __init__(self, store: str, operation: str, slow: SlowCalls) -> None:
        super().__init__()
        self._store = store
        self._operation = operation
        self._slow = slow

    def observe(self, duration_s: float) -> None:
        # As above, without a call of it: this runs for each store call of each request.
        self.counts[bisect_left(LATENCY_BUCKETS_S, duration_s)] += 1
        self.total_s += duration_s
        if duration_s >= self._slow.threshold_s:
            self._slow.note(self._store, self._operation, duration_s)


class RouteMetrics:
    """Rate, errors and duration of one route."""

    __slots__ = ("latencies", "statuses")

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.statuses: dict[int, int] = {}

    def observe(self, status: int, duration_s: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.latencies.observe(duration_s)


class Metrics(Collector):
    """All metrics of one process. `sources` are asked at each scrape.

    Store calls of `slow_s` and longer are logged; by default none is.
    """

    def __init__(self, slow_s: float = float("inf")) -> None:
        self._slow = SlowCalls(slow_s)
        self._routes: dict[tuple[str, str], RouteMetrics] = {}
        self._stores: dict[tuple[str, str], StoreLatencies] = {}
        self._sources: list[Source] = []
        self.in_flight = 0
        # Requests that a stop did not wait for any longer.
        self.cut_off = 0
        self.points_accepted = 0
        self.points_rejected = 0
        self._registry = CollectorRegistry(auto_describe=False)
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            self._registry.register(collector)
        self._registry.register(self)

    def route(self, method: str, template: str) -> RouteMetrics:
        """The metrics of a route; templates come from the route table, so they are few."""
        return self._routes.setdefault((method, template), RouteMetrics())

    def store(self, role: str, operation: str) -> Latencies:
        """The latencies of one operation on a store."""
        found = self._stores.get((role, operation))
        if found is None:
            found = self._stores[role, operation] = StoreLatencies(role, operation, self._slow)
        return found

    def add_source(self, source: Source) -> None:
        self._sources.append(source)

    def families(self) -> Iterable[Metric]:
        """Everything, with the process's own."""
        return self._registry.collect()

    def collect(self) -> Iterator[Metric]:
        yield from self._http()
        yield self._histogram(
            "iotflow_store_seconds", "Duration of store calls", ["store", "operation"], self._stores
        )
        yield from self._slow.metrics()
        points = CounterMetricFamily("iotflow_points", "Measurements sent", labels=["verdict"])
        points.add_metric(["accepted"], self.points_accepted)
        points.add_metric(["rejected"], self.points_rejected)
        yield points
        for source in self._sources:
            yield from source()

    def _http(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "iotflow_http_requests", "Answers", labels=["method", "route", "status"]
        )
        for (method, template), route in self._routes.items():
            for status, count in route.statuses.items():
                requests.add_metric([method, template, str(status)], count)
        yield requests
        latencies = {key: route.latencies for key, route in self._routes.items()}
        yield self._histogram(
            "iotflow_http_request_seconds", "Duration of requests", ["method", "route"], latencies
        )
        yield gauge("iotflow_http_in_flight", "Requests under way", self.in_flight)

    @staticmethod
    def _histogram(
        name: str, help_text: str, labels: list[str], series: Mapping[tuple[str, str], Latencies]
    ) -> Metric:
        family = HistogramMetricFamily(name, help_text, labels=labels)
        for key, latencies in series.items():
            family.add_metric(list(key), latencies.cumulative(), latencies.total_s)
        return family


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(families: Iterable[Metric]) -> bytes:
    """Metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


def gauge(name: str, help_text: str, value: float) -> Metric:
    """A gauge without labels."""
    family = GaugeMetricFamily(name, help_text)
    family.add_metric([], value)
    return family


def labelled(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    help_text: str,
    label: str,
    values: Iterable[tuple[str, float]],
) -> Metric:
    """A counter or gauge family with one label."""
    family = kind(name, help_text, labels=[label])
    for key, value in values:
        family.add_metric([key], value)
    return family
