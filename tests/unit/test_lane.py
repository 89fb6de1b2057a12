"""A process's lane: never two on one, never one that may have been given to another."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import pytest

from iotflow.domain.clock import Lane
from iotflow.errors import StoreBusyError, StoreUnavailableError
from iotflow.pipeline.lane import EMBEDDED, SHARED, LaneLease, LanePlan
from iotflow.stores.registry.sql import SqlRegistry


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

    def lease(self, plan: LanePlan = SHARED) -> LaneLease:
        return LaneLease(
            self.registry,
            plan,
            now=lambda: self.clocks.now_s,
            monotonic=lambda: self.clocks.monotonic_s,
        )

    async def pass_time(self, seconds: float, *leases: LaneLease) -> None:
        """Let those that live renew every two seconds meanwhile."""
        for _ in range(int(seconds / 2)):
            self.clocks.advance(2)
            for lease in leases:
                await lease.attempt()


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncGenerator[Processes]:
    registry = SqlRegistry(f"sqlite:///{tmp_path}/registry.db")
    await registry.open()
    yield Processes(registry)
    await registry.close()


def overlap(one: Lane, other: Lane) -> bool:
    """Whether there is a number in both."""
    return any(one.at_or_after(n) == other.at_or_after(n) == n for n in range(256))


class TestClaim:
    async def test_before_it_there_is_no_lane(self, processes: Processes) -> None:
        lease = processes.lease()
        assert not lease.is_held()
        with pytest.raises(StoreUnavailableError):
            lease.lane()

    async def test_the_first_ones_have_theirs_at_once(self, processes: Processes) -> None:
        leases = [processes.lease() for _ in range(SHARED.min_lanes)]
        for lease in leases:
            await lease.attempt()
        assert [lease.lane() for lease in leases] == [Lane(n, 4) for n in range(4)]

    async def test_one_more_waits_until_all_count_by_more(self, processes: Processes) -> None:
        leases = [processes.lease() for _ in range(4)]
        for lease in leases:
            await lease.attempt()
        late = processes.lease()
        await late.attempt()
        assert not late.is_held()
        await processes.pass_time(2, *leases[:3], late)
        assert not late.is_held(), "one still counts by four"
        await leases[3].attempt()
        await late.attempt()
        assert not late.is_held(), "what they issued ahead of the clock is not past yet"
        await processes.pass_time(4, *leases, late)
        lanes = [lease.lane() for lease in (*leases, late)]
        assert lanes == [Lane(n, 8) for n in range(5)]

    async def test_at_no_time_do_two_lanes_overlap(self, processes: Processes) -> None:
        leases: list[LaneLease] = []
        for _ in range(40):
            if len(leases) < 10:
                leases.append(processes.lease())
            await processes.pass_time(2, *leases)
            lanes = [lease.lane() for lease in leases if lease.is_held()]
            assert not any(overlap(one, other) for one, other in combinations(lanes, 2))
        assert {lease.lane().count for lease in leases} == {16}

    async def test_alone_starts_take_turns(self, processes: Processes) -> None:
        lanes: list[Lane] = []
        for _ in range(5):
            lease = processes.lease(EMBEDDED)
            await lease.attempt()
            lanes.append(lease.lane())
            processes.clocks.advance(0.001)
        assert lanes == [Lane(n % 2, 2) for n in range(5)]


class TestHolding:
    async def test_a_dead_process_is_found_out_and_its_lane_given_on(
        self, processes: Processes
    ) -> None:
        dead, other = processes.lease(), processes.lease()
        for lease in (dead, other):
            await lease.attempt()
        await processes.pass_time(12, other)
        early = processes.lease()
        await early.attempt()
        assert early.lane() == Lane(2, 4)
        await processes.pass_time(6, other, early)
        late = processes.lease()
        await late.attempt()
        assert late.lane() == Lane(0, 4)

    async def test_a_frozen_process_asks_before_it_goes_on(self, processes: Processes) -> None:
        frozen, other = processes.lease(), processes.lease()
        for lease in (frozen, other):
            await lease.attempt()
        await processes.pass_time(10, other)
        with pytest.raises(StoreUnavailableError):
            frozen.lane()
        await processes.pass_time(10, other)
        heir = processes.lease()
        await heir.attempt()
        assert heir.lane() == Lane(0, 4)
        await frozen.attempt()
        assert not frozen.is_held()
        await frozen.attempt()
        assert frozen.lane() == Lane(2, 4)

    async def test_without_the_registry_it_goes_on(self, processes: Processes) -> None:
        lease = processes.lease()
        await lease.attempt()
        await processes.registry.close()
        await processes.pass_time(600, lease)
        assert lease.lane() == Lane(0, 4)

    async def test_nobody_is_dead_because_the_registry_was_away(self, processes: Processes) -> None:
        one, other = processes.lease(), processes.lease()
        for lease in (one, other):
            await lease.attempt()
        await processes.registry.close()
        await processes.pass_time(60, one, other)
        await processes.registry.open()
        await processes.pass_time(2, one)
        newcomer = processes.lease()
        await newcomer.attempt()
        assert newcomer.lane() == Lane(2, 4)
        await processes.pass_time(4, one, newcomer, other)
        assert other.lane() == Lane(1, 4)

    async def test_a_wall_clock_that_is_set_back_changes_nothing(
        self, processes: Processes
    ) -> None:
        one, other = processes.lease(), processes.lease()
        for lease in (one, other):
            await lease.attempt()
        processes.clocks.now_s -= 3_600
        await processes.pass_time(60, one, other)
        assert [one.lane(), other.lane()] == [Lane(0, 4), Lane(1, 4)]


class TestKeep:
    @pytest.fixture(autouse=True)
    def _fast(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("iotflow.pipeline.lane._RENEW_S", 0.002)
        monkeypatch.setattr("iotflow.pipeline.lane._RETRY_S", 0.002)

    @pytest.mark.parametrize("plan", [SHARED, EMBEDDED])
    async def test_it_takes_a_lane_and_gives_it_back_at_the_end(
        self, processes: Processes, plan: LanePlan
    ) -> None:
        lease, stop = processes.lease(plan), asyncio.Event()
        keeping = asyncio.create_task(lease.keep(stop))
        await asyncio.wait_for(lease.first_attempt.wait(), 5)
        assert lease.is_held()
        stop.set()
        await asyncio.wait_for(keeping, 5)
        assert not lease.is_held()
        processes.clocks.advance(3)
        heir = processes.lease()
        await heir.attempt()
        assert heir.lane() == Lane(0, 4)

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

    @pytest.mark.parametrize(
        "error", [StoreUnavailableError("registry"), StoreBusyError("registry")]
    )
    async def test_it_outlives_a_registry_that_does_not_answer(
        self, processes: Processes, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        lease = processes.lease()
        await lease.attempt()
        monkeypatch.setattr(processes.registry, "renew_slot", raising(error))
        await processes.pass_time(60, lease)
        assert lease.lane() == Lane(0, 4)

    async def test_it_outlives_an_error_that_nobody_foresaw(
        self, processes: Processes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lease, stop = processes.lease(), asyncio.Event()
        await lease.attempt()
        with monkeypatch.context() as patch:
            patch.setattr(processes.registry, "renew_slot", raising(RuntimeError()))
            with pytest.raises(RuntimeError):
                await lease.keep(stop)
        assert lease.is_held()
        keeping = asyncio.create_task(lease.keep(stop))
        await asyncio.wait_for(lease.first_attempt.wait(), 5)
        assert lease.lane() == Lane(0, 4), "it goes on with the one that it had"
        stop.set()
        await asyncio.wait_for(keeping, 5)
        assert not lease.is_held()


def raising(error: Exception) -> Callable[..., Awaitable[object]]:
    async def fail(*_: object) -> object:
        raise error

    return fail
