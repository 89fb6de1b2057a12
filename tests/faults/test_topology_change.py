"""A fourth Cassandra node joins and another leaves, while devices send.

Last of the modules that share the ring, as it leaves another ring behind.
"""

import asyncio
import time
from pathlib import Path

import pytest

from tests.faults.load import Load, failures, fleet_of, missing, p99_s, told
from tests.faults.ring import Ring, serving

pytestmark = [pytest.mark.servers, pytest.mark.faults]


async def test_a_fourth_node_joins_and_the_second_leaves(own_ring: Ring, tmp_path: Path) -> None:
    await asyncio.to_thread(own_ring.start)
    with serving(own_ring, tmp_path / "data") as service:
        load = Load(await asyncio.to_thread(fleet_of, service.url, 10))
        async with load.against(service.url):
            await asyncio.sleep(3)
            began_s = time.monotonic()
            await asyncio.to_thread(own_ring.join_fourth)
            joined_s = time.monotonic()
            await asyncio.sleep(3)
            await asyncio.to_thread(own_ring.decommission, 2)
            left_s = time.monotonic()
            await asyncio.sleep(5)
        states = await asyncio.to_thread(own_ring.states)
        lost = await missing(service.url, load)
    told(
        "a fourth node joins, the second is decommissioned",
        load,
        len(lost),
        joined_in=joined_s - began_s,
        left_in=left_s - joined_s - 3,
        p99=p99_s(load.answers),
        failed_attempts=len(failures(load.answers)),
    )
    assert states == {"127.0.0.1": "UN", "127.0.0.3": "UN", "127.0.0.4": "UN"}
    assert load.given_up == 0, "no submission fails after retries"
    assert not lost
