"""Device configuration: what the owner desires, and what the device reports."""

import json
from typing import Any

import httpx
import pytest

from tests.api.conftest import Account, DeviceUnderTest, NewAccount

API = "/api/v1"
OWN = f"{API}/devices/config"
NOTHING = {"version": None, "config": None, "at": None}


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


def url_of(device: DeviceUnderTest) -> str:
    return f"{API}/devices/{device.id}/config"


async def test_there_is_an_empty_one_at_first(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    owners = await client.get(url_of(device), headers=device.owner.headers)
    assert owners.json() == {"version": 0, "config": {}, "reported": NOTHING}
    own = await client.get(OWN, headers=device.headers)
    assert own.json() == {"version": 0, "config": {}}


async def test_it_goes_to_the_device_and_back(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    desired = {"interval_s": 60, "big": 2**60 + 1, "nested": {"ü": [1.5, None, "\u0000"]}}
    put = await client.put(url_of(device), json=desired, headers=device.owner.headers)
    assert put.status_code == 200, put.text
    assert put.json() == {"version": 1, "config": desired, "reported": NOTHING}
    own = await client.get(OWN, headers=device.headers)
    assert own.json() == {"version": 1, "config": desired}
    report = await client.put(OWN, json=own.json(), headers=device.headers)
    assert report.status_code == 200, report.text
    assert report.json() | {"at": 0} == own.json() | {"at": 0}
    owners = await client.get(url_of(device), headers=device.owner.headers)
    assert owners.json()["reported"] == report.json()
    again = await client.put(url_of(device), json={}, headers=device.owner.headers)
    assert (again.json()["version"], again.json()["config"]) == (2, {})
    assert again.json()["reported"] == report.json()


async def test_a_device_may_report_before_anything_is_desired(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    body = {"version": 0, "config": {"factory": True}}
    assert (await client.put(OWN, json=body, headers=device.headers)).status_code == 200
    owners = await client.get(url_of(device), headers=device.owner.headers)
    assert owners.json()["version"] == 0
    assert owners.json()["reported"]["config"] == {"factory": True}


async def test_a_device_that_knows_it_is_told_so(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    await client.put(url_of(device), json={"a": 1}, headers=device.owner.headers)
    etag = (await client.get(OWN, headers=device.headers)).headers["etag"]
    known = device.headers | {"If-None-Match": etag}
    unchanged = await client.get(OWN, headers=known)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    await client.put(url_of(device), json={"a": 2}, headers=device.owner.headers)
    assert (await client.get(OWN, headers=known)).json() == {"version": 2, "config": {"a": 2}}


async def test_an_etag_guards_a_change(client: httpx.AsyncClient, device: DeviceUnderTest) -> None:
    url = url_of(device)
    etag = (await client.get(url, headers=device.owner.headers)).headers["etag"]
    guarded = device.owner.headers | {"If-Match": etag}
    first = await client.put(url, json={"a": 1}, headers=guarded)
    assert first.status_code == 200
    await client.put(OWN, json={"version": 1, "config": {}}, headers=device.headers)
    for stale in (etag, '"x"', f"W/{first.headers['etag']}"):
        headers = device.owner.headers | {"If-Match": stale}
        answer = await client.put(url, json={"a": 2}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (412, "stale_version")
    for current in (first.headers["etag"], "*"):
        headers = device.owner.headers | {"If-Match": current}
        assert (await client.put(url, json={"a": 3}, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b'{"a": NaN}', 400, "invalid_json"),
        (b'{"a": "\xff"}', 400, "invalid_json"),
        (b"[1]", 422, "validation_failed"),
        (b"null", 422, "validation_failed"),
        (b'{"a": 1e400}', 422, "validation_failed"),
        (nested(65), 422, "validation_failed"),
        (nested(5_000), 422, "validation_failed"),
        (json.dumps({"a": "x" * 65_536}).encode(), 413, "body_too_large"),
    ],
    ids=lambda value: str(value)[:16],
)
async def test_what_is_no_configuration_is_refused(
    client: httpx.AsyncClient, device: DeviceUnderTest, body: bytes, status: int, code: str
) -> None:
    headers = device.owner.headers | {"Content-Type": "application/json"}
    answer = await client.put(url_of(device), content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    read = await client.get(url_of(device), headers=device.owner.headers)
    assert read.json()["version"] == 0


async def test_64_kib_are_taken(client: httpx.AsyncClient, device: DeviceUnderTest) -> None:
    config = {"a": "x" * (65_536 - 9)}
    body = json.dumps(config).encode()
    assert len(body) == 65_536 - 9 + 9
    headers = device.owner.headers | {"Content-Type": "application/json"}
    answer = await client.put(url_of(device), content=body, headers=headers)
    assert answer.status_code == 200
    own = await client.get(OWN, headers=device.headers)
    assert own.json()["config"] == config
    assert (await client.put(OWN, json=own.json(), headers=device.headers)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"version": 1},
        {"config": {}},
        {"version": -1, "config": {}},
        {"version": 1.5, "config": {}},
        {"version": 2**53, "config": {}},
        {"version": "1", "config": {}},
        {"version": 1, "config": []},
        {"version": 1, "config": {}, "more": 1},
        {"version": 1, "config": json.loads(nested(65))},
        [1],
    ],
    ids=lambda body: str(body)[:60],
)
async def test_what_is_no_report_is_refused(
    client: httpx.AsyncClient, device: DeviceUnderTest, body: Any
) -> None:
    answer = await client.put(OWN, json=body, headers=device.headers)
    assert answer.status_code == 422, answer.text
    read = await client.get(url_of(device), headers=device.owner.headers)
    assert read.json()["reported"] == NOTHING


async def test_64_levels_are_taken(client: httpx.AsyncClient, device: DeviceUnderTest) -> None:
    headers = device.owner.headers | {"Content-Type": "application/json"}
    answer = await client.put(url_of(device), content=nested(64), headers=headers)
    assert answer.status_code == 200
    own = await client.get(OWN, headers=device.headers)
    assert own.json()["config"] == json.loads(nested(64))
    assert (await client.put(OWN, json=own.json(), headers=device.headers)).status_code == 200


async def test_other_bodies_are_not_taken(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    headers = {"Content-Type": "text/plain"}
    for url, who in ((url_of(device), device.owner.headers), (OWN, device.headers)):
        answer = await client.put(url, content=b"{}", headers=who | headers)
        assert answer.status_code == 415
        none = await client.put(url, headers=who)
        assert none.status_code == 400
    report = {"version": 1, "config": {}}
    bare = await client.put(OWN, content=json.dumps(report).encode(), headers=device.headers)
    assert bare.status_code == 200, "a device without a Content-Type"


async def test_it_is_the_owners_and_the_devices_alone(
    client: httpx.AsyncClient, device: DeviceUnderTest, owner: Account, new_account: NewAccount
) -> None:
    stranger = await new_account()
    assert (await client.get(url_of(device), headers=stranger.headers)).status_code == 404
    put = await client.put(url_of(device), json={}, headers=stranger.headers)
    assert put.status_code == 404
    assert (await client.get(url_of(device), headers=device.headers)).status_code == 401
    assert (await client.get(OWN, headers=owner.headers)).status_code == 401


async def test_a_version_with_a_fraction_of_zero_is_whole(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    body = b'{"version": 18.0, "config": {}}'
    headers = device.headers | {"Content-Type": "application/json"}
    report = await client.put(OWN, content=body, headers=headers)
    assert (report.status_code, report.json()["version"]) == (200, 18), report.text
    refused = await client.put(OWN, content=body.replace(b"18.0", b"18.5"), headers=headers)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "version")
