"""What is measured: a row of the table each, and the devices that the rows need."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import httpx
import msgspec

from iotflow.cli.bench.plan import FixedRequests, Requests, TimedRequests
from iotflow.cli.bench.servers import Server
from iotflow.cli.wire import encode_request

API = "/api/v1"
DAY_MINUTES = 1440
BATCH_RECORDS = 50  # of two measurements: 100 points
HISTORY_DEVICES = 20
_BULK = 500
_DAY_MS = 86_400_000
_MINUTE_MS = 60_000


class SetupFailedError(Exception):
    """A server did not take what the rows need."""


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


@dataclass(frozen=True, slots=True)
class Row:
    """One row: which server, which requests, how many points a request carries."""

    name: str
    title: str
    server: str
    requests: Callable[[Fleet], Requests]
    expect: int = 200
    points: int = 0


def _post(fleet: Fleet, path: str, body: bytes, key: str) -> bytes:
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    return encode_request("POST", path, fleet.server.netloc, headers, body)


def _get(fleet: Fleet, path: str, device: BenchDevice) -> bytes:
    return encode_request("GET", path, fleet.server.netloc, {"X-API-Key": device.key})


def _reading(number: int) -> bytes:
    """The guide's example: two measurements, no timestamp, values that differ."""
    data = {"temperature": 20 + number % 100 / 10, "humidity": 50 + number % 37 / 10}
    return msgspec.json.encode({"data": data})


def _plain(fleet: Fleet) -> Requests:
    key = "iotd_" + "0" * 43
    return FixedRequests([_post(fleet, "/plain", _reading(n), key) for n in range(1000)])


def _echo(fleet: Fleet) -> Requests:
    return FixedRequests([_post(fleet, "/", _reading(n), "none") for n in range(1000)])


def _submit(fleet: Fleet) -> Requests:
    path = f"{API}/telemetry"
    return FixedRequests(
        [_post(fleet, path, _reading(n), device.key) for n, device in enumerate(fleet.writers)]
    )


def _batch(fleet: Fleet) -> Requests:
    """Batches that go on in time, a record a second, from half a year ago."""
    path = f"{API}/telemetry/batch"
    placeholder = f'"timestamp":{"0" * 13},'.encode()
    templates: list[bytes] = []
    for number, device in enumerate(fleet.writers):
        records = [_reading(number + i)[1:] for i in range(BATCH_RECORDS)]
        body = b",".join(b"{" + placeholder + record for record in records)
        request = _post(fleet, path, b'{"records":[' + body + b"]}", device.key)
        # Encoded with thirteen digits, so that Content-Length is right for any time till 2286.
        templates.append(request.replace(b"%", b"%%").replace(b"0" * 13, b"%d"))
    first_ms = int(time.time() * 1000) - 180 * _DAY_MS
    return TimedRequests(templates, BATCH_RECORDS, first_ms, 1000)


def _latest(fleet: Fleet) -> Requests:
    return FixedRequests(
        [_get(fleet, f"{API}/telemetry/{device.id}/latest", device) for device in fleet.writers]
    )


def _history(limit: int) -> Callable[[Fleet], Requests]:
    def requests(fleet: Fleet) -> Requests:
        query = f"?start_time=-24h&limit={limit}"
        return FixedRequests(
            [_get(fleet, f"{API}/telemetry/{it.id}{query}", it) for it in fleet.histories]
        )

    return requests


def _credentials(fleet: Fleet) -> Requests:
    path = f"{API}/devices/credentials"
    return FixedRequests([_get(fleet, path, device) for device in fleet.writers])


PLAIN = "plain"
ROWS: tuple[Row, ...] = (
    Row("echo", "raw ASGI echo (ceiling of server and generator)", "echo", _echo),
    Row(PLAIN, "plain FastAPI route (stores nothing)", "plain", _plain, 201),
    Row("submit", "submit, 2 measurements, durable", "iotflow", _submit, 201, 2),
    Row("batch", "batch of 100 points, durable", "iotflow", _batch, 201, 2 * BATCH_RECORDS),
    Row("latest", "latest values, cached", "iotflow", _latest),
    Row("uncached", "latest values, without a cache", "uncached", _latest),
    Row("history", "history of 24 h, limit=100", "iotflow", _history(100)),
    Row("day", f"history of 24 h, limit={DAY_MINUTES}", "iotflow", _history(DAY_MINUTES)),
    Row("credentials", "key validation over HTTP", "iotflow", _credentials),
)


def prepare(server: Server, devices: int) -> Fleet:
    """Register what the rows need and give every device something to be read.

    Raises:
        SetupFailedError: the server refused a step.
    """
    with httpx.Client(base_url=f"{server.base_url}{API}", timeout=60) as api:
        api.headers["Authorization"] = f"Bearer {_sign_in(api, server)}"
        found = list(_register(api, devices + HISTORY_DEVICES))
        fleet = Fleet(server, found[:devices], found[devices:])
        for number, device in enumerate(fleet.writers):
            headers = {"X-API-Key": device.key, "Content-Type": "application/json"}
            _expect(api.post("/telemetry", content=_reading(number), headers=headers), 201)
        for device in fleet.histories:
            _expect(
                api.post(
                    "/telemetry/batch", json=_day_of_minutes(), headers={"X-API-Key": device.key}
                ),
                201,
            )
    return fleet


def _sign_in(api: httpx.Client, server: Server) -> str:
    name = f"bench-{server.pid}-{time.time_ns():x}"
    account = {"username": name, "password": f"{name}-Password-1"}
    _expect(api.post("/auth/register", json={**account, "email": f"{name}@example.com"}), 201)
    token: str = _expect(api.post("/auth/login", json=account), 200)["access_token"]
    return token


def _register(api: httpx.Client, count: int) -> Iterator[BenchDevice]:
    names = iter(f"bench-{number:04d}" for number in range(count))
    while chunk := [{"name": name} for name in islice(names, _BULK)]:
        for result in _expect(api.post("/devices/bulk", json={"devices": chunk}), 201)["results"]:
            yield BenchDevice(result["device"]["id"], result["api_key"])


def _day_of_minutes() -> dict[str, object]:
    """One temperature a minute over the 24 hours until now."""
    now_ms = int(time.time() * 1000) // _MINUTE_MS * _MINUTE_MS
    first_ms = now_ms - (DAY_MINUTES - 1) * _MINUTE_MS
    return {
        "records": [
            {"timestamp": first_ms + i * _MINUTE_MS, "data": {"temperature": 20 + i % 100 / 10}}
            for i in range(DAY_MINUTES)
        ]
    }


def _expect(response: httpx.Response, status: int) -> dict[str, Any]:
    if response.status_code != status:
        raise SetupFailedError(
            f"{response.request.method} {response.request.url.path} answered "
            f"{response.status_code} instead of {status}: {response.text[:300]}"
        )
    answer: dict[str, Any] = response.json()
    return answer
