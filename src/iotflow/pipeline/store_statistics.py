"""Asks each store for its statistics, again and again, off the request path."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from time import monotonic

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from iotflow.errors import IoTFlowError
from iotflow.observability.metrics import labelled
from iotflow.pipeline.backoff import idle
from iotflow.stores.breaker import BreakerState
from iotflow.stores.lifecycle import Store
from iotflow.stores.statistics import Statistic

_LIMIT_S = 5.0
# What is older than so many intervals is not shown: it may be long untrue.
_SHOWN_INTERVALS = 3.0
_log = structlog.get_logger(__name__)


class StoreStatistics:
    """What one store last told. `every_s` lies between two questions.

    A store whose breaker is not closed is not asked. One that does not answer within `limit_s`
    is asked again after the interval; its last values are shown for three intervals. The log
    tells once that it began to fail, and nothing more until it answers again.
    """

    def __init__(
        self,
        role: str,
        store: Store,
        every_s: float,
        *,
        limit_s: float = _LIMIT_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.role = role
        self.failures = 0
        self._store = store
        self._every_s = every_s
        self._limit_s = limit_s
        self._clock = clock
        self._values: Sequence[Statistic] = ()
        self._asked_s: float | None = None
        self._is_failing = False

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop`; a supervised worker runs this."""
        while not stop.is_set():
            await self.ask()
            await idle(stop, self._every_s)

    async def ask(self) -> None:
        """Ask once; raises nothing."""
        if self._store.breaker_state is not BreakerState.CLOSED:
            return
        try:
            async with asyncio.timeout(self._limit_s):
                self._values = await self._store.statistics()
        except (IoTFlowError, TimeoutError) as error:
            self._failed(error)
        except Exception as error:
            # An answer in a form that nobody foresaw: it concerns nobody but this page.
            self._failed(error)
        else:
            self._asked_s = self._clock()
            self._is_failing = False

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if not self._is_failing:
            self._is_failing = True
            _log.info("store_tells_nothing", store=self.role, error=type(error).__name__)

    @property
    def age_s(self) -> float | None:
        """How old the values are; None where there are none."""
        return None if self._asked_s is None else self._clock() - self._asked_s

    def values(self) -> Sequence[Statistic]:
        """What the store last told, unless that is too old."""
        age_s = self.age_s
        if age_s is None or age_s > self._every_s * _SHOWN_INTERVALS + self._limit_s:
            return ()
        return self._values


class StatisticsCollector:
    """The statistics of all stores, as metrics. Each of `stores` is run by a supervised worker."""

    def __init__(self, stores: Sequence[StoreStatistics]) -> None:
        self.stores = stores

    def metrics(self) -> Iterator[Metric]:
        ages = [(each.role, each.age_s) for each in self.stores]
        yield labelled(
            GaugeMetricFamily,
            "iotflow_store_statistics_age_seconds",
            "How old a store's statistics are",
            "store",
            [(role, age_s) for role, age_s in ages if age_s is not None],
        )
        yield labelled(
            CounterMetricFamily,
            "iotflow_store_statistics_failures",
            "Times that a store was asked for statistics in vain",
            "store",
            [(each.role, float(each.failures)) for each in self.stores],
        )
        yield from self._told()

    def _told(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for store in self.stores:
            for statistic in store.values():
                labels = (("store", store.role), *statistic.labels)
                family = families.get(statistic.name) or families.setdefault(
                    statistic.name, _family(statistic, [name for name, _ in labels])
                )
                family.add_metric([value for _, value in labels], statistic.value)
        yield from families.values()


def _family(statistic: Statistic, labels: list[str]) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if statistic.is_counter else GaugeMetricFamily
    return kind(statistic.name, statistic.help, labels=labels)
