"""Devices whose entry may be untrue, because a write of theirs failed or was not answered."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Doubt(NamedTuple):
    """`written_us` is the mark of a drop that was asked for, 0 for none."""

    device_id: int
    written_us: int
    since_s: float


class Doubts:
    """At most `max_devices`. What is beyond, the oldest, is given to `forget`."""

    def __init__(
        self,
        max_devices: int,
        forget: Callable[[], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._max_devices = max_devices
        self._forget = forget
        self._monotonic = monotonic
        self._devices: OrderedDict[int, Doubt] = OrderedDict()

    def __len__(self) -> int:
        return len(self._devices)

    def __contains__(self, device_id: int) -> bool:
        return device_id in self._devices

    def add(self, device_id: int, written_us: int = 0) -> None:
        """Doubt a device from now on; one that is doubted already stays as old as it is."""
        held = self._devices.get(device_id)
        # A new object each time, so that `settle` knows whether there was another doubt.
        self._devices[device_id] = Doubt(
            device_id,
            written_us if held is None else max(written_us, held.written_us),
            self._monotonic() if held is None else held.since_s,
        )
        if len(self._devices) > self._max_devices:
            self._devices.popitem(last=False)
            self._forget()

    def oldest(self, limit: int) -> Sequence[Doubt]:
        return [doubt for _, doubt in zip(range(limit), self._devices.values(), strict=False)]

    def settle(self, doubts: Sequence[Doubt]) -> None:
        """These entries are gone. One that was doubted again meanwhile stays doubted."""
        for doubt in doubts:
            if self._devices.get(doubt.device_id) is doubt:
                del self._devices[doubt.device_id]

    def older_than(self, age_s: float) -> bool:
        oldest = next(iter(self._devices.values()), None)
        return oldest is not None and self._monotonic() - oldest.since_s > age_s

    def keep_drops(self) -> None:
        """Entries of before do not count any more; what drops are to keep off still does."""
        now_s = self._monotonic()
        kept = [doubt for doubt in self._devices.values() if doubt.written_us]
        self._devices.clear()
        for doubt in kept:
            self._devices[doubt.device_id] = doubt._replace(since_s=now_s)
