import asyncio

import httpx

from tests.api.conftest import Account, DeviceUnderTest, NewAccount, NewDevice

API = "/api/v1"


async def test_registering_shows_the_device_and_once_its_key(
    client: httpx.AsyncClient, owner: Account
) -> None:
    body = {
        "name": "greenhouse-1",
        "description": "North bench",
        "device_type": "climate",
        "location": "Greenhouse",
        "firmware_version": "1.2.0",
        "hardware_version": "B",
        "labels": {"room": "greenhouse", "line": "3"},
    }
    answer = await client.post(f"{API}/devices/register", json=body, headers=owner.headers)
    assert answer.status_code == 201
    device, key = answer.json()["device"], answer.json()["api_key"]
    assert {name: device[name] for name in body} == body
    assert device["status"] == "active"
    assert device["is_online"] is False
    assert device["last_seen"] is None
    assert device["key"]["prefix"] == key[: len(device["key"]["prefix"])]
    assert key.startswith("iotd_")
    read = await client.get(f"{API}/devices/{device['id']}", headers=owner.headers)
    assert read.json() == device
    assert key not in read.text


async def test_a_list_is_paged_and_filtered(
    client: httpx.AsyncClient, new_account: NewAccount, new_device: NewDevice
) -> None:
    account = await new_account()
    devices = [
        await new_device(account, name=f"pump-{n}", device_type="pump", labels={"line": str(n % 2)})
        for n in range(5)
    ]
    await new_device(account, name="fan 100%", device_type="fan")
    ids, cursor = list[int](), None
    while True:
        params = {"limit": 2, "device_type": "pump"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(f"{API}/devices", params=params, headers=account.headers)).json()
        ids += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert ids == [device.id for device in devices]

    async def found(**params: str) -> list[str]:
        answer = await client.get(f"{API}/devices", params=params, headers=account.headers)
        return [item["name"] for item in answer.json()["items"]]

    assert await found(label="line:1") == ["pump-1", "pump-3"]
    assert await found(q="0%") == ["fan 100%"]
    assert await found(status="maintenance") == []
    by_user = await client.get(f"{API}/devices/user/{account.id}", headers=account.headers)
    assert len(by_user.json()["items"]) == 6


async def test_a_cursor_belongs_to_its_query(
    client: httpx.AsyncClient, new_account: NewAccount, new_device: NewDevice
) -> None:
    account = await new_account()
    for _ in range(2):
        await new_device(account)
    page = await client.get(f"{API}/devices", params={"limit": 1}, headers=account.headers)
    cursor = page.json()["next_cursor"]
    for params in ({"cursor": cursor, "q": "x"}, {"cursor": cursor[:-2]}, {"cursor": "AAAA"}):
        answer = await client.get(f"{API}/devices", params=params, headers=account.headers)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["code"] == "invalid_cursor"


async def test_devices_of_others_do_not_exist(
    client: httpx.AsyncClient, device: DeviceUnderTest, new_account: NewAccount
) -> None:
    stranger = await new_account()
    missing = await client.get(f"{API}/devices/999999", headers=stranger.headers)
    for path in ("", "/status", "/keys"):
        answer = await client.get(f"{API}/devices/{device.id}{path}", headers=stranger.headers)
        assert answer.status_code == 404
        assert answer.json()["detail"] == missing.json()["detail"]
    rotate = await client.post(f"{API}/devices/{device.id}/keys", headers=stranger.headers)
    revoke = await client.delete(f"{API}/devices/{device.id}/keys/1", headers=stranger.headers)
    others = await client.get(f"{API}/devices/user/{device.owner.id}", headers=stranger.headers)
    assert {rotate.status_code, revoke.status_code, others.status_code} == {404}


async def test_a_heartbeat_makes_a_device_online(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    beat = await client.post(f"{API}/devices/heartbeat", headers=device.headers)
    assert beat.status_code == 200
    assert beat.json()["device_id"] == device.id
    status = await client.get(f"{API}/devices/status", headers=device.headers)
    assert status.json()["is_online"] is True
    for _ in range(50):
        seen = await client.get(f"{API}/devices/{device.id}/status", headers=device.owner.headers)
        if seen.json()["last_seen"] is not None:
            break
        await asyncio.sleep(0.1)
    assert seen.json()["last_seen"] >= beat.json()["timestamp"]


async def test_a_device_learns_about_its_key_but_never_the_key(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    answer = await client.get(f"{API}/devices/credentials", headers=device.headers)
    assert answer.status_code == 200
    assert answer.json()["device_id"] == device.id
    assert device.api_key.startswith(answer.json()["key"]["prefix"])
    assert device.api_key not in answer.text


async def test_the_old_key_goes_on_for_the_overlap_and_a_third_is_refused(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    keys = f"{API}/devices/{device.id}/keys"
    rotated = await client.post(keys, headers=device.owner.headers, json={"overlap": 3600})
    assert rotated.status_code == 201
    new_key = {"X-API-Key": rotated.json()["api_key"]}
    for headers in (device.headers, new_key):
        assert (await client.get(f"{API}/devices/status", headers=headers)).status_code == 200
    listed = (await client.get(keys, headers=device.owner.headers)).json()["items"]
    assert [key["expires_at"] is None for key in listed] == [False, True]
    third = await client.post(keys, headers=device.owner.headers)
    assert (third.status_code, third.json()["code"]) == (409, "too_many_keys")


async def test_without_overlap_the_old_key_ends_at_once(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    assert (await client.get(f"{API}/devices/status", headers=device.headers)).status_code == 200
    keys = f"{API}/devices/{device.id}/keys"
    rotated = await client.post(keys, headers=device.owner.headers, json={"overlap": 0})
    assert rotated.status_code == 201
    old = await client.get(f"{API}/devices/status", headers=device.headers)
    assert (old.status_code, old.json()["code"]) == (401, "invalid_api_key")


async def test_a_revoked_key_is_refused_at_once(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    point = {"data": {"temperature": 1.5}}
    sent = await client.post(f"{API}/telemetry", json=point, headers=device.headers)
    assert sent.status_code == 201
    keys = f"{API}/devices/{device.id}/keys"
    key_id = (await client.get(keys, headers=device.owner.headers)).json()["items"][0]["id"]
    revoked = await client.delete(f"{keys}/{key_id}", headers=device.owner.headers)
    assert revoked.status_code == 204
    sent = await client.post(f"{API}/telemetry", json=point, headers=device.headers)
    assert (sent.status_code, sent.json()["code"]) == (401, "invalid_api_key")
    again = await client.delete(f"{keys}/{key_id}", headers=device.owner.headers)
    assert again.status_code == 404


async def test_an_expired_key_opens_nothing(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    keys = f"{API}/devices/{device.id}/keys"
    body = {"expires_in": 1, "overlap": 0}
    short_lived = await client.post(keys, headers=device.owner.headers, json=body)
    headers = {"X-API-Key": short_lived.json()["api_key"]}
    point = {"data": {"temperature": 1.5}}
    assert (await client.post(f"{API}/telemetry", json=point, headers=headers)).status_code == 201
    await asyncio.sleep(1.1)
    assert (await client.post(f"{API}/telemetry", json=point, headers=headers)).status_code == 401
