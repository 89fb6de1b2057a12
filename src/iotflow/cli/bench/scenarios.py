"""What is measured: a row of the table each."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from iotflow.cli.bench.fleet import API, DAY_MINUTES, BenchDevice, Fleet, reading
from iotflow.cli.bench.plan import FixedRequests, Requests, TimedRequests
from iotflow.cli.wire import encode_request

BATCH_RECORDS = 50  # of two measurements: 100 points
PLACEHOLDER = b"0" * 13
_DAY_MS = 86_400_000

ECHO, PLAIN, IOTFLOW, UNCACHED = "echo", "plain", "iotflow", "uncached"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: which server, which requests, how many points a request carries.

    `server` is a yardstick that all systems share (ECHO, PLAIN) or one of a system's. `fixed_rate`
    is a row of an open loop alone, at the guide's rate. `naive`: the naive system has it as well.
    """

    name: str
    title: str
    server: str
    requests: Callable[[Fleet], Requests]
    expect: int = 200
    points: int = 0
    fixed_rate: bool = False
    naive: bool = False

    @property
    def is_yardstick(self) -> bool:
        return self.server in (ECHO, PLAIN)


def post(fleet: Fleet, path: str, body: bytes, key: str, **more: str) -> bytes:
    """A request with a JSON body and `more` headers, as it goes over the wire."""
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    return encode_request("POST", path, fleet.server.netloc, headers | more, body)


def _get(fleet: Fleet, path: str, device: BenchDevice) -> bytes:
    return encode_request("GET", path, fleet.server.netloc, {"X-API-Key": device.key})


def wide_reading(number: int, measurements: int) -> bytes:
    """A submission of so many measurements, without a timestamp."""
    data = {f"m{i:03d}": 20 + (number + i) % 100 / 10 for i in range(measurements)}
    return msgspec.json.encode({"data": data})


def plain_requests(fleet: Fleet) -> Requests:
    key = "iotd_" + "0" * 43
    return FixedRequests([post(fleet, "/plain", reading(n), key) for n in range(1000)])


def _echo(fleet: Fleet) -> Requests:
    return FixedRequests([post(fleet, "/", reading(n), "none") for n in range(1000)])


def submits(body: Callable[[int], bytes], **headers: str) -> Callable[[Fleet], FixedRequests]:
    """One submission of each writer, over and over."""

    def requests(fleet: Fleet) -> FixedRequests:
        path = f"{API}/telemetry"
        return FixedRequests(
            [
                post(fleet, path, body(n), device.key, **headers)
                for n, device in enumerate(fleet.writers)
            ]
        )

    return requests


def _mixed(fleet: Fleet) -> Requests:
    """Devices that submit, while somebody looks at what others have just sent."""
    half, query = len(fleet.writers) // 2, "?start_time=-24h&limit=100"
    looked_at = [*fleet.writers[half:], *fleet.writers[:half]]
    pages = [_get(fleet, f"{API}/telemetry/{it.id}{query}", it) for it in looked_at]
    pairs = zip(submits(reading)(fleet).payloads, pages, strict=True)
    return FixedRequests([payload for pair in pairs for payload in pair])


def batches(records: int) -> Callable[[Fleet], Requests]:
    """Batches that go on in time, a record a second, from half a year ago."""

    def requests(fleet: Fleet) -> Requests:
        path = f"{API}/telemetry/batch"
        templates = [
            post(fleet, path, batch_body(number, records), device.key)
            for number, device in enumerate(fleet.writers)
        ]
        # Encoded with thirteen digits, so that Content-Length is right for any time till 2286.
        templates = [it.replace(b"%", b"%%").replace(PLACEHOLDER, b"%d") for it in templates]
        first_ms = int(time.time() * 1000) - 180 * _DAY_MS
        return TimedRequests(templates, records, first_ms, 1000)

    return requests


def batch_body(number: int, records: int) -> bytes:
    """A batch of two measurements a record, with PLACEHOLDER for each record's time."""
    timestamp = b'"timestamp":' + PLACEHOLDER + b","
    body = b",".join(b"{" + timestamp + reading(number + i)[1:] for i in range(records))
    return b'{"records":[' + body + b"]}"


def _single(number: int) -> bytes:
    return msgspec.json.encode({"data": {"temperature": 20 + number % 100 / 10}})


def latest_requests(fleet: Fleet) -> Requests:
    return FixedRequests(
        [_get(fleet, f"{API}/telemetry/{device.id}/latest", device) for device in fleet.writers]
    )


def histories(limit: int) -> Callable[[Fleet], Requests]:
    """The last 24 hours of the devices that have a day of minutes."""

    def requests(fleet: Fleet) -> Requests:
        query = f"?start_time=-24h&limit={limit}"
        return FixedRequests(
            [_get(fleet, f"{API}/telemetry/{it.id}{query}", it) for it in fleet.histories]
        )

    return requests


def _of_devices(path: str) -> Callable[[Fleet], Requests]:
    """What devices ask about themselves."""

    def requests(fleet: Fleet) -> Requests:
        return FixedRequests([_get(fleet, f"{API}{path}", device) for device in fleet.writers])

    return requests


ROWS: tuple[Row, ...] = (
    Row("echo", "raw ASGI echo (ceiling of server and generator)", ECHO, _echo),
    Row("plain", "plain FastAPI route (stores nothing)", PLAIN, plain_requests, 201),
    Row("submit", "submit, 2 measurements, durable", IOTFLOW, submits(reading), 201, 2, naive=True),
    Row(
        "steady",
        "submit at the guide's rate",
        IOTFLOW,
        submits(reading),
        201,
        2,
        fixed_rate=True,
        naive=True,
    ),
    Row("single", "submit, 1 measurement, durable", IOTFLOW, submits(_single), 201, 1),
    Row(
        "batch",
        "batch of 100 points, durable",
        IOTFLOW,
        batches(BATCH_RECORDS),
        201,
        2 * BATCH_RECORDS,
    ),
    Row(
        "connect",
        "submit over a connection of its own",
        IOTFLOW,
        submits(reading, Connection="close"),
        201,
        2,
    ),
    Row("mixed", "submit, and history of 100, in turn", IOTFLOW, _mixed, 201, 1),
    Row("latest", "latest values", IOTFLOW, latest_requests, naive=True),
    Row("uncached", "latest values, cache off", UNCACHED, latest_requests),
    Row("history", "history of 24 h, limit=100", IOTFLOW, histories(100), naive=True),
    Row("day", f"history of 24 h, limit={DAY_MINUTES}", IOTFLOW, histories(DAY_MINUTES)),
    Row("config", "a device's configuration", IOTFLOW, _of_devices("/devices/config")),
    Row(
        "credentials",
        "key validation over HTTP",
        IOTFLOW,
        _of_devices("/devices/credentials"),
        naive=True,
    ),
)
