"""The shared connection, on servers that misbehave as no real one can be made to."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from iotflow.errors import StoreUnavailableError
from iotflow.stores.breaker import Breaker, BreakerState
from iotflow.stores.cache.redis.pipe import LostReplyError, Pipe, PipeCounters, PipeLimits
from iotflow.stores.cache.redis.urls import parse_url
from iotflow.stores.cache.redis.wire import Wire, connect

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def no_greeting(_: Wire) -> None:
    return


@asynccontextmanager
async def piped(serve: Serve, limits: PipeLimits | None = None) -> AsyncGenerator[Pipe]:
    served: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = parse_url(f"redis://127.0.0.1:{port}")
    breaker = Breaker("cache", threshold=3, open_s=60)
    pipe = Pipe(
        "test",
        lambda: connect(url, url.addresses[0], 1, no_greeting),
        breaker,
        limits or PipeLimits(command_s=0.1),
        PipeCounters(),
    )
    pipe.start()
    assert await pipe.connected()
    try:
        yield pipe
    finally:
        await pipe.close()
        await asyncio.sleep(0.02)  # what was still being accepted has a handler by now
        server.close()
        await server.wait_closed()
        for task in served:
            task.cancel()
        if served:
            await asyncio.wait(served)
        await asyncio.sleep(0)  # their connections are closed in the next turn


async def echo_numbers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each command with its last argument, in one reply or in many pieces."""
    while header := await reader.readline():
        for _ in range(int(header[1:])):
            await reader.readline()
            word = await reader.readline()
        for piece in (b":", word[:-2], b"\r\n"):
            writer.write(piece)
            await writer.drain()


async def test_replies_come_to_those_who_asked_and_one_turn_is_one_write() -> None:
    async with piped(echo_numbers) as pipe:
        futures = [pipe.send(("X", number)) for number in range(100)]
        assert await asyncio.gather(*futures) == list(range(100))
        assert pipe._counters.batches == 1
        assert pipe.breaker.state is BreakerState.CLOSED


async def test_a_caller_that_gives_up_shifts_no_replies() -> None:
    async with piped(echo_numbers) as pipe:
        futures = [pipe.send(("X", number)) for number in range(3)]
        futures[1].cancel()
        assert [await futures[0], await futures[2]] == [0, 2]


async def test_a_connection_that_ends_fails_all_in_flight_and_another_follows() -> None:
    connections = 0

    async def hang_up_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await reader.readline()
            return
        await echo_numbers(reader, writer)

    async with piped(hang_up_first) as pipe:
        replies = await asyncio.gather(*[pipe.send(("X", number)) for number in range(5)])
        assert {type(reply) for reply in replies} == {LostReplyError}
        assert await pipe.send(("X", 7)) == 7
        assert connections == 2


async def test_replies_that_come_too_late_are_given_to_nobody_else() -> None:
    """A process that was frozen finds the replies and its time-outs in the same turn."""
    connections = 0

    async def answer_and_freeze(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections > 1:
            await echo_numbers(reader, writer)
            return
        await reader.readline()
        writer.write(b":1\r\n")
        time.sleep(0.2)  # noqa: ASYNC251 - the event loop has to stand still

    async with piped(answer_and_freeze) as pipe, asyncio.timeout(5):
        late = pipe.send(("X", 1))
        # Each turn: what comes next must be sent in the very one in which the connection is lost.
        while pipe.is_connected:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert await pipe.send(("X", 2)) == 2
        assert isinstance(await late, LostReplyError)
        assert connections == 2


async def test_a_reply_that_nobody_asked_for_ends_the_connection() -> None:
    connections = 0
    again = asyncio.Event()

    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            writer.write(b"+HELLO\r\n")
            await reader.read()  # until the other end closes it
        again.set()
        await echo_numbers(reader, writer)

    async with piped(chatter) as pipe, asyncio.timeout(2):
        await again.wait()
        assert await pipe.send(("X", 7)) == 7, "and not what was said before"
        assert (connections, pipe._counters.reconnects) == (2, 1)


async def test_what_is_no_protocol_at_all_ends_the_connection() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await asyncio.sleep(0.2)

    async with piped(babble) as pipe:
        assert isinstance(await pipe.send(("X", 1)), LostReplyError)


async def test_silence_fails_all_in_time_and_opens_the_breaker() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass

    async with piped(silent) as pipe:
        async with asyncio.timeout(0.4):
            replies = await asyncio.gather(*[pipe.send(("X", number)) for number in range(5)])
        assert {type(reply) for reply in replies} == {LostReplyError}
        assert pipe.breaker.opened == 1


async def test_what_waits_is_bounded() -> None:
    async with piped(echo_numbers, PipeLimits(max_waiting=3)) as pipe:
        futures = [pipe.send(("X", number)) for number in range(3)]
        with pytest.raises(StoreUnavailableError):
            pipe.send(("X", 3))
        assert await asyncio.gather(*futures) == [0, 1, 2]
        assert await pipe.send(("X", 4)) == 4
        assert pipe.breaker.state is BreakerState.CLOSED


async def test_closed_it_refuses_and_leaves_nobody_waiting() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass

    async with piped(silent, PipeLimits(command_s=30)) as pipe:
        waiting = pipe.send(("X", 1))
        await asyncio.sleep(0)
        await pipe.close()
        assert isinstance(await waiting, LostReplyError)
        with pytest.raises(StoreUnavailableError):
            pipe.send(("X", 2))
