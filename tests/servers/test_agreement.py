"""Two replicas write one device at once: stores, cache and API tell the same story."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iotflow.settings import Settings
from tests.api.conftest import create_account, create_device, serving
from tests.servers.stores import four_stores

pytestmark = pytest.mark.servers
API = "/api/v1/telemetry"
START = 1_767_225_600_000
WHOLE = {"start_time": START - 1_000, "end_time": START + 200_000_000}


@dataclass(frozen=True)
class Submit:
    """Through a replica, at a second of either of two days, one or both measurements."""

    replica: int
    day: int
    second: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Delete:
    """Of a range of seconds of a day."""

    replica: int
    day: int
    second: int
    seconds: int


DAY_S = 86_400
SUBMITS = st.builds(
    Submit,
    st.integers(0, 1),
    st.integers(0, 1),
    st.integers(0, 12),
    st.sampled_from([("a",), ("b",), ("a", "b")]),
)
DELETES = st.builds(
    Delete, st.integers(0, 1), st.integers(0, 1), st.integers(0, 12), st.integers(1, 6)
)
# Rounds: what is in one round happens at once.
ROUNDS = st.lists(
    st.one_of(st.lists(SUBMITS, min_size=1, max_size=6), DELETES.map(lambda each: [each])),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
async def replicas(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    with four_stores() as urls, pytest.MonkeyPatch.context() as environment:
        for name, value in urls.items():
            environment.setenv(name, value)
        environment.setenv("IOTFLOW_RATE_LIMITS__ENABLED", "false")
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(serving(_settings(tmp_path_factory.mktemp(name))))
                for name in "ab"
            ]
            yield clients[0], clients[1]


def _settings(directory: Path) -> Settings:
    return Settings.load(data_dir=directory)


def at_ms(day: int, second: int) -> int:
    return START + (day * DAY_S + second) * 1_000


@given(rounds=ROUNDS)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_they_agree(
    replicas: tuple[httpx.AsyncClient, httpx.AsyncClient], rounds: list[list[Submit | Delete]]
) -> None:
    account = await create_account(replicas[0])
    device = await create_device(replicas[0], account)
    # What each point may hold: of writes that happened at once either may be the last.
    model: dict[tuple[int, str], set[int]] = {}
    values = iter(range(10**9))
    for round_ in rounds:
        calls: list[Any] = []
        written: dict[tuple[int, str], set[int]] = {}
        for each in round_:
            client = replicas[each.replica]
            start = at_ms(each.day, each.second)
            if isinstance(each, Submit):
                value = next(values)
                body = {"data": dict.fromkeys(each.names, value), "timestamp": start}
                calls.append(client.post(API, json=body, headers=device.headers))
                for name in each.names:
                    written.setdefault((start, name), set()).add(value)
            else:
                end = start + each.seconds * 1_000
                params = {"start_time": start, "end_time": end}
                url = f"{API}/{device.id}"
                calls.append(client.delete(url, params=params, headers=account.headers))
                model = {key: of for key, of in model.items() if not start <= key[0] < end}
        for answer in await asyncio.gather(*calls):
            assert answer.status_code in (200, 201), answer.text
        model |= written
        await check(replicas, device.id, account.headers, model)


async def check(
    replicas: tuple[httpx.AsyncClient, httpx.AsyncClient],
    device_id: int,
    headers: dict[str, str],
    model: dict[tuple[int, str], set[int]],
) -> None:
    from iotflow.domain.times import format_ms

    stories: list[Any] = []
    for client in (*replicas, *replicas):
        history = await client.get(
            f"{API}/{device_id}", params=WHOLE | {"limit": 1000}, headers=headers
        )
        latest = await client.get(f"{API}/{device_id}/latest", headers=headers)
        points = {
            (p["timestamp"], p["measurement_name"]): p["value"] for p in history.json()["data"]
        }
        assert points.keys() == {(format_ms(at), name) for at, name in model}
        for (at, name), allowed in model.items():
            assert points[format_ms(at), name] in allowed
        newest: dict[str, tuple[str, int]] = {}
        for (at, name), value in sorted(points.items()):
            newest[name] = (at, value)
        told = {
            name: (each["timestamp"], each["value"])
            for name, each in latest.json().get("measurements", {}).items()
        }
        assert told == newest, latest.headers.get("x-cache")
        stories.append((points, told))
    assert all(story == stories[0] for story in stories)
