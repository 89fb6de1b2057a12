"""Groups of devices."""

from typing import Any

import httpx
import pytest

from tests.api.conftest import Account, DeviceUnderTest, NewAccount, NewDevice

API = "/api/v1"
GROUPS = f"{API}/groups"


async def create(client: httpx.AsyncClient, owner: Account, **fields: Any) -> dict[str, Any]:
    answer = await client.post(GROUPS, json={"name": "a group"} | fields, headers=owner.headers)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


async def add(
    client: httpx.AsyncClient, owner: Account, group: dict[str, Any], device_id: int
) -> httpx.Response:
    return await client.post(
        f"{GROUPS}/{group['id']}/devices", json={"device_id": device_id}, headers=owner.headers
    )


async def test_a_group_is_made_changed_and_deleted(
    client: httpx.AsyncClient, owner: Account
) -> None:
    group = await create(client, owner, description="North", color="#00ff00")
    url = f"{GROUPS}/{group['id']}"
    assert group["user_id"] == owner.id
    assert (group["name"], group["color"], group["device_count"]) == ("a group", "#00ff00", 0)
    assert (await client.get(url, headers=owner.headers)).json() == group
    replaced = await client.put(url, json={"name": "new"}, headers=owner.headers)
    assert replaced.status_code == 200
    changed = {"name": "new", "description": None, "color": None}
    assert replaced.json() == group | changed | {"updated_at": replaced.json()["updated_at"]}
    assert (await client.delete(url, headers=owner.headers)).status_code == 204
    for answer in (
        await client.get(url, headers=owner.headers),
        await client.delete(url, headers=owner.headers),
        await client.put(url, json={"name": "x"}, headers=owner.headers),
    ):
        assert answer.status_code == 404


@pytest.mark.parametrize(
    "body",
    [{}, {"name": ""}, {"name": "x" * 129}, {"name": 1}, {"name": "a", "icon": "x"}],
    ids=lambda body: str(body)[:20],
)
async def test_what_is_no_group_is_refused(
    client: httpx.AsyncClient, owner: Account, body: dict[str, Any]
) -> None:
    assert (await client.post(GROUPS, json=body, headers=owner.headers)).status_code == 422
    group = await create(client, owner)
    put = await client.put(f"{GROUPS}/{group['id']}", json=body, headers=owner.headers)
    assert put.status_code == 422


async def test_lists_are_paged(
    client: httpx.AsyncClient, new_account: NewAccount, new_device: NewDevice
) -> None:
    account = await new_account()
    groups = [await create(client, account, name=f"g{n}") for n in range(5)]
    device = await new_device(account)
    for group in groups:
        assert (await add(client, account, group, device.id)).status_code == 201
    for url in (GROUPS, f"{API}/devices/{device.id}/groups"):
        ids, cursor = list[int](), None
        while True:
            params: dict[str, Any] = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = (await client.get(url, params=params, headers=account.headers)).json()
            ids += [item["id"] for item in page["items"]]
            assert all(item["device_count"] == 1 for item in page["items"])
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert ids == [group["id"] for group in groups]


async def test_devices_come_and_go(
    client: httpx.AsyncClient, owner: Account, new_device: NewDevice
) -> None:
    group = await create(client, owner)
    url = f"{GROUPS}/{group['id']}"
    devices = [await new_device() for _ in range(3)]
    first = await add(client, owner, group, devices[0].id)
    assert first.status_code == 201
    assert first.json() == {"device_id": devices[0].id, "result": "added"}
    again = await add(client, owner, group, devices[0].id)
    assert (again.status_code, again.json()["result"]) == (200, "already")
    body = {"device_ids": [devices[0].id, devices[1].id, devices[2].id, devices[1].id]}
    bulk = await client.post(f"{url}/devices/bulk", json=body, headers=owner.headers)
    assert bulk.status_code == 200
    assert [each["device_id"] for each in bulk.json()["results"]] == body["device_ids"]
    assert [each["result"] for each in bulk.json()["results"]][:3] == ["already", "added", "added"]
    assert (await client.get(url, headers=owner.headers)).json()["device_count"] == 3
    page = await client.get(f"{url}/devices", params={"limit": 2}, headers=owner.headers)
    rest = await client.get(
        f"{url}/devices",
        params={"limit": 2, "cursor": page.json()["next_cursor"]},
        headers=owner.headers,
    )
    listed = [item["id"] for item in page.json()["items"] + rest.json()["items"]]
    assert listed == [device.id for device in devices]
    assert rest.json()["next_cursor"] is None
    filtered = await client.get(
        f"{API}/devices", params={"group_id": group["id"]}, headers=owner.headers
    )
    assert [item["id"] for item in filtered.json()["items"]] == listed
    gone = await client.delete(f"{url}/devices/{devices[0].id}", headers=owner.headers)
    assert gone.status_code == 204
    twice = await client.delete(f"{url}/devices/{devices[0].id}", headers=owner.headers)
    assert twice.status_code == 404
    assert (await client.get(url, headers=owner.headers)).json()["device_count"] == 2


async def test_devices_of_others_are_not_found(
    client: httpx.AsyncClient, owner: Account, device: DeviceUnderTest, new_account: NewAccount
) -> None:
    stranger = await new_account()
    theirs = await create(client, stranger)
    assert (await add(client, stranger, theirs, device.id)).status_code == 404
    body = {"device_ids": [device.id, 2**50]}
    bulk = await client.post(
        f"{GROUPS}/{theirs['id']}/devices/bulk", json=body, headers=stranger.headers
    )
    assert bulk.status_code == 207
    assert {each["result"] for each in bulk.json()["results"]} == {"not_found"}
    mine = await create(client, owner)
    url = f"{GROUPS}/{mine['id']}"
    answers = [
        await client.get(url, headers=stranger.headers),
        await client.put(url, json={"name": "x"}, headers=stranger.headers),
        await client.get(f"{url}/devices", headers=stranger.headers),
        await add(client, stranger, mine, device.id),
        await client.post(f"{url}/devices/bulk", json=body, headers=stranger.headers),
        await client.delete(f"{url}/devices/{device.id}", headers=stranger.headers),
        await client.delete(url, headers=stranger.headers),
        await client.get(
            f"{API}/devices", params={"group_id": mine["id"]}, headers=stranger.headers
        ),
        await client.get(
            f"{API}/telemetry/latest", params={"group_id": mine["id"]}, headers=stranger.headers
        ),
        await client.get(
            f"{API}/telemetry/latest", params={"group_id": mine["id"]}, headers=device.headers
        ),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert (await client.get(url, headers=owner.headers)).json() == mine


async def test_bulk_has_a_bound(client: httpx.AsyncClient, owner: Account) -> None:
    group = await create(client, owner)
    for ids in ([], list(range(1, 1002)), [0], ["1"], [2**53]):
        answer = await client.post(
            f"{GROUPS}/{group['id']}/devices/bulk",
            json={"device_ids": ids},
            headers=owner.headers,
        )
        assert answer.status_code == 422


async def test_bulk_is_no_device(client: httpx.AsyncClient, owner: Account) -> None:
    group = await create(client, owner)
    url = f"{GROUPS}/{group['id']}/devices/bulk"
    for method in ("DELETE", "GET"):
        answer = await client.request(method, url, headers=owner.headers)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    for wrong in (f"{GROUPS}/x/devices/bulk", f"{GROUPS}/x/devices"):
        answer = await client.post(wrong, json={"device_ids": [1]}, headers=owner.headers)
        assert answer.status_code == 422


async def test_latest_values_of_a_group(
    client: httpx.AsyncClient, owner: Account, new_device: NewDevice
) -> None:
    group = await create(client, owner)
    devices = [await new_device() for _ in range(3)]
    ids = [device.id for device in devices]
    await client.post(
        f"{GROUPS}/{group['id']}/devices/bulk", json={"device_ids": ids}, headers=owner.headers
    )
    for number, device in enumerate(devices[:2]):
        body = {"data": {"a": number}}
        await client.post(f"{API}/telemetry", json=body, headers=device.headers)
    url = f"{API}/telemetry/latest"
    answer = await client.get(url, params={"group_id": group["id"]}, headers=owner.headers)
    assert answer.status_code == 200, answer.text
    assert [item["device_id"] for item in answer.json()["items"]] == ids
    assert [item["data"] for item in answer.json()["items"]] == [{"a": 0}, {"a": 1}, {}]
    assert answer.json()["next_cursor"] is None
    by_id = await client.get(url, params={"device_id": ids}, headers=owner.headers)
    assert by_id.json() == answer.json()
    for params in ({}, {"group_id": group["id"], "device_id": ids[0]}, {"group_id": 0}):
        wrong = await client.get(url, params=params, headers=owner.headers)
        assert wrong.status_code == 422


async def test_a_large_group_is_read_in_pages(
    client: httpx.AsyncClient, new_account: NewAccount
) -> None:
    account = await new_account()
    body = {"devices": [{"name": f"d{n}"} for n in range(501)]}
    made = await client.post(f"{API}/devices/bulk", json=body, headers=account.headers)
    ids = [each["device"]["id"] for each in made.json()["results"]]
    group = await create(client, account)
    bulk = await client.post(
        f"{GROUPS}/{group['id']}/devices/bulk", json={"device_ids": ids}, headers=account.headers
    )
    assert bulk.status_code == 200
    params = {"group_id": group["id"]}
    url = f"{API}/telemetry/latest"
    first = (await client.get(url, params=params, headers=account.headers)).json()
    params["cursor"] = first["next_cursor"]
    second = (await client.get(url, params=params, headers=account.headers)).json()
    assert [item["device_id"] for item in first["items"] + second["items"]] == ids
    assert second["next_cursor"] is None
