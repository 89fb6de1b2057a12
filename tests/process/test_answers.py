"""A hot route's answer, as bytes on the wire, against what uvicorn sends by itself."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from iotflow.http.answers import FixedFields, send_answer
from iotflow.http.bodies import arrived_body

BODY = b'{"answer": 42}'
FIXED = FixedFields.of(((b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer")))
HEADERS = ((b"content-type", b"application/json"), (b"x-request-id", b"1"))


async def whole(scope: Scope, receive: Receive, send: Send) -> None:
    await send_answer(send, 201, FIXED, HEADERS, BODY)


async def in_parts(scope: Scope, receive: Receive, send: Send) -> None:
    # A wrapped `send` is not uvicorn's own, as under a middleware or another server.
    async def plain(message: Any) -> None:
        await send(message)

    await send_answer(plain, 201, FIXED, HEADERS, BODY)


@contextmanager
def listener() -> Generator[socket.socket]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        yield found


@asynccontextmanager
async def serving(app: Any) -> AsyncGenerator[int]:
    with listener() as found:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, lifespan="off", ws="none"
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[found]))
        while not server.started:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.01)
        try:
            yield found.getsockname()[1]
        finally:
            server.should_exit = True
            await task


async def conversation(app: Any, requests: bytes, answers: int) -> tuple[list[Any], bool]:
    """The answers to `requests`, and whether the connection was then closed by the server.

    It is asked once more: what the server has closed gives no answer, however busy it is.
    """
    async with asyncio.timeout(10), serving(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(requests)
        found: list[Any] = []
        for _ in range(answers):
            status, *fields = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            named = dict(field.split(b": ", 1) for field in fields if field)
            named.pop(b"date")
            length = int(named[b"content-length"])
            found.append((status, named, await reader.readexactly(length)))
        try:
            writer.write(GET)
            closed = await reader.read(1) == b""
        except ConnectionError:
            closed = True
        writer.close()
        return found, closed


GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("requests", "answers"),
    [
        pytest.param(GET, 1, id="one"),
        pytest.param(GET * 5, 5, id="pipelined"),
        pytest.param(POST + GET + POST, 3, id="bodies"),
        pytest.param(GET.replace(b"host: x", b"connection: close"), 1, id="close"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", 1, id="http-1.0"),
        pytest.param(POST.replace(b"host: x", b"expect: 100-continue"), 1, id="unread"),
    ],
)
async def test_it_is_what_uvicorn_sends(requests: bytes, answers: int) -> None:
    assert await conversation(whole, requests, answers) == await conversation(
        in_parts, requests, answers
    )


async def test_it_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Head and body arrive together: the first thing that is read is the whole answer."""
    async with asyncio.timeout(10), serving(whole) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writes: list[bytes] = []
        from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

        original = RequestResponseCycle.__init__

        def spied(self: Any, *args: Any, **kwargs: Any) -> None:
            transport = kwargs["transport"]

            class Spy:
                def write(self, data: bytes) -> None:
                    writes.append(data)
                    transport.write(data)

                def __getattr__(self, name: str) -> Any:
                    return getattr(transport, name)

            kwargs["transport"] = Spy()
            original(self, *args, **kwargs)

        monkeypatch.setattr(RequestResponseCycle, "__init__", spied)
        writer.write(GET)
        await reader.readuntil(BODY)
        writer.close()
    assert [data.endswith(b"\r\n\r\n" + BODY) for data in writes] == [True]


async def test_a_body_that_was_taken_is_not_given_again() -> None:
    """Nor kept: a connection holds its last request until the next."""
    taken: list[bytes | None] = []
    rest: list[Any] = []

    async def taking(scope: Scope, receive: Receive, send: Send) -> None:
        taken.append(arrived_body(receive))
        rest.append(await receive())
        ended.set()

    ended = asyncio.Event()
    async with asyncio.timeout(10), serving(taking) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST)
        await writer.drain()
        await asyncio.sleep(0.1)
        assert (taken, rest) == ([b"{}"], [])
        writer.close()
        await ended.wait()
    assert rest == [{"type": "http.disconnect"}]


async def test_a_client_that_is_gone_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await send_answer(send, 200, FIXED, HEADERS, BODY)
        ended.set()

    ended = asyncio.Event()
    async with asyncio.timeout(10), serving(late) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await writer.drain()
        writer.close()
        await ended.wait()
    # It logs what an application raises.
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
