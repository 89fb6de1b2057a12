"""The lease on a process's lane: never two processes on one, never a lane that may have run out."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from iotflow.domain.clock import Lane
from iotflow.errors import StoreUnavailableError
from iotflow.pipeline.lane import LaneLease
from iotflow.stores.registry.sql import SqlRegistry

LEASE_S, MARGIN_S = 30.0, 2.0


@dataclass
class Clocks:
    """The wall clock and the one that only goes on, of all processes of a test."""

    now_s: float = 1_767_225_600.0
    monotonic_s: float = 100.0

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        self.monotonic_s += seconds


@dataclass
class Processes:
    """Processes that share a registry."""

    registry: SqlRegistry
    clocks: Clocks = field(default_factory=Clocks)

    def lease(self, slots: int = 2, *, exclusive: bool = False) -> LaneLease:
        return LaneLease(
            self.registry,
            slots,
            exclusive=exclusive,
            now=lambda: self.clocks.now_s,
            monotonic=lambda: self.clocks.monotonic_s,
        )


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncGenerator[Processes]:
    registry = SqlRegistry(f"sqlite:///{tmp_path}/registry.db")
    await registry.open()
    yield Processes(registry)
    await registry.close()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """`keep` asks again after milliseconds."""
    monkeypatch.setattr("iotflow.pipeline.lane._RENEW_S", 0.002)
    monkeypatch.setattr("iotflow.pipeline.lane._RETRY_S", 0.002)


class TestAcquire:
    async def test_without_a_lease_there_is_no_lane(self, processes: Processes) -> None:
        lease = processes.lease()
        assert not lease.is_held()
        with pytest.raises(StoreUnavailableError):
            lease.lane()

    async def test_each_process_gets_a_lane_of_its_own(self, processes: Processes) -> None:
        leases = [processes.lease(4) for _ in range(4)]
        assert all([await lease.acquire() for lease in leases])
        assert sorted(lease.lane().index for lease in leases) == [0, 1, 2, 3]
        assert {lease.lane().count for lease in leases} == {4}

    async def test_where_all_are_taken_there_is_none(self, processes: Processes) -> None:
        assert await processes.lease(1).acquire()
        late = processes.lease(1)
        assert not await late.acquire()
        assert not late.is_held()
        processes.clocks.advance(LEASE_S)
        assert await late.acquire()

    async def test_a_lane_that_a_killed_process_held_is_not_the_next_ones(
        self, processes: Processes
    ) -> None:
        killed, successor = processes.lease(2, exclusive=True), processes.lease(2, exclusive=True)
        await killed.acquire()
        await successor.acquire()
        assert successor.lane() != killed.lane()

    async def test_alone_it_takes_even_what_is_leased(self, processes: Processes) -> None:
        starts: list[Lane] = []
        for _ in range(5):
            lease = processes.lease(2, exclusive=True)
            assert await lease.acquire()
            starts.append(lease.lane())
            processes.clocks.advance(0.001)
        assert all(one != other for one, other in pairwise(starts))

    async def test_a_registry_that_is_away_is_said_so(self, processes: Processes) -> None:
        await processes.registry.close()
        with pytest.raises(StoreUnavailableError):
            await processes.lease().acquire()


class TestLease:
    async def test_it_is_given_up_before_another_may_take_it(self, processes: Processes) -> None:
        lease, other = processes.lease(1), processes.lease(1)
        await lease.acquire()
        processes.clocks.advance(LEASE_S - MARGIN_S - 0.001)
        assert lease.is_held()
        processes.clocks.advance(0.001)
        assert not lease.is_held()
        with pytest.raises(StoreUnavailableError):
            lease.lane()
        assert not await other.acquire()
        processes.clocks.advance(MARGIN_S)
        assert await other.acquire()

    async def test_a_wall_clock_that_is_set_back_does_not_prolong_it(
        self, processes: Processes
    ) -> None:
        lease = processes.lease()
        await lease.acquire()
        processes.clocks.advance(LEASE_S)
        processes.clocks.now_s -= 3_600
        assert not lease.is_held()

    async def test_time_counts_from_the_question_not_from_the_answer(
        self, processes: Processes, tmp_path: Path
    ) -> None:
        """A process frozen while it asked must not think that it has a whole lease left."""

        class Slow(SqlRegistry):
            async def lease_slot(
                self, owner: str, slots: int, until: datetime, now: datetime
            ) -> int | None:
                slot = await processes.registry.lease_slot(owner, slots, until, now)
                processes.clocks.advance(LEASE_S)
                return slot

        lease = LaneLease(
            Slow(f"sqlite:///{tmp_path}/unused.db"),
            2,
            exclusive=False,
            now=lambda: processes.clocks.now_s,
            monotonic=lambda: processes.clocks.monotonic_s,
        )
        assert await lease.acquire()
        assert not lease.is_held()


@pytest.mark.usefixtures("fast")
class TestKeep:
    async def test_it_takes_a_lane_and_says_so(self, processes: Processes) -> None:
        lease, stop = processes.lease(), asyncio.Event()
        keeping = asyncio.create_task(lease.keep(stop))
        await asyncio.wait_for(lease.first_attempt.wait(), 5)
        assert lease.is_held()
        stop.set()
        await asyncio.wait_for(keeping, 5)

    async def test_it_renews_for_as_long_as_it_runs(self, processes: Processes) -> None:
        lease, other, stop = processes.lease(1), processes.lease(1), asyncio.Event()
        keeping = asyncio.create_task(lease.keep(stop))
        await asyncio.wait_for(lease.first_attempt.wait(), 5)
        lane = lease.lane()
        for _ in range(5):
            processes.clocks.advance(LEASE_S / 2)
            await self.renewed(lease, processes)
            assert lease.lane() == lane
            assert not await other.acquire()
        stop.set()
        await asyncio.wait_for(keeping, 5)

    async def test_a_lane_that_another_took_is_exchanged(self, processes: Processes) -> None:
        lease, stop = processes.lease(2), asyncio.Event()
        await lease.acquire()
        lost = lease.lane()
        processes.clocks.advance(10 * LEASE_S)
        others = [processes.lease(2), processes.lease(2)]
        await others[0].acquire()
        await others[1].acquire()
        assert lost in [other.lane() for other in others]
        keeping = asyncio.create_task(lease.keep(stop))
        await asyncio.sleep(0.02)
        assert not lease.is_held()
        processes.clocks.advance(LEASE_S)
        await asyncio.wait_for(lease.first_attempt.wait(), 5)
        await self.renewed(lease, processes)
        stop.set()
        await asyncio.wait_for(keeping, 5)

    async def test_it_outlives_a_registry_that_is_away(self, processes: Processes) -> None:
        lease, stop = processes.lease(), asyncio.Event()
        await processes.registry.close()
        keeping = asyncio.create_task(lease.keep(stop))
        await asyncio.sleep(0.02)
        assert not keeping.done()
        assert not lease.first_attempt.is_set()
        await processes.registry.open()
        await asyncio.wait_for(lease.first_attempt.wait(), 5)
        assert lease.is_held()
        stop.set()
        await asyncio.wait_for(keeping, 5)

    @staticmethod
    async def renewed(lease: LaneLease, processes: Processes) -> None:
        """Wait for a lease that holds for nearly all of its time."""
        for _ in range(1_000):
            processes.clocks.monotonic_s += LEASE_S - MARGIN_S - 1
            is_new = lease.is_held()
            processes.clocks.monotonic_s -= LEASE_S - MARGIN_S - 1
            if is_new:
                return
            await asyncio.sleep(0.002)
        pytest.fail("the lease was not renewed")
