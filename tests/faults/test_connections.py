"""Ten thousand connections that say nothing, while devices send."""

import asyncio
import re
import resource
from pathlib import Path

import pytest

from tests.faults.load import Load, failures, fleet_of, missing, p99_s, told
from tests.process.conftest import served

pytestmark = [pytest.mark.servers, pytest.mark.faults]

IDLE = 10_000
KILOBYTES_EACH = 40


def resident_kb(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


async def test_idle_connections_cost_little_and_no_device_notices(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > IDLE + 1_000, "this machine does not let a process have so many descriptors"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    settings = {
        "IOTFLOW_SERVER__MAX_CONNECTIONS": str(IDLE + 500),
        "IOTFLOW_SERVER__HEADER_S": "120",
        "IOTFLOW_SERVER__REQUEST_S": "120",
    }
    with served(tmp_path / "data", **settings) as service:
        load = Load(await asyncio.to_thread(fleet_of, service.url, 10))
        host, port = "127.0.0.1", int(service.url.rsplit(":", 1)[1])
        writers: list[asyncio.StreamWriter] = []
        async with load.against(service.url):
            await asyncio.sleep(2)
            before_kb = resident_kb(service.process.pid)
            for _ in range(IDLE // 100):
                opened = await asyncio.gather(
                    *(asyncio.open_connection(host, port) for _ in range(100))
                )
                writers += [writer for _, writer in opened]
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            await asyncio.sleep(5)
            grown_kb = resident_kb(service.process.pid) - before_kb
            held = sum(not writer.transport.is_closing() for writer in writers)
            for writer in writers:
                writer.close()
            await asyncio.sleep(2)
        lost = await missing(service.url, load)
    meanwhile = load.since(began_s)
    told(
        "10,000 idle connections", load, len(lost), megabytes=grown_kb / 1024, p99=p99_s(meanwhile)
    )
    assert held == IDLE
    assert failures(load.answers) == []
    assert grown_kb < IDLE * KILOBYTES_EACH
    assert not lost
