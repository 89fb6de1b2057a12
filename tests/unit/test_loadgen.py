"""The load generator against a small real server: what it counts, and from when."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from iotflow.cli.bench.loadgen import run_plan
from iotflow.cli.bench.plan import (
    FixedRequests,
    Plan,
    TimedRequests,
    payloads,
    percentile,
    summarise,
)
from iotflow.cli.wire import encode_request

OK = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"
Answer = Callable[[int, bytes, asyncio.StreamWriter], Awaitable[None]]


class SmallServer:
    """Reads requests and lets `answer` write what it likes; `requests` is all that came."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                request = head + await reader.readexactly(length)
                self.requests.append(request)
                await self._answer(len(self.requests), request, writer)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[SmallServer]:
    small = SmallServer(answer)
    server = await asyncio.start_server(small.handle, "127.0.0.1", 0)
    small.port = server.sockets[0].getsockname()[1]
    try:
        yield small
    finally:
        server.close()
        await asyncio.sleep(0.02)


async def always_ok(number: int, request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


def plan_for(server: SmallServer, **changes: object) -> Plan:
    request = encode_request("POST", "/", "host", {"X-API-Key": "k"}, b"{}")
    plan = Plan(
        "127.0.0.1",
        server.port,
        FixedRequests([request]),
        connections=4,
        seconds=0.3,
        warmup_s=0.1,
        drain_s=2.0,
    )
    return msgspec.structs.replace(plan, **changes)


class TestPercentiles:
    def test_are_values_that_occurred_at_the_nearest_rank(self) -> None:
        ordered = [float(n) for n in range(1, 101)]
        assert [percentile(ordered, share) for share in (0.5, 0.9, 0.99, 0.999, 1.0)] == [
            50.0,
            90.0,
            99.0,
            100.0,
            100.0,
        ]

    def test_of_few_values_never_invent_one_between(self) -> None:
        assert percentile([1.0, 2.0], 0.5) == 1.0
        assert percentile([1.0, 2.0], 0.51) == 2.0
        assert percentile([7.0], 0.0) == 7.0
        assert percentile([], 0.5) == 0.0

    def test_summary_sorts_and_turns_into_milliseconds(self) -> None:
        latency = summarise([0.004, 0.001, 0.002, 0.003])
        assert (latency.count, latency.p50, latency.max) == (4, 2.0, 4.0)
        assert latency.mean == pytest.approx(2.5)


class TestClosedLoop:
    async def test_counts_what_the_server_saw(self) -> None:
        async with serving(always_ok) as server:
            result = await run_plan(plan_for(server))
        assert result.issued == len(server.requests)
        assert server.connections == 4
        assert 0 < result.answered < result.issued  # the warm-up is not in it
        assert result.statuses == {201: result.answered}
        assert result.latency.count == result.answered
        assert result.failures == {}
        assert result.unanswered == 0

    async def test_names_failures_by_status(self) -> None:
        async def every_third_fails(n: int, request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(OK.replace(b"201 Created", b"503 Busy") if n % 3 == 0 else OK)

        async with serving(every_third_fails) as server:
            result = await run_plan(plan_for(server, warmup_s=0.0))
        assert result.failures.keys() == {503}
        assert result.failures[503] == pytest.approx(result.answered / 3, rel=0.05)

    async def test_reconnects_and_counts_broken_connections(self) -> None:
        async def breaks_the_tenth(n: int, request: bytes, writer: asyncio.StreamWriter) -> None:
            if n == 10:
                writer.transport.abort()
            else:
                writer.write(OK)

        async with serving(breaks_the_tenth) as server:
            result = await run_plan(plan_for(server, warmup_s=0.0, connections=1))
        assert result.statuses[0] == 1
        assert result.statuses[201] > 20
        assert server.connections == 2

    async def test_obeys_connection_close(self) -> None:
        async def closes_each(n: int, request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            writer.close()

        async with serving(closes_each) as server:
            result = await run_plan(plan_for(server, warmup_s=0.0, connections=1))
        assert result.statuses.keys() == {201}
        assert server.connections >= result.answered > 1

    async def test_reads_answers_that_come_in_pieces(self) -> None:
        async def in_pieces(n: int, request: bytes, writer: asyncio.StreamWriter) -> None:
            for piece in (OK[:5], OK[5:30], OK[30:-1], OK[-1:]):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)

        async with serving(in_pieces) as server:
            result = await run_plan(plan_for(server))
        assert result.statuses.keys() == {201}

    async def test_an_answer_without_length_is_broken_not_a_hang(self) -> None:
        async def chunked(n: int, request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")

        async with serving(chunked) as server:
            result = await run_plan(plan_for(server, warmup_s=0.0))
        assert result.statuses.keys() == {0}

    async def test_says_what_was_never_answered(self) -> None:
        async def silent(n: int, request: bytes, writer: asyncio.StreamWriter) -> None:
            return

        async with serving(silent) as server:
            result = await run_plan(plan_for(server, drain_s=0.1))
        assert (result.answered, result.unanswered) == (0, 4)

    async def test_no_server_is_an_error(self) -> None:
        async with serving(always_ok) as server:
            plan = plan_for(server)
        with pytest.raises(ConnectionRefusedError):
            await run_plan(plan)


class TestOpenLoop:
    async def test_sends_the_scheduled_number_whatever_happens(self) -> None:
        async with serving(always_ok) as server:
            result = await run_plan(plan_for(server, rate=200.0, seconds=0.5))
        assert result.issued == len(server.requests) == 120
        assert result.answered == 100
        assert result.lag is not None
        assert result.lag.count == 100

    async def test_waits_for_no_request_that_rounding_made_up(self) -> None:
        async with serving(always_ok) as server:
            plan = plan_for(server, rate=1000.0, seconds=0.1, warmup_s=0.2)
            assert plan.load_s * 1000 > 300
            result = await run_plan(plan)
        assert (result.answered, result.unanswered) == (100, 0)

    async def test_latency_counts_from_when_a_request_was_due(self) -> None:
        """A stall of 0.3 s delays all that fell due meanwhile, not the one request in flight."""

        async def stalls_once(n: int, request: bytes, writer: asyncio.StreamWriter) -> None:
            if n == 20:
                await asyncio.sleep(0.3)
            writer.write(OK)

        async with serving(stalls_once) as server:
            plan = plan_for(server, rate=100.0, seconds=1.0, warmup_s=0.0, connections=1)
            result = await run_plan(plan)
            closed = await run_plan(msgspec.structs.replace(plan, rate=None, seconds=0.2))
        assert result.answered == 100
        assert result.latency.max == pytest.approx(300, abs=60)
        assert result.latency.p90 > 150  # thirty of a hundred waited, by 300 ms down to 10
        assert result.latency.p50 < 50
        assert closed.latency.p99 < 50

    async def test_what_waits_at_the_end_gets_connections_of_its_own(self) -> None:
        async def slow_and_closes(n: int, request: bytes, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.02)
            writer.write(OK.replace(b"Content", b"Connection: close\r\nContent"))
            await writer.drain()
            writer.close()

        async with serving(slow_and_closes) as server:
            plan = plan_for(server, rate=200.0, seconds=0.2, warmup_s=0.0, connections=1)
            result = await run_plan(plan)
        assert (result.answered, result.unanswered) == (40, 0)
        assert server.connections == 40

    async def test_what_a_slow_server_leaves_undone_is_unanswered(self) -> None:
        async def slow(n: int, request: bytes, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.1)
            writer.write(OK)

        async with serving(slow) as server:
            plan = plan_for(server, rate=100.0, seconds=0.5, warmup_s=0.0, connections=1)
            result = await run_plan(msgspec.structs.replace(plan, drain_s=0.2))
        assert result.answered + result.unanswered == 50
        assert result.unanswered > 30


class TestRequests:
    def test_timed_requests_never_repeat_a_time_and_keep_their_length(self) -> None:
        body = b'[{"t":%d},{"t":%d}]'
        length = len(body % (10**12, 10**12))
        template = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % length + body
        first = TimedRequests([template], slots=2, first_ms=1_700_000_000_000, step_ms=1000)
        source = payloads(first)
        sent = [next(source) for _ in range(3)]
        sent.append(next(payloads(first.after(3))))
        bodies = [request.partition(b"\r\n\r\n")[2] for request in sent]
        assert {len(it) for it in bodies} == {length}
        times = [record["t"] for it in bodies for record in msgspec.json.decode(it)]
        assert times == [1_700_000_000_000 + 1000 * n for n in range(8)]

    def test_a_request_is_encoded_with_the_length_of_its_bytes(self) -> None:
        request = encode_request("POST", "/x", "h", {"A": "b"}, "é".encode())
        assert (
            request == b"POST /x HTTP/1.1\r\nHost: h\r\nA: b\r\nContent-Length: 2\r\n\r\n\xc3\xa9"
        )
        assert b"Content-Length" not in encode_request("GET", "/", "h", {})


async def test_a_run_ends_in_time() -> None:
    async with serving(always_ok) as server:
        begin = time.perf_counter()
        await run_plan(plan_for(server, rate=50.0))
    assert time.perf_counter() - begin < 1.0
