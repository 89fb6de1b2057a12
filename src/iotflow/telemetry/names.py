"""Which measurement names a device has used: it may have a bounded number of them."""

from collections.abc import Sequence
from time import monotonic

from iotflow.stores.cache.expiring import ExpiringIds
from iotflow.stores.cache.local import SingleFlight
from iotflow.stores.telemetry.protocol import TelemetryStore

_CAPACITY = 100_000
_TTL_S = 600.0


class MeasurementNames:
    """Remembers names per device, bounded, asking the store once for each device.

    Devices with the same names share one set, so that a fleet costs a pointer a device. Another
    process may add names meanwhile: the limit can be passed by what it adds within ten minutes.
    """

    def __init__(self, store: TelemetryStore, limit: int) -> None:
        self.limit = limit
        self._store = store
        self._known: ExpiringIds[frozenset[str]] = ExpiringIds(_TTL_S, _CAPACITY)
        self._shared: dict[frozenset[str], frozenset[str]] = {}
        self._lookups: SingleFlight[int, frozenset[str]] = SingleFlight()

    def are_known(self, device_id: int, names: Sequence[str]) -> bool:
        """Whether a device has used all these names before, as far as this process knows."""
        known = self._known.get(device_id, monotonic())
        return known is not None and known.issuperset(names)

    async def admit(self, device_id: int, names: Sequence[str]) -> set[str]:
        """Take in new names up to the limit; returns those that are too many."""
        if self._known.get(device_id, monotonic()) is None:
            await self._lookups.run(device_id, lambda: self._load(device_id))
        # From here to the end nothing waits, so two submissions cannot take the same room.
        known = self._known.get(device_id, monotonic()) or frozenset()
        new = [name for name in dict.fromkeys(names) if name not in known]
        room = max(0, self.limit - len(known))
        self._remember(device_id, known.union(new[:room]))
        return set(new[room:])

    async def _load(self, device_id: int) -> frozenset[str]:
        names = frozenset(await self._store.measurements(device_id))
        self._remember(device_id, names)
        return names

    def _remember(self, device_id: int, names: frozenset[str]) -> None:
        if len(self._shared) >= _CAPACITY:
            self._shared.clear()
        self._known.put(device_id, self._shared.setdefault(names, names), monotonic())

    def forget(self, device_id: int) -> None:
        """Ask the store again: names may have gone with a deletion."""
        self._known.pop(device_id)
