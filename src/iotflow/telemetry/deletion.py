"""Deleting points, and with them what the caches know of them."""

import structlog

from iotflow.domain.clock import WriteClock
from iotflow.domain.times import TimeRange
from iotflow.errors import StoreUnavailableError
from iotflow.stores.cache.protocol import CacheStore
from iotflow.stores.telemetry.protocol import TelemetryStore
from iotflow.telemetry.names import MeasurementNames

_log = structlog.get_logger(__name__)


class Deletion:
    """Range deletes, in the order of writes: what is sent afterwards stays."""

    def __init__(
        self,
        store: TelemetryStore,
        cache: CacheStore,
        names: MeasurementNames,
        write_clock: WriteClock,
    ) -> None:
        self._store = store
        self._cache = cache
        self._names = names
        self._write_clock = write_clock

    async def delete_range(self, device_id: int, within: TimeRange) -> int | None:
        """Delete a device's points in a range; returns how many, or None where nobody knows."""
        written_us = self._write_clock.next_us()
        try:
            return await self._store.delete_range(device_id, within, written_us)
        finally:
            # Also after an error: perhaps it was done after all.
            self._names.forget(device_id)
            try:
                await self._cache.drop_latest(device_id, written_us)
            except StoreUnavailableError:
                _log.warning("latest_not_dropped", device_id=device_id)
