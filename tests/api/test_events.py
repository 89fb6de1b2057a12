import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from iotflow.cli.operate import create_admin
from iotflow.domain.events import Event
from iotflow.runtime import Runtime
from iotflow.settings import RateLimitSettings, Settings
from tests.api.conftest import (
    PASSWORD,
    Account,
    DeviceUnderTest,
    create_account,
    create_device,
    serving,
)
from tests.process.conftest import free_port

EVENTS = "/api/v1/events"
LONGEST_S = 10.0
MEMBERS = {"id", "event_type", "device_id", "user_id", "timestamp", "details"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("events")


@pytest.fixture(scope="module")
async def service(directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings.load(data_dir=directory, rate_limits=RateLimitSettings(enabled=False))
    async with serving(settings) as client:
        yield client


@pytest.fixture
async def ada(service: httpx.AsyncClient) -> Account:
    return await create_account(service)


@pytest.fixture
async def sensor(service: httpx.AsyncClient, ada: Account) -> DeviceUnderTest:
    return await create_device(service, ada)


@pytest.fixture(scope="module")
async def admin(service: httpx.AsyncClient, directory: Path) -> dict[str, str]:
    """The headers of an admin, made as an operator makes one."""
    await asyncio.to_thread(create_admin, "root", "root@example.com", PASSWORD, directory)
    login = {"username": "root", "password": PASSWORD}
    session = (await service.post("/api/v1/auth/login", json=login)).json()
    return {"Authorization": f"Bearer {session['access_token']}"}


async def items(
    client: httpx.AsyncClient, headers: dict[str, str], **query: Any
) -> list[dict[str, Any]]:
    answer = await client.get(EVENTS, params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def until(
    client: httpx.AsyncClient,
    headers: dict[str, str],
    enough: Callable[[list[dict[str, Any]]], bool],
    **query: Any,
) -> list[dict[str, Any]]:
    """The events, once those are there that are awaited: they are written off the request path."""
    deadline = time.monotonic() + LONGEST_S
    while True:
        found = await items(client, headers, **query)
        if enough(found):
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)


async def submit(client: httpx.AsyncClient, device: DeviceUnderTest, **body: Any) -> None:
    sent = {"data": {"temperature": 20.5}} | body
    answer = await client.post("/api/v1/telemetry", json=sent, headers=device.headers)
    assert answer.status_code == 201, answer.text


def types(found: list[dict[str, Any]]) -> list[str]:
    return [event["event_type"] for event in found]


async def test_a_batch_whose_metadata_have_no_room_in_its_event_says_so(
    service: httpx.AsyncClient, ada: Account, sensor: DeviceUnderTest
) -> None:
    """64 KiB together, however little each of them has."""

    def record(number: int, room: int) -> dict[str, Any]:
        metadata = {"note": "x" * room}
        return {"timestamp": f"2026-01-31T14:{number:02}:00Z", "data": {"a": 1}} | (
            {"metadata": metadata} if room else {}
        )

    for rooms in ((0, 15_000, 15_000, 15_000, 15_000), (0, *[15_000] * 5)):
        records = [record(number, room) for number, room in enumerate(rooms)]
        sent = await service.post(
            "/api/v1/telemetry/batch", json={"records": records}, headers=sensor.headers
        )
        assert (sent.status_code, sent.json()["accepted"]) == (201, len(rooms))
    too_much, enough = await until(
        service, ada.headers, lambda all_: len(all_) == 2, event_type="telemetry.submitted"
    )
    if enough["details"]["records"] == 6:
        too_much, enough = enough, too_much
    assert [len(each["metadata"]["note"]) for each in enough["details"]["metadata"]] == [15_000] * 4
    assert "metadata_omitted" not in enough["details"]
    assert too_much["details"]["metadata_omitted"] == 5
    assert "metadata" not in too_much["details"]


async def test_what_a_user_did_is_there_newest_first(
    service: httpx.AsyncClient, ada: Account, sensor: DeviceUnderTest
) -> None:
    await submit(service, sensor, metadata={"battery": "ok"})
    found = await until(service, ada.headers, lambda all_: "telemetry.submitted" in types(all_))
    assert types(found) == [
        "telemetry.submitted", "device.registered", "user.logged_in", "user.registered",
    ]  # fmt: skip
    newest = found[0]
    assert set(newest) == MEMBERS
    assert (newest["device_id"], newest["user_id"]) == (sensor.id, ada.id)
    assert newest["details"] == {
        "measurements": ["temperature"], "count": 1, "metadata": {"battery": "ok"},
    }  # fmt: skip
    times = [event["timestamp"] for event in found]
    assert times == sorted(times, reverse=True)
    assert all(len(text) == 24 and text.endswith("Z") for text in times)


async def test_filters_by_device_type_and_range(
    service: httpx.AsyncClient, ada: Account, sensor: DeviceUnderTest
) -> None:
    other = await create_device(service, ada)
    await submit(service, sensor)
    await submit(service, other)
    kind = "telemetry.submitted"
    await until(service, ada.headers, lambda all_: len(all_) == 2, event_type=kind)
    of_one = await items(service, ada.headers, device_id=other.id)
    assert types(of_one) == [kind, "device.registered"]
    assert {event["device_id"] for event in of_one} == {other.id}
    (both,) = await items(service, ada.headers, device_id=sensor.id, event_type=kind)
    assert await items(service, ada.headers, event_type="no.such_type") == []
    # [start, end): the event's own time is a start that takes it in, and an end that does not.
    at = datetime.fromisoformat(both["timestamp"])
    later, earlier = at + timedelta(milliseconds=1), at - timedelta(days=1)
    query: dict[str, Any] = {"device_id": sensor.id, "event_type": kind}
    assert await items(service, ada.headers, start_time=stamp(at), end_time=stamp(later), **query)
    assert not await items(
        service, ada.headers, start_time=stamp(earlier), end_time=stamp(at), **query
    )
    assert not await items(service, ada.headers, start_time="-9d", end_time="-8d")


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


async def test_pages_follow_each_other_without_a_gap(
    service: httpx.AsyncClient, ada: Account, sensor: DeviceUnderTest
) -> None:
    for _ in range(9):
        await submit(service, sensor)
    whole = await until(service, ada.headers, lambda all_: len(all_) == 12)
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 5}
    sizes = []
    while True:
        page = (await service.get(EVENTS, params=query, headers=ada.headers)).json()
        found += page["items"]
        sizes.append(len(page["items"]))
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
        await submit(service, sensor)  # what is new meanwhile moves no page
    assert sizes == [5, 5, 2]
    assert found == whole


async def test_a_cursor_belongs_to_its_query(
    service: httpx.AsyncClient, ada: Account, sensor: DeviceUnderTest
) -> None:
    await until(service, ada.headers, lambda all_: len(all_) == 3)
    page = (await service.get(EVENTS, params={"limit": 1}, headers=ada.headers)).json()
    cursor = page["next_cursor"]
    for changed in ({"device_id": sensor.id}, {"event_type": "a"}, {"start_time": "-1h"}):
        answer = await service.get(EVENTS, params={"cursor": cursor} | changed, headers=ada.headers)
        assert answer.status_code == 422, changed
        assert answer.json()["errors"][0]["code"] == "invalid_cursor"
    other = await create_account(service)
    answer = await service.get(EVENTS, params={"cursor": cursor}, headers=other.headers)
    assert answer.status_code == 422


async def test_what_belongs_to_others_is_not_there(
    service: httpx.AsyncClient, ada: Account, sensor: DeviceUnderTest
) -> None:
    await submit(service, sensor)
    await until(service, ada.headers, lambda all_: "telemetry.submitted" in types(all_))
    other = await create_account(service)
    seen = await until(service, other.headers, lambda all_: len(all_) == 2)
    assert {event["user_id"] for event in seen} == {other.id}
    for query in ({"device_id": sensor.id}, {"device_id": 10**9}, {"user_id": ada.id}):
        answer = await service.get(EVENTS, params=query, headers=other.headers)
        assert answer.status_code == 404, query
        assert answer.json()["code"] == "not_found"
    itself = await items(service, other.headers, user_id=other.id)
    assert itself == seen


async def test_an_admin_may_ask_for_others(
    service: httpx.AsyncClient, ada: Account, sensor: DeviceUnderTest, admin: dict[str, str]
) -> None:
    await submit(service, sensor)
    own = await until(service, ada.headers, lambda all_: "telemetry.submitted" in types(all_))
    assert await items(service, admin, user_id=ada.id) == own
    of_device = await items(service, admin, device_id=sensor.id)
    assert types(of_device) == ["telemetry.submitted", "device.registered"]
    mine = await until(service, admin, lambda all_: "user.logged_in" in types(all_))
    assert ada.id not in {event["user_id"] for event in mine}
    assert await items(service, admin, user_id=ada.id, device_id=sensor.id) == of_device


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 1001}, "limit"),
        ({"limit": 0}, "limit"),
        ({"device_id": "x"}, "device_id"),
        ({"device_id": 2**63}, "device_id"),
        ({"event_type": "a\0b"}, "event_type"),
        ({"event_type": "a" * 65}, "event_type"),
        ({"start_time": "yesterday"}, "start_time"),
        ({"start_time": "-1h", "end_time": "-2h"}, "start_time"),
        ({"start_time": "-367d"}, "start_time"),
        ({"cursor": "made-up"}, "cursor"),
        ({"kind": "x"}, "kind"),
    ],
)
async def test_what_cannot_be_asked_is_explained(
    service: httpx.AsyncClient, ada: Account, query: dict[str, Any], field: str
) -> None:
    answer = await service.get(EVENTS, params=query, headers=ada.headers)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["field"] == field


async def test_only_users_may_ask(service: httpx.AsyncClient, sensor: DeviceUnderTest) -> None:
    for headers in ({}, sensor.headers, {"Authorization": "Bearer x"}):
        answer = await service.get(EVENTS, headers=headers)
        assert answer.status_code == 401
        assert "www-authenticate" in answer.headers


@pytest.mark.parametrize(
    "text",
    [
        r'"Gr\u00fc\u00dfe \ud83c\udf21"',
        "12345678901234567890",
        '"a.b $c"',
        "[" * 63 + "]" * 63,
    ],
)
async def test_odd_metadata_comes_back(
    service: httpx.AsyncClient, ada: Account, sensor: DeviceUnderTest, text: str
) -> None:
    body = f'{{"data": {{"a": 1}}, "metadata": {{"odd": {text}}}}}'
    sent = await service.post("/api/v1/telemetry", content=body, headers=sensor.headers)
    assert sent.status_code == 201, sent.text
    (found,) = await until(
        service, ada.headers, lambda all_: len(all_) == 1, event_type="telemetry.submitted"
    )
    assert found["details"]["metadata"] == httpx.Response(200, text=f'{{"odd":{text}}}').json()


async def test_whatever_the_store_holds_can_be_read(data_dir: Path) -> None:
    running: list[Runtime] = []
    settings = Settings.load(data_dir=data_dir, rate_limits=RateLimitSettings(enabled=False))
    async with serving(settings, running.append) as client:
        user = await create_account(client)
        details = {"half of a pair": "\ud800", "large": 2**80, "deep": [[[{"a": None}]]]}
        now_ms = running[0].now_ms()
        running[0].pipeline.log_event(Event("odd", "odd", now_ms, user.id, None, details))
        (found,) = await until(client, user.headers, bool, event_type="odd")
    assert found["details"] == details


async def test_without_its_store_it_says_when_to_come_back(tmp_path: Path) -> None:
    settings = Settings.load(
        data_dir=tmp_path,
        events={"url": f"mongodb://127.0.0.1:{free_port()}"},
        rate_limits=RateLimitSettings(enabled=False),
        pipeline={"drain_s": 0.5},
    )
    async with serving(settings) as client:
        user = await create_account(client)
        device = await create_device(client, user)
        answer = await client.get(EVENTS, headers=user.headers)
        assert answer.status_code == 503
        assert answer.json()["code"] == "store_unavailable"
        assert int(answer.headers["retry-after"]) >= 1
        await submit(client, device)
