"""Bodies as they come from a socket: with their headers, behind them, in parts."""

import gzip
import json
import socket
import time
from collections.abc import Iterator, Sequence

import pytest

from tests.process.conftest import Credentials, Served, register, served

PAUSE_S = 0.1
MAX_BODY_BYTES = 64 * 1024
BATCH_AT_MS = 1_767_225_600_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("bodies") / "data"
    with served(directory, IOTFLOW_INGEST__MAX_BODY_BYTES=str(MAX_BODY_BYTES)) as running:
        yield running


@pytest.fixture(scope="module")
def device(service: Served) -> Credentials:
    return register(service.url)


@pytest.fixture
def connection(service: Served) -> Iterator[socket.socket]:
    address = ("127.0.0.1", int(service.url.rsplit(":", 1)[1]))
    with socket.create_connection(address, timeout=10) as opened:
        yield opened


def request(device: Credentials, body: bytes, *fields: str, path: str = "telemetry") -> bytes:
    lines = (
        f"POST /api/v1/{path} HTTP/1.1",
        "Host: x",
        f"X-API-Key: {device.api_key}",
        f"Content-Length: {len(body)}",
        *fields,
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answer(connection: socket.socket) -> tuple[int, dict[str, object]]:
    """The status and the document of the next answer."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += connection.recv(1)
    head = said.decode().lower()
    size = int(head.split("content-length: ")[1].split("\r\n")[0])
    body = b""
    while len(body) < size:
        body += connection.recv(size - len(body))
    return int(head.split(" ")[1]), json.loads(body)


def send(connection: socket.socket, parts: Sequence[bytes]) -> None:
    for part in parts:
        connection.sendall(part)
        time.sleep(PAUSE_S if len(parts) > 1 else 0)


def data(**values: float) -> bytes:
    return json.dumps({"data": values}).encode()


@pytest.mark.parametrize("cuts", [(), (-1,), (-20,), (30,), (30, -20, -10)])
def test_it_is_stored_however_it_is_cut(
    connection: socket.socket, device: Credentials, cuts: tuple[int, ...]
) -> None:
    for number in range(3):  # on one connection, one after the other
        whole = request(device, data(a=number, b=0.5))
        ends = [cut % len(whole) for cut in cuts]
        parts = [whole[a:b] for a, b in zip([0, *ends], [*ends, len(whole)], strict=True)]
        send(connection, parts)
        status, receipt = answer(connection)
        assert (status, receipt["accepted"]) == (201, 2)


def test_requests_sent_ahead_have_each_its_own(
    connection: socket.socket, device: Credentials
) -> None:
    bodies = [data(**{f"m{n}": n for n in range(count)}) for count in (1, 5, 2, 7)]
    send(connection, [b"".join([request(device, body) for body in bodies])])
    assert [answer(connection)[1]["accepted"] for _ in bodies] == [1, 5, 2, 7]


def test_one_that_is_packed(connection: socket.socket, device: Credentials) -> None:
    send(connection, [request(device, gzip.compress(data(a=1)), "Content-Encoding: gzip")])
    assert answer(connection)[0] == 201
    bomb = gzip.compress(b" " * (MAX_BODY_BYTES + 1))
    send(connection, [request(device, bomb, "Content-Encoding: gzip")])
    assert answer(connection)[0] == 413


def test_one_that_is_too_large(connection: socket.socket, device: Credentials) -> None:
    send(connection, [request(device, b" " * (MAX_BODY_BYTES + 1))])
    status, problem = answer(connection)
    assert (status, problem["code"]) == (413, "body_too_large")


def test_one_that_fills_the_buffers_and_one_after_it(
    connection: socket.socket, device: Credentials
) -> None:
    records = [{"timestamp": BATCH_AT_MS + n, "data": {"a": n}} for n in range(4_000)]
    body = json.dumps({"records": records}).encode()
    assert len(body) > 2 * 65_536, "uvicorn stops reading there, until it is asked for more"
    send(connection, [request(device, body, path="telemetry/batch"), request(device, data(a=1))])
    assert answer(connection)[1]["accepted"] == 4_000
    assert answer(connection)[1]["accepted"] == 1


def test_one_whose_client_waits_to_be_told(connection: socket.socket, device: Credentials) -> None:
    whole = request(device, data(a=1), "Expect: 100-continue")
    head, _, body = whole.partition(b"\r\n\r\n")
    send(connection, [head + b"\r\n\r\n"])
    assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    send(connection, [body])
    assert answer(connection)[0] == 201


def test_one_in_chunks(connection: socket.socket, device: Credentials) -> None:
    head = request(device, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    body = data(a=1)
    chunks = b"".join([b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:4], body[4:])])
    for parts in ([head + chunks + b"0\r\n\r\n"], [head, chunks, b"0\r\n\r\n"]):
        send(connection, parts)
        assert answer(connection)[0] == 201


def test_a_key_that_opens_nothing_leaves_the_connection_usable(
    connection: socket.socket, device: Credentials
) -> None:
    stranger = request(device, data(a=1)).replace(device.api_key.encode(), b"iotd_" + b"x" * 43)
    send(connection, [stranger + request(device, data(a=1))])
    assert answer(connection)[0] == 401
    assert answer(connection)[0] == 201
