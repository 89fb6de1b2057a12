"""The devices that the rows need: registered, with something to be read."""

import contextlib
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import httpx
import msgspec

from iotflow.cli.bench.options import BenchError
from iotflow.cli.bench.servers import Server

API = "/api/v1"
DAY_MINUTES = 1440
HISTORY_DEVICES = 100
_BULK = 500
_MINUTE_MS = 60_000
# Devices are not in step: no two of them tell the same times.
_STEP_MS = 7_919


@dataclass(frozen=True, slots=True)
class BenchDevice:
    """A registered device and its key."""

    id: int
    key: str


@dataclass(frozen=True, slots=True)
class Fleet:
    """A server's devices: `writers` submit, `histories` have a day of one point a minute."""

    server: Server
    writers: Sequence[BenchDevice] = field(default_factory=tuple)
    histories: Sequence[BenchDevice] = field(default_factory=tuple)


def reading(number: int) -> bytes:
    """The guide's example: two measurements, no timestamp, values that differ."""
    data = {"temperature": 20 + number % 100 / 10, "humidity": 50 + number % 37 / 10}
    return msgspec.json.encode({"data": data})


def prepare(server: Server, devices: int, histories: int = HISTORY_DEVICES) -> Fleet:
    """Register what the rows need and give every device something to be read.

    Raises:
        BenchError: the server refused a step, or broke off.
    """
    with signed_in(server) as api:
        found = list(register(api, devices + histories))
        fleet = Fleet(server, found[:devices], found[devices:])
        for number, device in enumerate(fleet.writers):
            headers = {"X-API-Key": device.key, "Content-Type": "application/json"}
            expect(api.post("/telemetry", content=reading(number), headers=headers), 201)
        for number, device in enumerate(fleet.histories):
            key = {"X-API-Key": device.key}
            expect(api.post("/telemetry/batch", json=_day_of_minutes(number), headers=key), 201)
    return fleet


@contextlib.contextmanager
def signed_in(server: Server) -> Generator[httpx.Client]:
    """A client of a new account.

    Raises:
        BenchError: as `prepare`, also from within.
    """
    with reporting(server), httpx.Client(base_url=f"{server.base_url}{API}", timeout=60) as api:
        api.headers["Authorization"] = f"Bearer {_sign_in(api, server)}"
        yield api


@contextlib.contextmanager
def reporting(server: Server) -> Generator[None]:
    """Turns a broken connection into a BenchError that names the server."""
    try:
        yield
    except httpx.HTTPError as error:
        raise BenchError(f"The server '{server.name}' broke off: {error}") from None


def _sign_in(api: httpx.Client, server: Server) -> str:
    name = f"bench-{server.pid}-{time.time_ns():x}"
    account = {"username": name, "password": f"{name}-Password-1"}
    expect(api.post("/auth/register", json={**account, "email": f"{name}@example.com"}), 201)
    token: str = expect(api.post("/auth/login", json=account), 200)["access_token"]
    return token


def register(api: httpx.Client, count: int) -> Iterator[BenchDevice]:
    """New devices of the client's account.

    Raises:
        BenchError: the server refused.
    """
    names = iter(f"bench-{number:04d}" for number in range(count))
    while chunk := [{"name": name} for name in islice(names, _BULK)]:
        for result in expect(api.post("/devices/bulk", json={"devices": chunk}), 201)["results"]:
            yield BenchDevice(result["device"]["id"], result["api_key"])


def _day_of_minutes(number: int) -> dict[str, object]:
    """One temperature a minute over the 24 hours until now, at a second of the device's own."""
    own_ms = number * _STEP_MS % _MINUTE_MS
    now_ms = (int(time.time() * 1000) - own_ms) // _MINUTE_MS * _MINUTE_MS + own_ms
    first_ms = now_ms - (DAY_MINUTES - 1) * _MINUTE_MS
    return {
        "records": [
            {"timestamp": first_ms + i * _MINUTE_MS, "data": {"temperature": 20 + i % 100 / 10}}
            for i in range(DAY_MINUTES)
        ]
    }


def expect(response: httpx.Response, status: int) -> dict[str, Any]:
    """The answer's JSON.

    Raises:
        BenchError: it has another status.
    """
    if response.status_code != status:
        raise BenchError(
            f"{response.request.method} {response.request.url.path} answered "
            f"{response.status_code} instead of {status}: {response.text[:300]}"
        )
    answer: dict[str, Any] = response.json()
    return answer
