"""Changing and deleting devices, and the ETags that keep one from overwriting another."""

import asyncio

import httpx
import pytest

from tests.api.conftest import Account, DeviceUnderTest, NewAccount, NewDevice

API = "/api/v1"


async def test_a_change_touches_what_was_sent_alone(
    client: httpx.AsyncClient, owner: Account, new_device: NewDevice
) -> None:
    device = await new_device(location="Hall", labels={"room": "a", "line": "1"})
    url = f"{API}/devices/{device.id}"
    before = (await client.get(url, headers=owner.headers)).json()
    changes = {
        "name": "renamed",
        "description": "by the door",
        "location": None,
        "labels": {"room": "b"},
        "firmware_version": "2.0",
        "status": "maintenance",
    }
    answer = await client.patch(url, json=changes, headers=owner.headers)
    assert answer.status_code == 200, answer.text
    changed = answer.json()
    assert changed["updated_at"] >= before["updated_at"]
    assert changed == before | changes | {"updated_at": changed["updated_at"]}
    read = await client.get(url, headers=owner.headers)
    assert read.json() == changed
    assert read.headers["etag"] == answer.headers["etag"]


@pytest.mark.parametrize(
    "body",
    [
        {"name": None},
        {"name": ""},
        {"status": "broken"},
        {"status": None},
        {"labels": None},
        {"labels": {"1": "x"}},
        {"user_id": 1},
        {"name": 3},
    ],
    ids=str,
)
async def test_a_change_that_cannot_be_is_refused_whole(
    client: httpx.AsyncClient, owner: Account, device: DeviceUnderTest, body: dict[str, object]
) -> None:
    url = f"{API}/devices/{device.id}"
    before = (await client.get(url, headers=owner.headers)).json()
    answer = await client.patch(url, json={"location": "x"} | body, headers=owner.headers)
    assert answer.status_code == 422
    assert (await client.get(url, headers=owner.headers)).json() == before


async def test_an_etag_guards_a_change(
    client: httpx.AsyncClient, owner: Account, device: DeviceUnderTest
) -> None:
    url = f"{API}/devices/{device.id}"
    etag = (await client.get(url, headers=owner.headers)).headers["etag"]

    async def change(name: str, if_match: str) -> httpx.Response:
        headers = owner.headers | {"If-Match": if_match}
        return await client.patch(url, json={"name": name}, headers=headers)

    first = await change("first", f'"other", {etag}')
    assert first.status_code == 200
    for stale in (etag, f"W/{first.headers['etag']}", '"x"'):
        answer = await change("second", stale)
        assert (answer.status_code, answer.json()["code"]) == (412, "stale_version")
    assert (await change("third", "*")).status_code == 200
    stale = owner.headers | {"If-Match": first.headers["etag"]}
    assert (await client.delete(url, headers=stale)).status_code == 412
    assert (await client.get(url, headers=owner.headers)).json()["name"] == "third"


async def test_of_changes_at_once_from_one_version_one_wins(
    client: httpx.AsyncClient, owner: Account, device: DeviceUnderTest
) -> None:
    url = f"{API}/devices/{device.id}"
    etag = (await client.get(url, headers=owner.headers)).headers["etag"]
    headers = owner.headers | {"If-Match": etag}
    answers = await asyncio.gather(
        *(client.patch(url, json={"name": f"n{n}"}, headers=headers) for n in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7


async def test_an_etag_ignores_that_a_device_was_heard_of(
    client: httpx.AsyncClient, owner: Account, device: DeviceUnderTest
) -> None:
    url = f"{API}/devices/{device.id}"
    before = await client.get(url, headers=owner.headers)
    await client.post(f"{API}/devices/heartbeat", headers=device.headers)
    for _ in range(50):
        seen = await client.get(url, headers=owner.headers)
        if seen.json()["last_seen"]:
            break
        await asyncio.sleep(0.1)
    assert seen.json()["last_seen"]
    assert seen.json()["is_online"]
    assert seen.headers["etag"] == before.headers["etag"]
    assert seen.json()["updated_at"] == before.json()["updated_at"]
    for known in (before.headers["etag"], f"W/{before.headers['etag']}", "*"):
        headers = owner.headers | {"If-None-Match": known}
        unchanged = await client.get(url, headers=headers)
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == before.headers["etag"]
    headers = owner.headers | {"If-None-Match": '"x"'}
    assert (await client.get(url, headers=headers)).status_code == 200


async def test_a_device_that_is_switched_off_is_refused_until_it_is_on_again(
    client: httpx.AsyncClient, owner: Account, device: DeviceUnderTest
) -> None:
    async def submit() -> httpx.Response:
        body = {"data": {"a": 1}}
        return await client.post(f"{API}/telemetry", json=body, headers=device.headers)

    async def switch(status: str) -> None:
        answer = await client.patch(
            f"{API}/devices/{device.id}", json={"status": status}, headers=owner.headers
        )
        assert answer.status_code == 200

    assert (await submit()).status_code == 201
    await switch("inactive")
    for method, path in (
        ("POST", "/telemetry"),
        ("GET", "/devices/status"),
        ("GET", "/devices/config"),
        ("POST", "/devices/heartbeat"),
    ):
        refused = await client.request(method, f"{API}{path}", headers=device.headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "device_inactive")
    await switch("maintenance")
    assert (await submit()).status_code == 201
    await switch("active")
    assert (await submit()).status_code == 201


async def test_a_new_name_reaches_the_device_at_once(
    client: httpx.AsyncClient, owner: Account, device: DeviceUnderTest
) -> None:
    await client.get(f"{API}/devices/credentials", headers=device.headers)
    await client.patch(f"{API}/devices/{device.id}", json={"name": "new"}, headers=owner.headers)
    told = await client.get(f"{API}/devices/credentials", headers=device.headers)
    assert told.json()["name"] == "new"


async def test_strangers_cannot_change_or_delete(
    client: httpx.AsyncClient, device: DeviceUnderTest, new_account: NewAccount
) -> None:
    stranger = await new_account()
    url = f"{API}/devices/{device.id}"
    answers = [
        await client.patch(url, json={"name": "x"}, headers=stranger.headers),
        await client.delete(url, headers=stranger.headers),
        await client.get(f"{url}/groups", headers=stranger.headers),
    ]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert (await client.get(url, headers=device.owner.headers)).status_code == 200
    assert (await client.patch(url, json={"name": "x"}, headers=device.headers)).status_code == 401
