"""Devices that send all the time, and remember what was acknowledged."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from iotflow.domain.times import parse_rfc3339
from tests.process.conftest import PASSWORD, Served

API = "/api/v1"
_PAUSE_S = 0.05
_AGAIN_S = 0.1


@dataclass(frozen=True)
class Device:
    id: int
    key: dict[str, str]


@dataclass(frozen=True)
class Fleet:
    """Devices of one account, and its access token."""

    devices: Sequence[Device]
    bearer: dict[str, str]


def fleet_of(url: str, count: int, username: str = "ada") -> Fleet:
    """A new account with so many devices."""
    with httpx.Client(base_url=f"{url}{API}", timeout=30) as client:
        account = {"username": username, "password": PASSWORD}
        client.post("/auth/register", json=account | {"email": f"{username}@example.com"})
        token = client.post("/auth/login", json=account).json()["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        names = {"devices": [{"name": f"device {number}"} for number in range(count)]}
        answer = client.post("/devices/bulk", json=names, headers=bearer)
        assert answer.status_code == 201, answer.text
        return Fleet(
            [
                Device(each["device"]["id"], {"X-API-Key": each["api_key"]})
                for each in answer.json()["results"]
            ],
            bearer,
        )


@dataclass(frozen=True)
class Answer:
    """One answer to one attempt; `status` 0 is a connection that broke."""

    began_s: float
    took_s: float
    status: int
    retry_after: str | None = None


@dataclass
class Load:
    """Each device sends a point about every 50 ms, again and again until it is acknowledged.

    `acknowledged` and `sent`: timestamp in milliseconds -> value, by device.
    """

    fleet: Fleet
    answers: list[Answer] = field(default_factory=list)
    sent: dict[int, dict[int, int]] = field(default_factory=dict)
    acknowledged: dict[int, dict[int, int]] = field(default_factory=dict)
    given_up: int = 0
    patience_s: float = 60.0
    _numbers: int = 0
    _last_ms: int = 0

    @asynccontextmanager
    async def against(self, url: str) -> AsyncGenerator[None]:
        """Load while the block runs. At its end the submissions at hand are brought to an end."""
        stop = asyncio.Event()
        limits = httpx.Limits(max_connections=len(self.fleet.devices))
        async with httpx.AsyncClient(base_url=url, timeout=20, limits=limits) as client:
            senders = [
                asyncio.create_task(self._send(client, device, stop))
                for device in self.fleet.devices
            ]
            try:
                yield
            finally:
                stop.set()
                await asyncio.gather(*senders)

    async def until_killed(self, service: Served, after_s: float, at_least: int) -> None:
        """Load on a service that is killed meanwhile, once so many points more were acknowledged;
        who is not answered gives up.
        """
        self.patience_s, before = 0.0, self.count
        async with self.against(service.url), asyncio.timeout(60):
            await asyncio.sleep(after_s)
            while self.count - before <= at_least:  # noqa: ASYNC110 - senders have no event
                await asyncio.sleep(0.01)
            service.kill()

    @property
    def count(self) -> int:
        """How many points were acknowledged."""
        return sum(map(len, self.acknowledged.values()))

    def since(self, began_s: float, ended_s: float = math.inf) -> list[Answer]:
        """Answers to attempts that began in this time."""
        return [each for each in self.answers if began_s <= each.began_s < ended_s]

    async def _send(self, client: httpx.AsyncClient, device: Device, stop: asyncio.Event) -> None:
        while not stop.is_set():
            timestamp_ms, number = self._next()
            self.sent.setdefault(device.id, {})[timestamp_ms] = number
            if await self._persist(client, device, timestamp_ms, number):
                self.acknowledged.setdefault(device.id, {})[timestamp_ms] = number
            else:
                self.given_up += 1
            await asyncio.sleep(_PAUSE_S)

    async def _persist(
        self, client: httpx.AsyncClient, device: Device, timestamp_ms: int, number: int
    ) -> bool:
        body = {"data": {"n": number}, "timestamp": timestamp_ms}
        deadline = time.monotonic() + self.patience_s
        while True:
            answer = await self._attempt(client, device, body)
            self.answers.append(answer)
            if answer.status == 201:
                return True
            assert answer.status in (0, 503), answer
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_AGAIN_S)

    @staticmethod
    async def _attempt(client: httpx.AsyncClient, device: Device, body: object) -> Answer:
        began_s = time.monotonic()
        try:
            answer = await client.post(f"{API}/telemetry", json=body, headers=device.key)
        except httpx.TransportError:
            return Answer(began_s, time.monotonic() - began_s, 0)
        took_s = time.monotonic() - began_s
        return Answer(began_s, took_s, answer.status_code, answer.headers.get("Retry-After"))

    def _next(self) -> tuple[int, int]:
        """A timestamp that no other point has, and a number."""
        self._last_ms = max(self._last_ms + 1, int(time.time() * 1000))
        self._numbers += 1
        return self._last_ms, self._numbers


def p99_s(answers: Sequence[Answer]) -> float:
    ordered = sorted(answer.took_s for answer in answers)
    return ordered[math.ceil(len(ordered) * 0.99) - 1]


def failures(answers: Sequence[Answer]) -> list[Answer]:
    return [answer for answer in answers if answer.status != 201]


def settled_s(answers: Sequence[Answer], slow_s: float) -> float:
    """When the last answer came that was a failure or slower than this; 0 if there was none."""
    bad = [each for each in answers if each.status != 201 or each.took_s > slow_s]
    return max((each.began_s + each.took_s for each in bad), default=0.0)


async def missing(url: str, load: Load) -> list[tuple[int, int]]:
    """Acknowledged points (device, timestamp) that are not there with their value.

    What is there was sent, and the latest value is the newest of what is there.
    """
    lost: list[tuple[int, int]] = []
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        for device in load.fleet.devices:
            found = await history(client, device)
            acknowledged = load.acknowledged.get(device.id, {})
            lost += [(device.id, at) for at, n in acknowledged.items() if found.get(at) != n]
            assert found.items() <= load.sent.get(device.id, {}).items()
            if found:
                assert await latest(client, device) == found[max(found)]
    return lost


async def history(client: httpx.AsyncClient, device: Device) -> dict[int, int]:
    """All points of a device, timestamp -> value."""
    found: dict[int, int] = {}
    params: dict[str, str | int] = {"limit": 10_000, "start_time": "-2h", "end_time": "now"}
    while True:
        path = f"{API}/telemetry/{device.id}"
        answer = await client.get(path, params=params, headers=device.key)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        for point in page["data"]:
            at = parse_rfc3339(point["timestamp"])
            assert at not in found, "a point is there twice"
            found[at] = point["value"]
        if page["next_cursor"] is None:
            return found
        params["cursor"] = page["next_cursor"]


async def latest(client: httpx.AsyncClient, device: Device) -> int:
    answer = await client.get(f"{API}/telemetry/{device.id}/latest", headers=device.key)
    assert answer.status_code == 200, answer.text
    value: int = answer.json()["data"]["n"]
    return value


def told(row: str, load: Load, lost: int, **seen: float) -> None:
    """What docs/reliability.md says of a fault; `pytest -rP` shows it."""
    statuses: dict[int, int] = {}
    for answer in load.answers:
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
    began_s = load.answers[0].began_s
    lasted_s = load.answers[-1].began_s - began_s
    figures = ", ".join(f"{name} {value:.2f}" for name, value in seen.items())
    print(
        f"{row}: {lasted_s:.0f} s, {load.count} acknowledged, {lost} lost, "
        f"{load.given_up} given up, answers {statuses}, {figures}"
    )
