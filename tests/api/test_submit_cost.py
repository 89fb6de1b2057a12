"""What a call costs, in calls of functions: a count that no busy machine changes. All are hot but
`config`, which goes through the framework and the registry.

The bounds lie a little above what is counted now. Whoever makes a call dearer sees it here, and
raises the bound for a reason or finds a cheaper way; `make bench` says what it is in time.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from types import FrameType
from typing import Any

import httpx
import pytest

from iotflow.http import admission
from iotflow.settings import Settings
from tests.api.conftest import create_account, create_device, serving

TOGETHER = 50
ROUNDS = 7
BODY = b'{"data":{"temperature":20.5,"humidity":50.5}}'


@pytest.fixture(scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """As it is served: with its limits. Turns of the event loop are as long as they are, for to
    count calls takes time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission, "_TURN_S", 60.0)
        async with serving(Settings.load(data_dir=tmp_path_factory.mktemp("costs"))) as client:
            yield client


async def call(app: Any, method: str, path: str, key: str, body: bytes = b"") -> int:
    """One request to the ASGI application; its status."""
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [
            (b"host", b"service"),
            (b"x-api-key", key.encode()),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("service", 80),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
    await app(scope, receive, send)
    return status


async def calls_each(request: Any, expected: int) -> float:
    """Calls of functions, Python's and built-in ones, on the event loop for one request."""
    counted = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    rounds: list[float] = []
    for _ in range(ROUNDS):
        counted = 0
        sys.setprofile(count)
        try:
            statuses = await asyncio.gather(*[request() for _ in range(TOGETHER)])
        finally:
            sys.setprofile(None)
        assert set(statuses) == {expected}
        rounds.append(counted / TOGETHER)
    return min(rounds)  # whatever else runs on the loop only adds


@pytest.mark.parametrize(
    ("what", "bound"),
    [("submit", 252), ("batch", 430), ("latest", 195), ("credentials", 150), ("config", 2_170)],
)
async def test_a_call_costs_no_more(
    api: httpx.AsyncClient, what: str, bound: int, capsys: pytest.CaptureFixture[str]
) -> None:
    app = api._transport.app
    device = await create_device(api, await create_account(api))
    start_ms = 1_780_000_000_000
    records = ",".join(
        f'{{"timestamp":{start_ms + n * 1000},"data":{{"temperature":20.5,"humidity":50.5}}}}'
        for n in range(10)
    )
    requests: dict[str, tuple[str, str, bytes, int]] = {
        "submit": ("POST", "/api/v1/telemetry", BODY, 201),
        "batch": ("POST", "/api/v1/telemetry/batch", f'{{"records":[{records}]}}'.encode(), 201),
        "latest": ("GET", f"/api/v1/telemetry/{device.id}/latest", b"", 200),
        "credentials": ("GET", "/api/v1/devices/credentials", b"", 200),
        "config": ("GET", "/api/v1/devices/config", b"", 200),
    }
    assert await call(app, "POST", "/api/v1/telemetry", device.api_key, BODY) == 201
    method, path, body, expected = requests[what]
    counted = await calls_each(lambda: call(app, method, path, device.api_key, body), expected)
    with capsys.disabled():
        print(f" {what}: {counted:.0f} calls of functions", end="")
    assert counted <= bound
