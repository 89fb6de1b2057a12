"""Hundreds of clients that are slow on purpose, all the time, while devices send.

What becomes of each kind of them is in tests/process/test_slow_clients.py.
"""

import asyncio
import re
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.faults.load import API, Device, Load, failures, fleet_of, missing, p99_s, told
from tests.faults.test_connections import resident_kb
from tests.process.conftest import Served, served

pytestmark = [pytest.mark.servers, pytest.mark.faults]

OF_EACH = 150
HEADER_S, REQUEST_S = 2.0, 3.0
LASTS_S = 30.0
DROP_S = 0.5
KILOBYTES_EACH = 200
# Two cores that the service, its clients and other programs share have slow moments.
SLOW_S = 1.0

HEAD = f"POST {API}/telemetry HTTP/1.1\r\nHost: x\r\n"


class SlowClients:
    """Each comes again when it is cut off."""

    def __init__(self, service: Served, device: Device) -> None:
        self._address = ("127.0.0.1", int(service.url.rsplit(":", 1)[1]))
        self._head = f"{HEAD}X-API-Key: {device.key['X-API-Key']}\r\n".encode()

    def tasks(self) -> list[asyncio.Task[None]]:
        """As many that do not come to an end with their headers as with their body."""
        body = self._head + b"Content-Type: application/json\r\nContent-Length: 900\r\n\r\n"
        kinds = [(self._head, b"X-A: b\r\n"), (body, b" ")]
        return [asyncio.create_task(self._drips(*kind)) for kind in kinds for _ in range(OF_EACH)]

    async def _drips(self, begin: bytes, drop: bytes) -> None:
        while True:
            reader, writer = await asyncio.open_connection(*self._address)
            try:
                writer.write(begin)
                with suppress(OSError):
                    await self._drip(reader, writer, drop)
            finally:
                writer.close()

    @staticmethod
    async def _drip(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drop: bytes
    ) -> None:
        """Until the service has enough."""
        while not reader.at_eof():
            with suppress(TimeoutError):
                async with asyncio.timeout(DROP_S):
                    await reader.read(1024)
                    continue
            writer.write(drop)
            await writer.drain()


async def refused(service: Served) -> dict[str, int]:
    """Connections that the service has ended, by reason."""
    async with httpx.AsyncClient(base_url=service.url, timeout=10) as client:
        text = (await client.get("/metrics")).text
    found = re.findall(r'iotflow_connections_refused_total\{reason="(\w+)"\} (\S+)', text)
    return {reason: int(float(count)) for reason, count in found}


async def test_slow_clients_are_cut_off_and_no_device_notices(tmp_path: Path) -> None:
    settings = {
        "IOTFLOW_SERVER__HEADER_S": str(HEADER_S),
        "IOTFLOW_SERVER__REQUEST_S": str(REQUEST_S),
    }
    with served(tmp_path / "data", **settings) as service:
        load = Load(await asyncio.to_thread(fleet_of, service.url, 10))
        slow = SlowClients(service, load.fleet.devices[0])
        loop = asyncio.get_running_loop()
        async with load.against(service.url):
            await asyncio.sleep(5)
            before_kb, began_s = resident_kb(service.process.pid), loop.time()
            clients = slow.tasks()
            await asyncio.sleep(LASTS_S)
            grown_kb = resident_kb(service.process.pid) - before_kb
            assert not any(each.done() for each in clients)
            for each in clients:
                each.cancel()
            await asyncio.wait(clients)
        ended = await refused(service)
        lost = await missing(service.url, load)
    told(
        f"{len(clients)} slow clients, of which were ended {ended}",
        load,
        len(lost),
        p99_before=p99_s(load.since(0, began_s)),
        p99_meanwhile=p99_s(load.since(began_s)),
        megabytes=grown_kb / 1024,
    )
    assert failures(load.answers) == []
    assert not lost
    # Half as often as their time allows: who comes again needs some, too.
    assert ended.get("slow_headers", 0) > OF_EACH * LASTS_S / HEADER_S / 2
    assert ended.get("slow_body", 0) > OF_EACH * LASTS_S / REQUEST_S / 2
    assert grown_kb < len(clients) * KILOBYTES_EACH
    assert p99_s(load.since(began_s)) < max(3 * p99_s(load.since(0, began_s)), SLOW_S)
