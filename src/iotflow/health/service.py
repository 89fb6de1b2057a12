"""Health: of the stores, the workers, and so of the service."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from iotflow.health.watch import StoreWatch
from iotflow.observability.metrics import labelled
from iotflow.pipeline.lane import LaneLease
from iotflow.pipeline.supervisor import Supervisor
from iotflow.stores.breaker import BreakerState


class Status(StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


# The guide's names for the roles, and what it says that each does.
_GUIDE = {
    "telemetry": ("cassandra", "Time-series telemetry storage"),
    "cache": ("redis", "Caching layer"),
    "events": ("mongodb", "Event logging and analytics"),
    "registry": ("postgres", "User and device management"),
}
_BREAKERS = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 0.5, BreakerState.OPEN: 1.0}
# Without these a device cannot be served; without the others it does not notice.
_REQUIRED = ("telemetry", "registry")


@dataclass(frozen=True, slots=True)
class Database:
    """A store under the guide's name. `backend` says what really fills the role."""

    name: str
    available: bool
    role: str
    backend: str
    ping_s: float | None
    breaker: BreakerState


class Health:
    """`draining` is set while the service stops: no longer ready, still alive."""

    def __init__(
        self,
        watches: Sequence[StoreWatch],
        supervisor: Supervisor,
        lane: LaneLease,
    ) -> None:
        self.watches = watches
        self._watches = {watch.role: watch for watch in watches}
        self._supervisor = supervisor
        self._lane = lane
        self.draining = False

    def watch(self, role: str) -> StoreWatch:
        """The watch of a store's role."""
        return self._watches[role]

    async def wait_for_first_attempts(self, seconds: float) -> None:
        """Until every store has been tried once, or the time is over."""
        try:
            async with asyncio.timeout(seconds):
                for watch in self.watches:
                    await watch.first_attempt.wait()
                if self._watches["registry"].available:
                    await self._lane.first_attempt.wait()
        except TimeoutError:
            pass  # they are waited for in the background; readiness says which

    def metrics(self) -> Iterator[Metric]:
        up = [(watch.role, float(watch.available)) for watch in self.watches]
        yield labelled(
            GaugeMetricFamily, "iotflow_store_up", "Whether a store answers", "store", up
        )
        breakers = [(watch.role, _BREAKERS[watch.breaker]) for watch in self.watches]
        yield labelled(
            GaugeMetricFamily,
            "iotflow_breaker",
            "0 closed, 0.5 half open, 1 open: the store is not asked",
            "store",
            breakers,
        )
        restarts = [
            (name, float(state.restarts)) for name, state in self._supervisor.states().items()
        ]
        yield labelled(
            CounterMetricFamily, "iotflow_worker_restarts", "Workers restarted", "worker", restarts
        )

    def databases(self) -> list[Database]:
        """In the guide's order."""
        return [
            Database(name, watch.available, role, watch.backend, watch.ping_s, watch.breaker)
            for key, (name, role) in _GUIDE.items()
            if (watch := self._watches[key])
        ]

    def workers(self) -> dict[str, dict[str, object]]:
        """Each background worker's state, restarts and last error's type."""
        return {
            name: {
                "state": str(state.state),
                "restarts": state.restarts,
                "last_error": state.last_error,
            }
            for name, state in self._supervisor.states().items()
        }

    def status(self) -> Status:
        """Unhealthy without a required store, degraded without an optional one or a worker."""
        if not all(self._watches[role].available for role in _REQUIRED):
            return Status.UNHEALTHY
        working = all(worker["state"] == "running" for worker in self.workers().values())
        available = all(watch.available for watch in self._watches.values())
        return Status.HEALTHY if working and available else Status.DEGRADED

    def not_ready_because(self) -> list[str]:
        """Why no requests should be sent here; empty where they should."""
        reasons = [
            f"the {role} store ({self._watches[role].backend}) is not available"
            for role in _REQUIRED
            if not self._watches[role].available
        ]
        if not self._lane.is_held():
            reasons.append("no share of the timestamps is held yet")
        if self.draining:
            reasons.append("the service is stopping")
        return reasons
