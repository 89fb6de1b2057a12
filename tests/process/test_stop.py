"""Stopping the service: what was begun is finished within a bound; told twice, it ends at once."""

import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.process.conftest import Credentials, Served, register, served

PATIENCE_S = 20.0


class OpenRequest:
    """A submission whose body is not all there yet."""

    def __init__(self, service: Served, device: Credentials) -> None:
        self._socket = socket.create_connection(
            ("127.0.0.1", int(service.url.rsplit(":", 1)[1])), timeout=PATIENCE_S
        )
        body = b'{"data": {"late": 1}}'
        head = (
            f"POST /api/v1/telemetry HTTP/1.1\r\nHost: x\r\nX-API-Key: {device.api_key}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + body[:-1])
        self._rest = body[-1:]

    def finish(self) -> bytes:
        """Send the rest; what comes back, which is nothing where it was cut off."""
        try:
            self._socket.sendall(self._rest)
            return self._socket.recv(65_536)
        except ConnectionError:
            return b""

    def close(self) -> None:
        self._socket.close()


@contextmanager
def open_request(service: Served, device: Credentials) -> Iterator[OpenRequest]:
    with closing(OpenRequest(service, device)) as request:
        # The service knows of it once it has answered one that came later.
        assert submit(service, device).status_code == 201
        yield request


def submit(service: Served, device: Credentials) -> httpx.Response:
    body = {"data": {"a": 1}}
    url = f"{service.url}/api/v1/telemetry"
    return httpx.post(url, json=body, headers=device.key, timeout=PATIENCE_S)


def ended(service: Served) -> tuple[int, str]:
    """Its exit status and what it said."""
    status = service.process.wait(timeout=PATIENCE_S)
    return status, service.log.read_text()


def test_it_is_unready_first_and_still_serves(tmp_path: Path) -> None:
    with served(tmp_path, IOTFLOW_SERVER__STOP_DELAY_S="2") as service:
        device = register(service.url)
        service.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE_S
        while (ready := httpx.get(f"{service.url}/health/ready")).status_code == 200:
            assert time.monotonic() < deadline
        assert (ready.status_code, ready.json()["reasons"]) == (503, ["the service is stopping"])
        assert httpx.get(f"{service.url}/health/live").status_code == 200
        assert submit(service, device).status_code == 201
        assert ended(service)[0] == 0
    assert submissions(tmp_path) == 1


def test_requests_under_way_are_finished(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        device = register(service.url)
        with open_request(service, device) as request:
            service.process.send_signal(signal.SIGTERM)
            wait_until_refused(service)
            assert request.finish().startswith(b"HTTP/1.1 201")
        assert ended(service)[0] == 0
    assert submissions(tmp_path) == 2


def test_requests_that_do_not_end_are_cut_off_and_said(tmp_path: Path) -> None:
    with served(tmp_path, IOTFLOW_SERVER__GRACE_S="0.5") as service:
        device = register(service.url)
        with open_request(service, device) as request:
            service.process.send_signal(signal.SIGTERM)
            status, said = ended(service)
            answer = request.finish()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b'"code":"overloaded"' in answer
    assert b"retry-after: 1" in answer
    assert status == 1
    assert "stopped_unfinished" in said
    assert "requests=1" in said
    assert submissions(tmp_path) == 1, "what was queued is written all the same"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_twice_it_ends_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with served(tmp_path, IOTFLOW_SERVER__GRACE_S="60", IOTFLOW_SERVER__STOP_S="120") as service:
        device = register(service.url)
        with open_request(service, device):
            service.process.send_signal(number)
            wait_until_refused(service)
            service.process.send_signal(number)
            status, said = ended(service)
    assert status == 128 + number
    assert "stopped_at_once" in said
    assert "events=" in said


def test_the_bound_ends_it(tmp_path: Path) -> None:
    with served(tmp_path, IOTFLOW_SERVER__GRACE_S="60", IOTFLOW_SERVER__STOP_S="1") as service:
        device = register(service.url)
        with open_request(service, device):
            service.process.send_signal(signal.SIGTERM)
            status, said = ended(service)
    assert status == 1
    assert "stop_took_too_long" in said


def test_events_that_could_not_be_written_are_counted(tmp_path: Path) -> None:
    """Somebody holds the lock on their file, as a store that is away would hold them up."""
    with served(tmp_path, IOTFLOW_PIPELINE__DRAIN_S="0.5") as service:
        device = register(service.url)
        with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as events:
            wait_until_written(events, "device.registered")  # the last that registering tells
            events.execute("BEGIN IMMEDIATE")
            for _ in range(3):
                assert submit(service, device).status_code == 201
            service.process.send_signal(signal.SIGTERM)
            status, said = ended(service)
    assert status == 1
    assert "stopped_unfinished" in said
    assert "events=3" in said
    with closing(sqlite3.connect(tmp_path / "telemetry.db")) as telemetry:
        (points,) = telemetry.execute("SELECT count(*) FROM journal").fetchone()
        (merged,) = telemetry.execute("SELECT count(*) FROM points").fetchone()
    assert points + merged > 0, "what they tell of is there, to make them again from"


def test_under_load_each_answer_that_was_given_is_kept(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        device = register(service.url)
        accepted: list[int] = []

        def load() -> None:
            with httpx.Client(timeout=PATIENCE_S) as client:
                while True:
                    try:
                        sent = client.post(
                            f"{service.url}/api/v1/telemetry",
                            json={"data": {"a": 1}},
                            headers=device.key,
                        )
                    except httpx.TransportError:
                        return
                    if sent.status_code == 201:
                        accepted.append(1)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + PATIENCE_S
        while len(accepted) < 20:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        service.process.send_signal(signal.SIGTERM)
        assert ended(service)[0] == 0
        for thread in threads:
            thread.join()
    assert submissions(tmp_path) >= len(accepted), "one whose answer was on its way counts too"


def wait_until_refused(service: Served) -> None:
    """Until its listener is closed."""
    address = ("127.0.0.1", int(service.url.rsplit(":", 1)[1]))
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(address, timeout=1).close()
        except OSError:
            return
        assert time.monotonic() < deadline, "it still listens"
        os.sched_yield()


def wait_until_written(events: sqlite3.Connection, event_type: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    count = "SELECT count(*) FROM events WHERE event_type = ?"
    while events.execute(count, (event_type,)).fetchone() == (0,):
        assert time.monotonic() < deadline, f"{event_type} is not written"
        time.sleep(0.02)


def submissions(data_dir: Path) -> int:
    """How many submissions the event log tells of."""
    with closing(sqlite3.connect(data_dir / "events.db")) as events:
        (count,) = events.execute(
            "SELECT count(*) FROM events WHERE event_type = 'telemetry.submitted'"
        ).fetchone()
    return int(count)
