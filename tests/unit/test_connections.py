"""Connections that close: their client is not waited for without end."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from iotflow.http.connections import Connection, Guard
from iotflow.settings import ServerSettings

SMALL_BYTES = 48 * 1024
"""Less than makes a transport say that writing stalls, more than small sockets hold."""
LARGE_BYTES = 256 * 1024
"""More than that."""
HEADER_S, REQUEST_S, KEEP_ALIVE_S = 0.2, 0.4, 1
MAX_HEAD_BYTES = 4096
LONGEST_S = 10
ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = ASK[:20]


def answering(size: int, *headers: tuple[bytes, bytes]) -> Any:
    """An application that answers so many bytes to everything."""

    async def answer(_: Any, __: Any, send: Any) -> None:
        told = [(b"content-length", b"%d" % size), *headers]
        await send({"type": "http.response.start", "status": 200, "headers": told})
        await send({"type": "http.response.body", "body": b" " * size})

    return answer


class Serving:
    """The application at an address, with a guard; its connections have little room for what
    their client does not read."""

    def __init__(self, application: Any) -> None:
        bounds = ServerSettings(
            header_s=HEADER_S,
            request_s=REQUEST_S,
            keep_alive_s=KEEP_ALIVE_S,
            max_header_bytes=MAX_HEAD_BYTES,
        )
        self.guard = Guard(bounds, 10, 1024)
        self.state = ServerState()
        config = Config(application, log_config=None)
        config.load()
        self._make = partial(
            Connection, config=config, server_state=self.state, app_state={}, guard=self.guard
        )
        self._listening = socket.socket()
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024)
        self._listening.bind(("127.0.0.1", 0))

    async def __aenter__(self) -> "Serving":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._make, sock=self._listening)
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in list(self.state.connections):
            each.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    async def sent(self, what: bytes) -> socket.socket:
        """A connection that has sent this. What is answered nobody reads."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, self._listening.getsockname())
        await loop.sock_sendall(client, what)
        return client

    async def until(self, is_so: Callable[[ServerState], bool]) -> None:
        deadline = asyncio.get_running_loop().time() + LONGEST_S
        while not is_so(self.state):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.02)

    async def until_closed(self) -> None:
        await self.until(lambda state: bool(state.total_requests and not state.connections))


async def read(client: socket.socket, size: int) -> bytes:
    """What comes until so much is there, head and all."""
    said = b""
    async with asyncio.timeout(LONGEST_S):
        while len(said) < size:
            part = await asyncio.get_running_loop().sock_recv(client, 65_536)
            assert part, "the connection was closed"
            said += part
    return said


async def test_one_that_closes_is_given_up_where_its_client_does_not_read() -> None:
    async with Serving(answering(SMALL_BYTES, (b"connection", b"close"))) as serving:
        with await serving.sent(ASK):
            await serving.until(lambda state: bool(state.total_requests))
            assert all(each.transport.is_closing() for each in serving.state.connections)
            await serving.until_closed()
        assert serving.guard.refused == {"stalled": 1}


@pytest.mark.parametrize("size", [SMALL_BYTES, LARGE_BYTES])
@pytest.mark.parametrize("ahead", [ASK + HALF, ASK * 5, ASK * 5 + HALF])
async def test_who_asks_on_and_reads_no_answer_stalls(size: int, ahead: bytes) -> None:
    async with Serving(answering(size)) as serving:
        with await serving.sent(ahead):
            await serving.until_closed()
        assert serving.guard.refused == {"stalled": 1}


class Unread(asyncio.Transport):
    """Of a client that reads nothing: what is written stays."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""
        self.is_closed = self.is_aborted = False

    def write(self, data: Any) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def test_a_refused_client_that_does_not_read_why_is_counted_once() -> None:
    async with Serving(answering(1)) as serving:
        connection, transport = serving._make(), Unread()
        connection.connection_made(transport)
        connection.data_received(HALF)
        now_s = asyncio.get_running_loop().time()
        connection.check(now_s + 2 * HEADER_S)
        assert transport.written.startswith(b"HTTP/1.1 408 ")
        assert transport.is_closed
        for later in (3, 5):
            connection.check(now_s + later * REQUEST_S)
        assert transport.is_aborted
        assert serving.guard.refused == {"slow_headers": 1}
        serving.state.connections.clear()


async def test_headers_that_do_not_end_are_slow_where_all_answers_were_read() -> None:
    async with Serving(answering(SMALL_BYTES)) as serving:
        with await serving.sent(ASK + HALF) as client:
            await read(client, SMALL_BYTES)
            await serving.until_closed()
        assert serving.guard.refused == {"slow_headers": 1}


async def test_who_reads_late_and_goes_on_is_not_cut_off() -> None:
    async with Serving(answering(SMALL_BYTES)) as serving:
        with await serving.sent(ASK + HALF) as client:
            await asyncio.sleep(HEADER_S + REQUEST_S / 2)
            await asyncio.get_running_loop().sock_sendall(client, ASK[20:])
            await read(client, 2 * SMALL_BYTES)
            await asyncio.sleep(2 * REQUEST_S)
            assert len(serving.state.connections) == 1
        assert not serving.guard.refused


async def test_one_that_asks_for_nothing_more_is_closed() -> None:
    loop = asyncio.get_running_loop()
    async with Serving(answering(1)) as serving:
        with await serving.sent(ASK) as client:
            await read(client, 1)
            answered_s = loop.time()
            await serving.until_closed()
            assert loop.time() - answered_s >= KEEP_ALIVE_S
        assert not serving.guard.refused


async def test_one_that_waits_for_its_answer_is_not_idle() -> None:
    async def slow(_: Any, __: Any, send: Any) -> None:
        await asyncio.sleep(KEEP_ALIVE_S + 4 * HEADER_S)
        await answering(1)(_, __, send)

    async with Serving(slow) as serving:
        with await serving.sent(ASK) as client:
            assert (await read(client, 1)).startswith(b"HTTP/1.1 200 ")


def asking(size: int) -> bytes:
    """A request with a head of so many bytes, or a few less: lines end, colons."""
    return b"GET / HTTP/1.1\r\nHost: x\r\nX-Filler: " + b"a" * (size - 40) + b"\r\n\r\n"


@pytest.mark.parametrize("before", [b"", ASK, ASK * 3])
async def test_a_head_is_measured_by_itself_wherever_it_begins(before: bytes) -> None:
    """Not with what came in the same chunk before it, and not without what came with that."""
    async with Serving(answering(1)) as serving:
        for size, refused in ((MAX_HEAD_BYTES - 20, 0), (MAX_HEAD_BYTES + 100, 1)):
            for cut in (0, 60, 3000):
                connection, transport = serving._make(), Unread()
                connection.connection_made(transport)
                whole, end = before + asking(size), len(before) + cut
                for chunk in filter(None, (whole[:end], whole[end:])):
                    connection.data_received(chunk)
                assert serving.guard.refused["large_headers"] == refused, (size, cut)
                serving.guard.refused.clear()
                serving.state.connections.clear()
