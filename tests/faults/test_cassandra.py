"""A ring of three Cassandra nodes that die, freeze and come back while devices send."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.load import Load, failures, fleet_of, missing, p99_s, settled_s, told
from tests.faults.ring import NODES, Ring, serving
from tests.process.conftest import Served

pytestmark = [pytest.mark.servers, pytest.mark.faults]

DEVICES = 10
# A machine on which the nodes, the service and the load share two cores has slow moments.
SLOW_S = 0.8


@pytest.fixture(name="service")
def _service(ring: Ring, tmp_path: Path) -> Iterator[Served]:
    """The service on the ring; its other stores are its own and stay."""
    with serving(ring, tmp_path / "data") as service:
        yield service


async def normal(load: Load) -> float:
    """Three seconds of load without a fault; their p99."""
    began_s = time.monotonic()
    await asyncio.sleep(3)
    answers = load.since(began_s)
    assert not failures(answers)
    return p99_s(answers)


async def test_one_node_of_three_dies_and_comes_back(ring: Ring, service: Served) -> None:
    load = Load(await asyncio.to_thread(fleet_of, service.url, DEVICES))
    async with load.against(service.url):
        usual_s = await normal(load)
        killed_s = time.monotonic()
        await asyncio.to_thread(ring.kill, NODES[2])
        await asyncio.sleep(12)
        returns_s = time.monotonic()
        await asyncio.to_thread(ring.start)
        back_s = time.monotonic()
        await asyncio.sleep(12)
    lost = await missing(service.url, load)
    after_death = settled_s(load.since(killed_s, returns_s), SLOW_S) - killed_s
    after_return = settled_s(load.since(back_s), SLOW_S) - back_s
    told(
        "one of three killed",
        load,
        len(lost),
        p99_before=usual_s,
        p99_without=p99_s(load.since(killed_s + 10, returns_s)),
        p99_after=p99_s(load.since(back_s + 10)),
        settled_after_death=max(0.0, after_death),
        settled_after_return=max(0.0, after_return),
    )
    assert not lost
    assert load.given_up == 0
    assert after_death < 10
    assert after_return < 10


async def test_two_nodes_of_three_die_and_come_back(ring: Ring, service: Served) -> None:
    load = Load(await asyncio.to_thread(fleet_of, service.url, DEVICES))
    async with load.against(service.url):
        await normal(load)
        await asyncio.to_thread(ring.kill, *NODES[1:])
        killed_s = time.monotonic()
        before = load.count
        await asyncio.sleep(8)
        pretended = load.count - before
        refused = load.since(killed_s + 3)
        await asyncio.to_thread(ring.start)
        back_s = time.monotonic()
        await asyncio.sleep(15)
    lost = await missing(service.url, load)
    recovery_s = settled_s(load.since(back_s - 1), SLOW_S) - back_s
    told("two of three killed", load, len(lost), recovery=max(0.0, recovery_s))
    assert pretended <= DEVICES, "without a quorum nothing is acknowledged"
    assert len(refused) > DEVICES
    assert {answer.status for answer in refused} == {503}
    assert all(answer.retry_after for answer in refused)
    assert max(answer.took_s for answer in refused) < 3
    assert not lost
    assert load.given_up == 0
    assert recovery_s < 15


async def test_nodes_freeze_and_thaw(ring: Ring, service: Served) -> None:
    load = Load(await asyncio.to_thread(fleet_of, service.url, DEVICES))
    async with load.against(service.url):
        await normal(load)
        one_s = time.monotonic()
        with ring.frozen(NODES[2]):
            await asyncio.sleep(10)
        thawed_s = time.monotonic()
        await asyncio.sleep(3)
        all_s = time.monotonic()
        with ring.frozen(*NODES):
            await asyncio.sleep(6)
        all_thawed_s = time.monotonic()
        await asyncio.sleep(12)
    lost = await missing(service.url, load)
    with_one, with_all = load.since(one_s, thawed_s), load.since(all_s + 0.1, all_thawed_s - 2)
    recovery_s = settled_s(load.since(all_thawed_s), SLOW_S) - all_thawed_s
    told(
        "frozen",
        load,
        len(lost),
        failed_with_one=len(failures(with_one)),
        slow_with_one_until=max(0.0, settled_s(with_one, SLOW_S) - one_s),
        longest_with_one=max(answer.took_s for answer in with_one),
        longest_with_all=max(answer.took_s for answer in with_all),
        recovery=max(0.0, recovery_s),
    )
    assert max(answer.took_s for answer in with_one) < 4
    assert settled_s(with_one, SLOW_S) - one_s < 5, "it is left alone"
    assert {answer.status for answer in with_all} == {503}
    assert max(answer.took_s for answer in with_all) < 4
    quick = [answer for answer in with_all if answer.took_s < 0.1]
    assert len(quick) > len(with_all) / 2, "the breaker spares them the wait"
    assert not lost
    assert load.given_up == 0
    assert recovery_s < 10
