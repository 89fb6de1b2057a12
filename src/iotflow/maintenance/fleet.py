"""Walks over the registry's devices, in order, from where a job was saved last."""

from collections.abc import AsyncGenerator, Sequence

from iotflow.domain.devices import Device
from iotflow.stores.registry.protocol import DeviceQuery, Registry

_DEVICES_A_PAGE = 100


async def device_pages(
    registry: Registry, after_id: int, chosen: Sequence[int] | None
) -> AsyncGenerator[list[Device]]:
    """Devices with ids above `after_id`: the chosen ones that are there, or (None) all.

    Raises:
        StoreUnavailableError: the registry is away.
    """
    if chosen is not None:
        for device_id in sorted(each for each in chosen if each > after_id):
            device = await registry.device(device_id)
            if device is not None:
                yield [device]
        return
    more = True
    while more:
        page, more = await registry.devices(DeviceQuery(limit=_DEVICES_A_PAGE, after_id=after_id))
        if page:
            yield page
            after_id = page[-1].id


async def how_many(registry: Registry, chosen: Sequence[int] | None) -> int:
    """How many devices there are to walk over, now."""
    return sum((await registry.counts()).devices.values()) if chosen is None else len(chosen)
