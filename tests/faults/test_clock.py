"""The service's clock jumps an hour forward and back."""

import time
from pathlib import Path

import httpx
import pytest

from iotflow.settings import Settings
from tests.api.conftest import DeviceUnderTest, create_account, create_device, serving

pytestmark = [pytest.mark.servers, pytest.mark.faults]

API = "/api/v1"
HOUR_S = 3600.0


class Clock:
    """The system's, and what it is wrong by."""

    def __init__(self) -> None:
        self._real = time.time
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return self._real() + self.ahead_s


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    # The composition root takes the system's clock when it builds the service.
    clock = Clock()
    monkeypatch.setattr("iotflow.runtime.runtime.time.time", clock)
    return clock


async def submit(client: httpx.AsyncClient, device: DeviceUnderTest, **body: object) -> str:
    answer = await client.post(f"{API}/telemetry", json=body, headers=device.headers)
    assert answer.status_code == 201, answer.text
    timestamp: str = answer.json()["timestamp"]
    return timestamp


async def test_no_point_is_lost_or_doubled_and_a_resend_wins(clock: Clock, tmp_path: Path) -> None:
    settings = Settings.load(data_dir=tmp_path / "data")
    async with serving(settings) as client:
        device = await create_device(client, await create_account(client))
        sent: dict[str, int] = {}
        for turn, ahead_s in enumerate((-HOUR_S, 0.0, HOUR_S)):
            clock.ahead_s = ahead_s
            for number in range(turn * 10, turn * 10 + 10):
                sent[await submit(client, device, data={"n": number})] = number
        assert len(sent) == 30, "no two without a timestamp share one"
        clock.ahead_s = 0.0
        refused = await client.post(
            f"{API}/telemetry", json={"data": {"n": -1}}, headers=device.headers
        )
        # It would need a time of the future, or one that may be taken: the device is told.
        assert refused.status_code == 429
        assert "device_clock" in refused.json()["detail"]
        again_at = sorted(sent)[5]
        clock.ahead_s = -HOUR_S
        await submit(client, device, data={"n": 1000}, timestamp=again_at)
        sent[again_at] = 1000
        clock.ahead_s = 2 * HOUR_S
        answer = await client.get(
            f"{API}/telemetry/{device.id}?limit=1000&start_time=-12h", headers=device.headers
        )
        found = {point["timestamp"]: point["value"] for point in answer.json()["data"]}
        assert answer.json()["count"] == 30
    assert found == sent


async def test_a_key_ends_by_the_clock_and_a_limit_is_never_locked(
    clock: Clock, tmp_path: Path
) -> None:
    settings = Settings.load(data_dir=tmp_path / "data", rate_limits={"ingest": "5/60"})
    async with serving(settings) as client:
        owner = await create_account(client)
        device = await create_device(client, owner)
        path = f"{API}/devices/{device.id}/keys"
        made = await client.post(path, json={"expires_in": 600}, headers=owner.headers)
        headers = {"X-API-Key": made.json()["api_key"]}
        statuses: list[int] = []
        for ahead_s in (0.0, HOUR_S, 0.0):
            clock.ahead_s = ahead_s
            answer = await client.get(f"{API}/devices/status", headers=headers)
            statuses.append(answer.status_code)
        assert statuses == [200, 401, 200]
        now_ms = int(clock() * 1000)
        for ahead_s in (0.0, HOUR_S, -HOUR_S):
            clock.ahead_s = ahead_s
            answers = [
                await client.post(
                    f"{API}/telemetry",
                    json={"data": {"n": n}, "timestamp": now_ms - 2 * 3_600_000 + n},
                    headers=device.headers,
                )
                for n in range(10)
            ]
            assert answers[0].status_code == 201
            assert answers[-1].status_code == 429
            assert int(answers[-1].headers["Retry-After"]) <= 120
