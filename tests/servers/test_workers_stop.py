"""Stopping a service of several processes is the same as stopping one."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.conftest import Served, register, served
from tests.process.test_stop import ended, open_request, wait_until_refused
from tests.servers.stores import postgres_only

pytestmark = pytest.mark.servers


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    grace = {"IOTFLOW_SERVER__GRACE_S": "60", "IOTFLOW_SERVER__STOP_S": "120"}
    with (
        postgres_only() as settings,
        served(tmp_path, arguments=("--workers", "2"), **settings, **grace) as running,
    ):
        yield running


def workers_of(service: Served) -> list[int]:
    """The processes that serve, which are python's as their parent is."""
    pid = service.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def test_requests_under_way_are_finished_though_all_were_told(service: Served) -> None:
    """As a supervisor does that sends the signal to each process of a group."""
    device = register(service.url)
    workers = workers_of(service)
    assert len(workers) == 2
    with open_request(service, device) as request:
        for pid in (service.process.pid, *workers):
            os.kill(pid, signal.SIGTERM)
        wait_until_refused(service)
        assert request.finish().startswith(b"HTTP/1.1 201")
    assert ended(service)[0] == 0


def test_told_twice_all_end_at_once(service: Served) -> None:
    device = register(service.url)
    with open_request(service, device) as request:
        service.process.send_signal(signal.SIGTERM)
        wait_until_refused(service)
        service.process.send_signal(signal.SIGTERM)
        status, said = ended(service)
        assert request.finish() == b""
    assert status == 128 + signal.SIGTERM
    assert "stopped_at_once" in said


def test_told_twice_in_one_breath_all_end_at_once(service: Served) -> None:
    """Two signals that differ: of two alike that are there at once a process sees one."""
    device = register(service.url)
    with open_request(service, device) as request:
        os.kill(service.process.pid, signal.SIGINT)
        os.kill(service.process.pid, signal.SIGTERM)
        status, said = ended(service)
        assert request.finish() == b""
    assert status in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert "stopped_at_once" in said
