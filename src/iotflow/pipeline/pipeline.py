"""What happens after the answer: one bounded queue and one worker for each consumer."""

from collections.abc import Awaitable, Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from iotflow.domain.events import Event
from iotflow.observability.metrics import labelled
from iotflow.pipeline.event_log import EventLogWorker
from iotflow.pipeline.last_seen import LastSeenWorker
from iotflow.pipeline.queue import BoundedQueue
from iotflow.pipeline.supervisor import Supervisor
from iotflow.stores.events.protocol import EventStore


class Pipeline:
    """Takes what a request leaves to be done, without waiting; workers do it.

    `lost_event` is told every event that the store will not get.
    """

    def __init__(
        self,
        events: EventStore,
        note_seen: Callable[[Mapping[int, int]], Awaitable[None]],
        *,
        event_capacity: int,
        lost_event: Callable[[Event], None],
    ) -> None:
        self._events: BoundedQueue[Event] = BoundedQueue("events", event_capacity, lost_event)
        self._event_log = EventLogWorker(self._events, events)
        self._lost_event = lost_event
        self._last_seen = LastSeenWorker(note_seen)

    def start(self, supervisor: Supervisor) -> None:
        """Give the workers to their supervisor."""
        supervisor.add("event_log", self._event_log.run)
        supervisor.add("last_seen", self._last_seen.run)

    def log_event(self, event: Event) -> None:
        """Log an event, soon."""
        self._events.put_nowait(event)

    def note_seen(self, key_id: int, seen_ms: int) -> None:
        """Note that a device was heard of by this key."""
        self._last_seen.note(key_id, seen_ms)

    def submitted(self, event: Event, key_id: int) -> None:
        """A submission is durable."""
        self._events.put_nowait(event)
        self._last_seen.note(key_id, event.timestamp_ms)

    @property
    def unwritten_events(self) -> int:
        """Events that the store does not have yet; telemetry can make them again."""
        return self._event_log.unwritten

    def tell_unwritten(self) -> None:
        """Once the workers have ended, or were given up: what they leave is lost."""
        for event in self._event_log.waiting():
            self._lost_event(event)

    def queues(self) -> list[tuple[str, int, int]]:
        """Name, depth and how many were dropped, of each consumer's queue."""
        return [
            (self._events.name, self._events.depth, self._events.dropped),
            ("last_seen", self._last_seen.depth, self._last_seen.dropped),
        ]

    def metrics(self) -> Iterator[Metric]:
        queues = self.queues()
        depths = [(name, float(depth)) for name, depth, _ in queues]
        drops = [(name, float(dropped)) for name, _, dropped in queues]
        yield labelled(GaugeMetricFamily, "iotflow_queue_depth", "Waiting work", "queue", depths)
        yield labelled(
            CounterMetricFamily,
            "iotflow_queue_dropped",
            "Work dropped, oldest first",
            "queue",
            drops,
        )
