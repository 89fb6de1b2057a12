"""Once the points are durable the answer is 201, whatever fails after that."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from iotflow.runtime import Runtime
from iotflow.settings import Settings
from tests.api.conftest import create_account, create_device, serving

API = "/api/v1/telemetry"


class Service:
    """A service, and what it is made of."""

    client: httpx.AsyncClient
    runtime: Runtime


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    service = Service()

    def keep(runtime: Runtime) -> None:
        service.runtime = runtime

    async with serving(Settings.load(data_dir=tmp_path), keep) as service.client:
        yield service


def fails(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a defect")


@pytest.mark.parametrize("broken", ["cache", "pipeline"])
async def test_a_defect_behind_the_write_does_not_take_the_answer_back(
    service: Service, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await create_device(service.client, await create_account(service.client))
    first = {"data": {"t": 1.5}, "timestamp": "2026-01-31T14:30:00Z"}
    answer = await service.client.post(API, json=first, headers=device.headers)
    assert answer.status_code == 201
    latest = f"{API}/{device.id}/latest"
    await service.client.get(latest, headers=device.headers)  # fills the cache
    with monkeypatch.context() as patch:
        if broken == "cache":
            patch.setattr(service.runtime.ingest._cache, "record", fails)
        else:
            patch.setattr(service.runtime.ingest, "_submitted", fails)
        second = {"data": {"t": 2.5}, "timestamp": "2026-01-31T14:31:00Z"}
        answer = await service.client.post(API, json=second, headers=device.headers)
    assert answer.status_code == 201, answer.text
    found = await service.client.get(latest, headers=device.headers)
    assert found.json()["data"] == {"t": 2.5}
