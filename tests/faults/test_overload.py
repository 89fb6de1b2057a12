"""Three times as much as the service can take, for a minute."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from iotflow.cli.wire import encode_request
from iotflow.domain.times import parse_rfc3339
from tests.faults.load import API, Device, Fleet, fleet_of
from tests.faults.offered import Offer, Seen
from tests.faults.test_connections import resident_kb
from tests.process.conftest import Served, served

pytestmark = [pytest.mark.servers, pytest.mark.faults]

OVERLOAD_S = float(os.environ.get("FAULTS_OVERLOAD_S", "60"))
TIMES = 3
DEVICES = 50
CONNECTIONS = 1_500
AT_ONCE = 64
SETTINGS = {
    # Connections that nothing is sent on yet must not be closed meanwhile.
    "IOTFLOW_SERVER__HEADER_S": "300",
    "IOTFLOW_SERVER__REQUEST_S": "300",
}
HISTORY = 500
GROWTH_KB = 256 * 1024
# Two cores that the service, its clients and other programs share have slow moments.
SLOW_S, ONSET_SLOW_S = 0.5, 1.5
# By then it is known to be too much, and what had come before is worked off.
ONSET_S = 3.0


class Requests:
    """A submission and a reading of 500 points in turn, of many devices.

    A reading costs many times what it costs to refuse it: else nobody could refuse twice what he
    can do. Each submission has a timestamp of its own; it remembers which were acknowledged.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.acknowledged: dict[int, set[int]] = {each.id: set() for each in fleet.devices}
        self._devices = fleet.devices
        self._first_ms = int(time.time() * 1000) - 3_600_000
        self._submits = [self._submit(each) for each in fleet.devices]
        self._reads = [self._read(each) for each in fleet.devices]

    def all(self) -> Iterator[tuple[int, bytes]]:
        """The number of each, odd for a reading, and its bytes."""
        number = 0
        while True:
            device, is_read = self._of(number)
            if is_read:
                yield number, self._reads[device]
            else:
                yield number, self._submits[device] % (self._first_ms + number)
            number += 1

    def stored(self, number: int) -> None:
        device, _ = self._of(number)
        self.acknowledged[self._devices[device].id].add(self._first_ms + number)

    def _of(self, number: int) -> tuple[int, bool]:
        return number // 2 % len(self._devices), number % 2 == 1

    def _submit(self, device: Device) -> bytes:
        body = b'{"data": {"m0": 1.5, "m1": 2.5}, "timestamp": 1000000000000}'
        request = encode_request("POST", f"{API}/telemetry", "x", device.key, body)
        return request.replace(b"1000000000000", b"%d")

    def _read(self, device: Device) -> bytes:
        path = f"{API}/telemetry/{device.id}?limit={HISTORY}"
        return encode_request("GET", path, "x", device.key)


def fill(url: str, fleet: Fleet) -> None:
    """What is read: each device has that many points, from two hours ago."""
    begin_ms = int(time.time() * 1000) - 7_200_000
    records = [{"timestamp": begin_ms + n, "data": {"old": n}} for n in range(HISTORY)]
    with httpx.Client(base_url=f"{url}{API}", timeout=30) as client:
        for device in fleet.devices:
            answer = client.post("/telemetry/batch", json={"records": records}, headers=device.key)
            assert answer.status_code == 201, answer.text


async def stored_times(client: httpx.AsyncClient, device: Device) -> set[int]:
    """When the device has a point of the first measurement."""
    found: set[int] = set()
    params: dict[str, str | int] = {"measurement": "m0", "limit": 10_000, "start_time": "-2h"}
    while True:
        answer = await client.get(f"{API}/telemetry/{device.id}", params=params, headers=device.key)
        page = answer.raise_for_status().json()
        found |= {parse_rfc3339(point["timestamp"]) for point in page["data"]}
        if page["next_cursor"] is None:
            return found
        params["cursor"] = page["next_cursor"]


class Watch:
    """Asks for health and metrics twice a second, and looks at the memory."""

    def __init__(self, service: Served) -> None:
        self.longest_s = 0.0
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.asked = 0
        self.most_kb = 0
        self._service = service

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self._service.url, timeout=20) as client:
            while True:
                for path in ("/health", "/metrics"):
                    began_s = time.monotonic()
                    self.statuses[path, (await client.get(path)).status_code] += 1
                    self.longest_s = max(self.longest_s, time.monotonic() - began_s)
                    self.asked += 1
                self.most_kb = max(self.most_kb, resident_kb(self._service.process.pid))
                await asyncio.sleep(0.5)


async def watched(service: Served, offer: Offer, rate: float) -> tuple[Seen, Watch]:
    watch = Watch(service)
    watching = asyncio.create_task(watch.run())
    try:
        return await offer.open_loop(rate, OVERLOAD_S), watch
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def lost_of(url: str, devices: Sequence[Device], requests: Requests) -> int:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        return sum(
            [
                len(requests.acknowledged[each.id] - await stored_times(client, each))
                for each in devices
            ]
        )


async def test_three_times_the_capacity(tmp_path: Path) -> None:
    with served(tmp_path / "data", **SETTINGS) as service:
        fleet = await asyncio.to_thread(fleet_of, service.url, DEVICES)
        await asyncio.to_thread(fill, service.url, fleet)
        requests = Requests(fleet)
        offer = Offer(requests.all(), requests.stored)
        await offer.connect(service.url, CONNECTIONS)
        await offer.closed_loop(3, AT_ONCE)
        capacity = (await offer.closed_loop(8, AT_ONCE)).served
        normal = await offer.open_loop(capacity / 2, 8)
        before_kb = resident_kb(service.process.pid)
        seen, watch = await watched(service, offer, TIMES * capacity)
        after = await offer.open_loop(capacity / 2, 5)
        await offer.close()
        lost = await lost_of(service.url, fleet.devices, requests)
    grown_kb = watch.most_kb - before_kb
    print(
        f"three times capacity: {OVERLOAD_S:.0f} s, capacity {capacity:.0f}/s, answered "
        f"{seen.served:.0f}/s, refused {seen.rate(503):.0f}/s, {dict(seen.statuses)}, "
        f"{seen.unanswered} unanswered, {seen.broken} closed, {lost} lost; "
        f"sent late by {seen.share_late_s(0.5):.3f} s "
        f"(median), {seen.share_late_s(0.99):.3f} s (p99)"
    )
    for name, each in {"normal": normal, "meanwhile": seen, "afterwards": after}.items():
        figures = ", ".join(
            f"{status} {each.share_s(0.5, status):.3f} s / {each.share_s(0.99, status):.3f} s"
            for status in each.statuses
        )
        print(f"{name}, median / p99: {figures}")
    settled = {status: seen.share_s(0.99, status, ONSET_S) for status in (200, 201)}
    print(f"p99 after the first {ONSET_S:.0f} s: {settled[201]:.3f} s, {settled[200]:.3f} s")
    print(
        f"{watch.asked} probes {dict(watch.statuses)}, longest {watch.longest_s:.2f} s; "
        f"{grown_kb / 1024:.0f} MiB more"
    )
    assert set(normal.statuses) == {200, 201}
    assert set(seen.statuses) == {200, 201, 503}
    assert seen.without_retry_after == 0
    assert {status for _, status in watch.statuses} == {200}
    assert watch.asked > OVERLOAD_S / 2
    assert set(after.statuses) == {200, 201}, "it is over at once"
    assert grown_kb < GROWTH_KB
    assert lost == 0
    assert seen.served > capacity / 3
    assert seen.share_s(0.99) < max(5 * normal.share_s(0.99), ONSET_SLOW_S)
    assert settled[201] < max(5 * normal.share_s(0.99), SLOW_S)
