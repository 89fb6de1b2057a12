"""Clients that are slow, large or many on purpose: they are cut off, and others notice nothing."""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest

from tests.process.conftest import Credentials, Served, register, served

HEADER_S, REQUEST_S = 0.5, 1.0
CONNECTIONS = 40
PATIENCE_S = 10.0
SETTINGS = {
    "IOTFLOW_SERVER__HEADER_S": str(HEADER_S),
    "IOTFLOW_SERVER__REQUEST_S": str(REQUEST_S),
    "IOTFLOW_SERVER__MAX_CONNECTIONS": str(CONNECTIONS),
    "IOTFLOW_SERVER__KEEP_ALIVE_S": "60",
    "IOTFLOW_INGEST__MAX_BATCH_BYTES": str(1024 * 1024),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("slow") / "data", **SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def device(service: Served) -> Credentials:
    return register(service.url)


def connect(service: Served) -> socket.socket:
    address = ("127.0.0.1", int(service.url.rsplit(":", 1)[1]))
    return socket.create_connection(address, timeout=0.2)


def drip(raw: socket.socket, begin: bytes, drop: bytes) -> tuple[bytes, float]:
    """Send a drop now and then until the server ends it; what it said, and after how long."""
    began, said = time.monotonic(), b""
    raw.sendall(begin)
    while time.monotonic() - began < PATIENCE_S:
        try:
            part = raw.recv(65_536)
            said += part
            if not part:
                return said, time.monotonic() - began
            continue
        except TimeoutError:
            pass
        except ConnectionError:
            return said, time.monotonic() - began
        try:
            raw.sendall(drop)
        except OSError:
            return said, time.monotonic() - began
    raise AssertionError("the server waits for it still")


def submit(service: Served, device: Credentials, number: int) -> float:
    began = time.monotonic()
    body = {"data": {"a": number}}
    sent = httpx.post(f"{service.url}/api/v1/telemetry", json=body, headers=device.key, timeout=5)
    assert sent.status_code == 201
    return time.monotonic() - began


def problem(said: bytes) -> tuple[int, str]:
    """Status and code of an answer that closes its connection."""
    head, _, body = said.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/problem+json" in lines
    assert b"x-content-type-options: nosniff" in lines
    assert b"connection: close" in lines
    document = json.loads(body)
    assert document["request_id"].encode() in head
    return int(head.split(b" ")[1]), document["code"]


def test_headers_that_drip_are_cut_off(service: Served, device: Credentials) -> None:
    with connect(service) as raw:
        said, took_s = drip(raw, b"GET /health HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n")
    assert problem(said) == (408, "request_timeout")
    assert took_s < HEADER_S + 3


@pytest.mark.parametrize("begin", [b"", b"\r\n", b"G"], ids=["nothing", "a line", "a letter"])
def test_a_connection_that_never_asks_is_cut_off(service: Served, begin: bytes) -> None:
    with connect(service) as raw:
        said, took_s = drip(raw, begin, b"\r\n" if begin == b"\r\n" else b"")
    assert problem(said) == (408, "request_timeout")
    assert took_s < HEADER_S + 3


def test_stray_bytes_between_requests_do_not_keep_a_connection(service: Served) -> None:
    with connect(service) as raw:
        said, took_s = drip(raw, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n")
    assert said.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 408" in said
    assert took_s < HEADER_S + 3


@pytest.mark.parametrize(
    ("path", "framing"),
    [
        ("/api/v1/telemetry", "Content-Length: 500"),
        ("/api/v1/telemetry", "Transfer-Encoding: chunked"),
        ("/api/v1/telemetry/batch", "Content-Length: 500"),
        ("/api/v1/auth/login", "Content-Length: 500"),
    ],
)
def test_bodies_that_drip_are_cut_off(
    service: Served, device: Credentials, path: str, framing: str
) -> None:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {device.api_key}\r\n"
        f"Content-Type: application/json\r\n{framing}\r\n\r\n"
    )
    drop = b"1\r\n \r\n" if "chunked" in framing else b" "
    with connect(service) as raw:
        said, took_s = drip(raw, head.encode(), drop)
    assert problem(said) == (408, "request_timeout")
    assert took_s < REQUEST_S + 3


def test_a_body_that_drips_after_its_refusal_is_cut_off(service: Served) -> None:
    head = "POST /api/v1/telemetry HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n"
    with connect(service) as raw:
        said, took_s = drip(raw, head.encode(), b" ")
    assert said.startswith(b"HTTP/1.1 401")
    assert said.count(b"HTTP/1.1") == 1, "one request, one answer"
    assert took_s < REQUEST_S + 3


def test_others_go_on_meanwhile(service: Served, device: Credentials) -> None:
    with ExitStack() as stack:
        drippers = [stack.enter_context(connect(service)) for _ in range(CONNECTIONS - 10)]
        for raw in drippers:
            raw.sendall(b"POST /api/v1/telemetry HTTP/1.1\r\n")
        slowest_s = max(submit(service, device, number) for number in range(20))
    assert slowest_s < 2


def test_connections_past_the_limit_are_told_and_closed(
    service: Served, device: Credentials
) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(connect(service)) for _ in range(CONNECTIONS + 5)]
        refused: list[bytes] = []
        for raw in reversed(opened[-5:]):
            raw.settimeout(2)
            refused.append(raw.recv(4096))
    for said in refused:
        assert problem(said) == (503, "overloaded")
        assert b"retry-after: 1" in said
    deadline = time.monotonic() + 5
    while httpx.get(f"{service.url}/health").status_code != 200:
        assert time.monotonic() < deadline
    submit(service, device, 1)
    metrics = httpx.get(f"{service.url}/metrics").text
    assert 'iotflow_connections_refused_total{reason="full"}' in metrics


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 101,
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: " + b"b" * 80_000,
        b"GET /" + b"a" * 80_000 + b" HTTP/1.1\r\nHost: x\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-" + b"a" * 2_000_000,
    ],
    ids=["many", "long value", "long address", "long name"],
)
def test_headers_that_are_too_many_or_too_large(service: Served, head: bytes) -> None:
    with connect(service) as raw:
        raw.settimeout(5)
        said = b""
        # A connection that is closed with bytes unread is reset.
        with suppress(ConnectionError):
            raw.sendall(head + b"\r\n\r\n")
        with suppress(ConnectionError):
            while part := raw.recv(65_536):
                said += part
    if said or len(head) < 1_000_000:
        assert problem(said) == (431, "headers_too_large")
    assert httpx.get(f"{service.url}/health").status_code == 200


def test_trailers_are_no_headers_and_have_a_bound(service: Served, device: Credentials) -> None:
    head = (
        "POST /api/v1/telemetry HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        "Trailer: X-API-Key\r\n\r\n"
    )
    body = b'f\r\n{"data":{"a":1}\r\n1\r\n}\r\n0\r\n'
    trailer = f"X-API-Key: {device.api_key}\r\n\r\n"
    with connect(service) as raw:
        raw.settimeout(5)
        raw.sendall(head.encode() + body + trailer.encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 401"), "a key in a trailer is none"
    head += "0\r\n"
    with connect(service) as raw:
        raw.settimeout(5)
        sent = 0
        with suppress(OSError):
            raw.sendall(head.encode() + b"X-A: ")
            while sent < 64 * 1024 * 1024:
                raw.sendall(b"b" * 65_536)
                sent += 65_536
    assert sent < 64 * 1024 * 1024
    metrics = httpx.get(f"{service.url}/metrics").text
    assert 'iotflow_connections_refused_total{reason="large_body"} 1.0' in metrics


def test_what_is_no_http_is_a_problem_too(service: Served) -> None:
    for nonsense in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"HELO there\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
    ):
        with connect(service) as raw:
            raw.settimeout(5)
            raw.sendall(nonsense)
            assert problem(raw.recv(65_536)) == (400, "bad_request")


def test_lengths_that_contradict_each_other_are_refused(service: Served) -> None:
    head = b"POST /api/v1/telemetry HTTP/1.1\r\nHost: x\r\n"
    for lengths in (
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: +5\r\n",
    ):
        with connect(service) as raw:
            raw.settimeout(5)
            raw.sendall(head + lengths + b"\r\n0\r\n\r\n")
            assert raw.recv(65_536).startswith(b"HTTP/1.1 400"), lengths


def test_a_client_that_does_not_read_is_cut_off(service: Served, device: Credentials) -> None:
    records = [
        {"timestamp": 1_767_225_600_000 + n, "data": {f"m{m}": "x" * 900 for m in range(4)}}
        for n in range(1_500)
    ]
    url = f"{service.url}/api/v1/telemetry/batch"
    for begin in range(0, 1_500, 250):
        body = {"records": records[begin : begin + 250]}
        assert httpx.post(url, json=body, headers=device.key, timeout=20).status_code == 201
    ask = (
        f"GET /api/v1/telemetry/{device.device_id}?start_time=1767225600000&end_time=1767312000000"
        f"&limit=10000 HTTP/1.1\r\nHost: x\r\nX-API-Key: {device.api_key}\r\n\r\n"
    )
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", int(service.url.rsplit(":", 1)[1])))
        raw.sendall(ask.encode())
        deadline = time.monotonic() + PATIENCE_S
        stalled = 'iotflow_connections_refused_total{reason="stalled"} 1.0'
        while stalled not in httpx.get(f"{service.url}/metrics").text:
            assert time.monotonic() < deadline, "it is waited for still"
            time.sleep(0.2)


def asked_ahead(service: Served, requests: int) -> bytes:
    """What is said to as many requests that nobody waited with, until the last is answered or
    the connection ends."""
    said, last = b"", b"x-request-id: n%d\r\n" % (requests - 1)
    with connect(service) as raw:
        raw.settimeout(PATIENCE_S)
        with suppress(OSError):
            raw.sendall(
                b"".join(
                    b"GET /nope HTTP/1.1\r\nHost: x\r\nX-Request-ID: n%d\r\n\r\n" % number
                    for number in range(requests)
                )
            )
            while last not in said.lower() and (part := raw.recv(65_536)):
                said += part
    return said


def test_a_few_requests_sent_ahead_are_answered_in_turn(service: Served) -> None:
    said = asked_ahead(service, 17)
    answered = re.findall(rb"(?im)^x-request-id: n(\d+)\r$", said)
    assert answered == [b"%d" % number for number in range(17)]


def test_many_requests_sent_ahead_end_their_connection(service: Served) -> None:
    """A few bytes are a request, and each of those that wait takes a thousand times as many."""
    said = asked_ahead(service, 3_000)
    assert said.count(b"HTTP/1.1 ") < 100
    metrics = httpx.get(f"{service.url}/metrics").text
    assert 'iotflow_connections_refused_total{reason="pipelined"} 1.0' in metrics
