import asyncio
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from iotflow.stores.breaker import Breaker
from iotflow.stores.telemetry.cassandra.driver import Driver
from iotflow.stores.telemetry.cassandra.failures import TimedOutError
from iotflow.stores.telemetry.cassandra.tries import SideBySide

FROZEN, DOWN = "frozen", "down"


class Replicas:
    """Each call meets the next of them: one that never answers, one that fails, or a good one."""

    def __init__(self, met: Sequence[str]) -> None:
        self._met = iter(met)
        self.calls = 0
        self.waiting = 0

    async def ask(self) -> str:
        self.calls += 1
        replica = next(self._met)
        if replica == DOWN:
            raise TimedOutError
        if replica == FROZEN:
            self.waiting += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.waiting -= 1
        return replica


async def test_an_answer_needs_no_second_try() -> None:
    replicas = Replicas(["good"])
    assert await SideBySide().first_answer(replicas.ask) == "good"
    assert replicas.calls == 1


@pytest.mark.parametrize("met", [(FROZEN, FROZEN, "good"), (DOWN, FROZEN, "good")])
async def test_a_frozen_replica_is_not_waited_for(met: Sequence[str]) -> None:
    replicas = Replicas(met)
    async with asyncio.timeout(5):
        assert await SideBySide(alone_s=0.01).first_answer(replicas.ask) == "good"
    assert replicas.calls == 3
    assert replicas.waiting == 0, "what nobody waits for is given up"


async def test_an_earlier_try_may_answer_late() -> None:
    late, all_begun = asyncio.Event(), asyncio.Event()
    begun: list[int] = []

    async def ask() -> int:
        begun.append(number := len(begun))
        if number == 2:
            all_begun.set()
        await (late.wait() if number == 0 else asyncio.Event().wait())
        return number

    asked = asyncio.create_task(SideBySide(alone_s=0.01).first_answer(ask))
    async with asyncio.timeout(5):
        await all_begun.wait()
        late.set()
        assert await asked == 0


async def test_where_all_fail_the_failure_is_told() -> None:
    replicas = Replicas([DOWN] * 9)
    with pytest.raises(TimedOutError):
        await SideBySide().first_answer(replicas.ask)
    assert replicas.calls == 3


async def test_many_slow_calls_add_no_more_than_may_be() -> None:
    replicas = Replicas([FROZEN] * 100)
    tries = SideBySide(at_most=4, alone_s=0.01)
    asked = [asyncio.create_task(tries.first_answer(replicas.ask)) for _ in range(10)]
    await asyncio.sleep(0.2)
    assert replicas.calls == 10 + 4
    for each in asked:
        each.cancel()
    await asyncio.wait(asked)
    again = Replicas([FROZEN, FROZEN, "good"])
    assert await tries.first_answer(again.ask) == "good", "what was added is given back"


class Session:
    """The driver's, of a ring whose first two coordinators are frozen."""

    def __init__(self) -> None:
        self._replicas = Replicas([FROZEN, FROZEN, "good"])

    async def execute(self, statement: object) -> str:
        answer = await self._replicas.ask()
        await asyncio.sleep(0.2)  # more than was left for a third try after the second
        return answer


async def test_a_statement_that_meets_a_frozen_node_twice_is_answered_within_its_limit() -> None:
    driver = Driver(
        SimpleNamespace(port=9042),
        Breaker("telemetry"),
        limit_s=2.0,
        request_timeout_s=0.9,
        max_in_flight=10,
        max_waiting=10,
        io_threads=1,
        connections_a_host=1,
    )
    driver._session = Session()
    statement = SimpleNamespace(set_is_idempotent=lambda _: None)
    assert await driver.run(statement) == "good"
