"""Look-ups that are asked together."""

import asyncio
from collections.abc import Sequence

import pytest

from iotflow.stores.registry.together import Together


class Server:
    """Knows the numbers below a hundred, and answers when it is let."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.under_way = self.most_under_way = 0
        self.may_answer = asyncio.Event()
        self.fails = False

    async def ask(self, keys: Sequence[int]) -> dict[int, str]:
        self.calls.append(list(keys))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self.may_answer.wait()
        self.under_way -= 1
        if self.fails:
            raise OSError("away")
        return {key: str(key) for key in keys if key < 100}


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_of_one_turn_share_a_call() -> None:
    server = Server()
    server.may_answer.set()
    together = Together(server.ask)
    assert await asyncio.gather(*map(together.get, [1, 2, 1, 100])) == ["1", "2", "1", None]
    assert server.calls == [[1, 2, 100]]
    assert await together.get(3) == "3"


async def test_who_comes_meanwhile_is_in_the_next_call() -> None:
    server = Server()
    together = Together(server.ask, at_once=2, most=3)
    asked = []
    for key in range(10):
        asked.append(asyncio.ensure_future(together.get(key)))
        await turns()
    assert server.calls == [[0], [1]]
    server.may_answer.set()
    assert await asyncio.gather(*asked) == [str(key) for key in range(10)]
    assert [len(call) for call in server.calls] == [1, 1, 3, 3, 2]
    assert server.most_under_way == 2


async def test_an_error_is_everybodys_and_the_next_call_works() -> None:
    server = Server()
    server.may_answer.set()
    server.fails = True
    together = Together(server.ask)
    outcomes = await asyncio.gather(*map(together.get, [1, 2]), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OSError, OSError]
    server.fails = False
    assert await together.get(1) == "1"


async def test_who_gives_up_ends_nobody_elses() -> None:
    server = Server()
    together = Together(server.ask)
    first, second = (asyncio.ensure_future(together.get(1)) for _ in range(2))
    await turns()
    first.cancel()
    server.may_answer.set()
    assert await second == "1"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_nobody_waits_for_ever() -> None:
    together = Together(Server().ask, at_once=1, limit_s=0.01)
    asked = asyncio.gather(*map(together.get, [1, 2]), return_exceptions=True)
    outcomes = await asyncio.wait_for(asked, 10)
    assert [type(outcome) for outcome in outcomes] == [TimeoutError, TimeoutError]
