"""The embedded default on a disk that is full or read-only, and without a free descriptor."""

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.faults.load import Load, fleet_of, missing, settled_s, told
from tests.process.conftest import Served, environment, free_port, served

pytestmark = [pytest.mark.servers, pytest.mark.faults]

DEVICES = 5
MAY_MOUNT = os.geteuid() == 0
SLOW_S = 1.5
RECOVERY_S = 10.0
Fault = Callable[[Path, Served], AbstractContextManager[None]]


@contextmanager
def small_disk(at: Path) -> Iterator[None]:
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", at], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", at], check=True)


@contextmanager
def full(disk: Path, _service: Served) -> Iterator[None]:
    """Another file takes all the room that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65_536, 4096, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def no_file_may_grow(disk: Path, service: Served) -> Iterator[None]:
    """As a quota does: what lies beyond the present sizes cannot be written."""
    _, hard = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (hard, hard))


async def with_fault(service: Served, disk: Path, row: str, fault: Fault) -> None:
    """Refused clearly while it lasts, well again afterwards, and nothing lost."""
    loop = asyncio.get_running_loop()
    load = Load(await asyncio.to_thread(fleet_of, service.url, DEVICES))
    async with load.against(service.url):
        await asyncio.sleep(2)
        with fault(disk, service):
            began_s = loop.time()
            await asyncio.sleep(4)
            async with httpx.AsyncClient(base_url=service.url, timeout=10) as client:
                alive = await client.get("/health/live")
        ended_s = loop.time()
        await asyncio.sleep(4)
    lost = await missing(service.url, load)
    refused = [each for each in load.since(began_s, ended_s) if each.status != 201]
    recovery_s = max(0.0, settled_s(load.since(ended_s), SLOW_S) - ended_s)
    told(row, load, len(lost), refused=len(refused), recovery=recovery_s)
    assert refused, "the fault was none"
    assert {answer.status for answer in refused} == {503}
    assert all(answer.retry_after for answer in refused)
    assert alive.status_code == 200
    assert recovery_s < RECOVERY_S
    assert load.given_up == 0
    assert not lost


if MAY_MOUNT:

    async def test_the_disk_is_full(tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        with small_disk(disk), served(disk / "data") as service:
            await with_fault(service, disk, "disk full (tmpfs)", full)


async def test_no_file_may_grow(tmp_path: Path) -> None:
    with served(tmp_path / "data") as service:
        fault = no_file_may_grow
        await with_fault(service, tmp_path, "disk full (RLIMIT_FSIZE)", fault)


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Root writes where no mode lets it; a mount it heeds."""
    if not MAY_MOUNT:
        directory.chmod(0o555)
        yield
        directory.chmod(0o755)
        return
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


async def test_a_data_directory_that_is_read_only_is_told_in_a_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with served(data) as service:
        load = Load(await asyncio.to_thread(fleet_of, service.url, DEVICES))
        async with load.against(service.url):
            await asyncio.sleep(1)
    with read_only(data):
        done = await asyncio.to_thread(start_in_vain, data)
    assert done.returncode != 0
    assert str(data) in done.stdout
    assert "Traceback" not in done.stdout
    with served(data) as service:
        lost = await missing(service.url, load)
    told("data directory read-only", load, len(lost))
    assert not lost


def start_in_vain(data: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "iotflow.cli.main", "serve"],
        env=environment(data, free_port()),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )


def descriptors(service: Served) -> int:
    return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))


async def test_no_descriptor_is_left(tmp_path: Path) -> None:
    with served(tmp_path / "data") as service:
        pid = service.process.pid
        load = Load(await asyncio.to_thread(fleet_of, service.url, DEVICES))
        async with load.against(service.url):
            await asyncio.sleep(2)
            limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(service), limits[1]))
            with pytest.raises(httpx.TransportError):
                await asyncio.to_thread(httpx.get, f"{service.url}/health/live", timeout=3)
            before = load.count
            await asyncio.sleep(3)
            went_on = load.count - before
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
            freed_s = asyncio.get_running_loop().time()
            alive = await asyncio.to_thread(httpx.get, f"{service.url}/health/live", timeout=10)
            recovery_s = asyncio.get_running_loop().time() - freed_s
            await asyncio.sleep(1)
        lost = await missing(service.url, load)
    told("no descriptor left", load, len(lost), acknowledged_meanwhile=went_on, recovery=recovery_s)
    assert went_on > 0, "who is connected goes on"
    assert alive.status_code == 200
    assert load.given_up == 0
    assert not lost
