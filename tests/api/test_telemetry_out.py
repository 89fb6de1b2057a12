import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.api.conftest import Account, DeviceUnderTest, NewAccount, NewDevice

API = "/api/v1/telemetry"
START = 1_767_225_600_000  # 2026-01-01T00:00:00Z
RANGE = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-02T00:00:00Z"}


async def send(
    client: httpx.AsyncClient, device: DeviceUnderTest, records: list[dict[str, Any]]
) -> None:
    answer = await client.post(f"{API}/batch", json={"records": records}, headers=device.headers)
    assert answer.status_code == 201, answer.text


@pytest.fixture(scope="module")
async def filled(client: httpx.AsyncClient, owner: Account) -> DeviceUnderTest:
    """A device with a day of two measurements, one point a minute."""
    from tests.api.conftest import create_device

    device = await create_device(client, owner)
    records = [
        {
            "timestamp": START + minute * 60_000,
            "data": {
                "humidity": 50 + minute % 7,
                "temperature": {"value": minute / 4, "unit": "C"},
            },
        }
        for minute in range(1440)
    ]
    await send(client, device, records)
    return device


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_paging_visits_every_point_once_in_order(
    client: httpx.AsyncClient, filled: DeviceUnderTest, order: str
) -> None:
    params: dict[str, Any] = RANGE | {"order": order, "limit": 997}
    points: list[tuple[str, str]] = []
    while True:
        answer = await client.get(f"{API}/{filled.id}", params=params, headers=filled.headers)
        page = answer.json()
        assert page["count"] == len(page["data"])
        assert page["truncated"] == (page["next_cursor"] is not None)
        points += [(each["timestamp"], each["measurement_name"]) for each in page["data"]]
        if page["next_cursor"] is None:
            break
        params = params | {"cursor": page["next_cursor"]}
    assert len(points) == len(set(points)) == 2880
    assert [point[0] for point in points] == sorted(
        (point[0] for point in points), reverse=order == "desc"
    )


async def test_a_relative_range_means_the_same_on_every_page(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    await send(client, device, [{"timestamp": now_ms - n, "data": {"a": n}} for n in range(3)])
    params = {"start_time": "-24h", "limit": "1"}
    first = (await client.get(f"{API}/{device.id}", params=params, headers=device.headers)).json()
    for repeated in (params, {"limit": "2"}):
        following = repeated | {"cursor": first["next_cursor"]}
        page = await client.get(f"{API}/{device.id}", params=following, headers=device.headers)
        assert page.json()["start_time"] == first["start_time"]
        assert page.json()["end_time"] == first["end_time"]
    other = {"start_time": "-2h", "cursor": first["next_cursor"]}
    refused = await client.get(f"{API}/{device.id}", params=other, headers=device.headers)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["code"] == "invalid_cursor"


async def test_history_as_csv_and_ndjson(
    client: httpx.AsyncClient, filled: DeviceUnderTest
) -> None:
    url, params = f"{API}/{filled.id}", RANGE | {"order": "asc", "limit": "3"}
    expected = (await client.get(url, params=params, headers=filled.headers)).json()
    as_csv = await client.get(url, params=params, headers=filled.headers | {"Accept": "text/csv"})
    assert as_csv.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(as_csv.text)))
    assert [row["measurement_name"] for row in rows] == [
        point["measurement_name"] for point in expected["data"]
    ]
    assert list(rows[0]) == ["timestamp", "measurement_name", "value", "unit"]
    assert as_csv.headers["x-next-cursor"] == expected["next_cursor"]
    lines = await client.get(
        url, params=params, headers=filled.headers | {"Accept": "application/x-ndjson"}
    )
    assert [json.loads(line) for line in lines.text.splitlines()] == expected["data"]
    assert lines.headers["x-next-cursor"] == expected["next_cursor"]


async def test_a_history_of_one_measurement(
    client: httpx.AsyncClient, filled: DeviceUnderTest
) -> None:
    params = RANGE | {"measurement": "temperature", "limit": "10000"}
    page = (await client.get(f"{API}/{filled.id}", params=params, headers=filled.headers)).json()
    assert page["count"] == 1440
    assert {point["measurement_name"] for point in page["data"]} == {"temperature"}
    assert {point["unit"] for point in page["data"]} == {"C"}


async def test_latest_is_complete_and_then_cached(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    nothing = await client.get(f"{API}/{device.id}/latest", headers=device.headers)
    assert (nothing.status_code, nothing.json()["code"]) == (404, "no_telemetry")
    await send(
        client,
        device,
        [
            {"timestamp": START, "data": {"a": 1, "b": {"value": True, "unit": "x"}}},
            {"timestamp": START + 5, "data": {"a": 2}},
        ],
    )
    await client.delete(
        f"{API}/{device.id}",
        params={"start_time": str(START - 1000), "end_time": str(START)},
        headers=device.owner.headers,
    )
    expected = {
        "device_id": device.id,
        "timestamp": "2026-01-01T00:00:00.005Z",
        "data": {"a": 2, "b": True},
        "measurements": {
            "a": {"value": 2, "unit": None, "timestamp": "2026-01-01T00:00:00.005Z"},
            "b": {"value": True, "unit": "x", "timestamp": "2026-01-01T00:00:00.000Z"},
        },
    }
    for verdict in ("miss", "hit"):
        answer = await client.get(f"{API}/{device.id}/latest", headers=device.headers)
        assert answer.headers["x-cache"] == verdict
        assert answer.json() == expected


async def test_latest_of_many_is_one_answer(
    client: httpx.AsyncClient, new_device: NewDevice, owner: Account, new_account: NewAccount
) -> None:
    devices = [await new_device() for _ in range(3)]
    for number, device in enumerate(devices[:2]):
        await send(client, device, [{"timestamp": START, "data": {"n": number}}])
    params = {"device_id": [device.id for device in devices]}
    answer = await client.get(f"{API}/latest", params=params, headers=owner.headers)
    assert [(item["device_id"], item["data"]) for item in answer.json()["items"]] == [
        (devices[0].id, {"n": 0}),
        (devices[1].id, {"n": 1}),
        (devices[2].id, {}),
    ]
    stranger = await new_account()
    refused = await client.get(f"{API}/latest", params=params, headers=stranger.headers)
    assert refused.status_code == 404


async def test_a_deleted_range_is_gone_from_history_and_latest_and_can_be_filled_again(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    await send(client, device, [{"timestamp": START + n, "data": {"a": n}} for n in range(10)])
    latest = f"{API}/{device.id}/latest"
    assert (await client.get(latest, headers=device.headers)).json()["data"] == {"a": 9}
    params = {"start_time": str(START + 5), "end_time": str(START + 100)}
    by_device = await client.delete(f"{API}/{device.id}", params=params, headers=device.headers)
    assert by_device.status_code == 403
    deleted = await client.delete(f"{API}/{device.id}", params=params, headers=device.owner.headers)
    assert deleted.json() == {"deleted": 5}
    assert (await client.get(latest, headers=device.headers)).json()["data"] == {"a": 4}
    await send(client, device, [{"timestamp": START + 7, "data": {"a": "again"}}])
    assert (await client.get(latest, headers=device.headers)).json()["data"] == {"a": "again"}


async def test_points_of_all_devices_of_a_user(
    client: httpx.AsyncClient, new_account: NewAccount, new_device: NewDevice
) -> None:
    account = await new_account()
    devices = [await new_device(account, name=f"d{n}") for n in range(3)]
    for number, device in enumerate(devices):
        await send(
            client,
            device,
            [{"timestamp": START + 10 * n + number, "data": {"x": n}} for n in range(5)],
        )
    found: list[dict[str, Any]] = []
    params: dict[str, Any] = RANGE | {"limit": 4}
    while True:
        answer = await client.get(
            f"{API}/user/{account.id}", params=params, headers=account.headers
        )
        page = answer.json()
        found += page["data"]
        if page["next_cursor"] is None:
            break
        params = params | {"cursor": page["next_cursor"]}
    assert len(found) == 15
    assert [point["timestamp"] for point in found] == sorted(
        (point["timestamp"] for point in found), reverse=True
    )
    assert (found[0]["device_id"], found[0]["device_name"]) == (devices[2].id, "d2")
    stranger = await new_account()
    refused = await client.get(f"{API}/user/{account.id}", headers=stranger.headers)
    assert refused.status_code == 404


async def test_points_of_more_devices_than_one_call_takes_are_refused(
    client: httpx.AsyncClient,
    new_account: NewAccount,
    new_device: NewDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And none of them is left out in silence."""
    monkeypatch.setattr("iotflow.telemetry.router._MAX_USER_DEVICES", 2)
    account = await new_account()
    url = f"{API}/user/{account.id}"
    for _ in range(2):
        await send(client, await new_device(account), [{"timestamp": START, "data": {"x": 1}}])
    answer = await client.get(url, params=RANGE, headers=account.headers)
    assert (answer.status_code, answer.json()["count"]) == (200, 2)
    await new_device(account)
    refused = await client.get(url, params=RANGE, headers=account.headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "fleet_too_large")
    assert "more than 2 devices" in refused.json()["detail"]


async def test_windows_of_numbers(client: httpx.AsyncClient, filled: DeviceUnderTest) -> None:
    params: dict[str, Any] = RANGE | {
        "field": "temperature",
        "aggregation": ["mean", "sum", "min", "max", "count", "first", "last"],
        "window": "6h",
    }
    answer = await client.get(
        f"{API}/{filled.id}/aggregated", params=params, headers=filled.headers
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["field"] == "temperature"
    assert answer.json()["window"] == "6h"
    windows = answer.json()["data"]
    for index, window in enumerate(windows):
        values = [minute / 4 for minute in range(index * 360, (index + 1) * 360)]
        assert window == {
            "timestamp": f"2026-01-01T{index * 6:02d}:00:00.000Z",
            "count": 360,
            "mean": pytest.approx(sum(values) / 360),
            "sum": pytest.approx(sum(values)),
            "min": values[0],
            "max": values[-1],
            "first": values[0],
            "last": values[-1],
        }
    assert len(windows) == 4


async def test_windows_without_points_are_left_out_or_null(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    await send(
        client, device, [{"timestamp": START + 3_600_000 * n, "data": {"a": n}} for n in (0, 2)]
    )
    params = {
        "field": "a",
        "aggregation": "mean",
        "window": "1h",
        "start_time": "2026-01-01T00:00:00Z",
        "end_time": "2026-01-01T03:00:00Z",
    }
    url = f"{API}/{device.id}/aggregated"
    sparse = (await client.get(url, params=params, headers=device.headers)).json()["data"]
    assert [window["mean"] for window in sparse] == [0, 2]
    full = await client.get(url, params=params | {"fill": "null"}, headers=device.headers)
    assert [window["mean"] for window in full.json()["data"]] == [0, None, 2]
    assert [window["count"] for window in full.json()["data"]] == [1, 0, 1]


async def test_text_is_skipped_counted_and_refused_where_there_is_nothing_else(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    await send(
        client,
        device,
        [
            {"timestamp": START, "data": {"mixed": 4, "words": "a"}},
            {"timestamp": START + 1, "data": {"mixed": "text", "words": "b"}},
            {"timestamp": START + 2, "data": {"mixed": True}},
        ],
    )
    url = f"{API}/{device.id}/aggregated"

    async def ask(**params: Any) -> httpx.Response:
        return await client.get(
            url, params=RANGE | {"window": "1d"} | params, headers=device.headers
        )

    mixed = await ask(field="mixed", aggregation=["mean", "count", "first", "last"])
    (window,) = mixed.json()["data"]
    assert (window["mean"], window["count"]) == (2.5, 3)
    assert (window["first"], window["last"]) == (4, True)
    words = await ask(field="words", aggregation="mean")
    assert (words.status_code, words.json()["errors"][0]["code"]) == (422, "not_numeric")
    counted = await ask(field="words", aggregation=["count", "last"])
    assert counted.json()["data"][0] == {
        "timestamp": "2026-01-01T00:00:00.000Z", "count": 2, "last": "b",
    }  # fmt: skip
    nothing = await ask(field="absent", aggregation="mean")
    assert (nothing.status_code, nothing.json()["data"]) == (200, [])


async def test_a_range_thinned_for_a_chart(
    client: httpx.AsyncClient, filled: DeviceUnderTest
) -> None:
    params = RANGE | {"field": "temperature", "points": "50"}
    answer = await client.get(
        f"{API}/{filled.id}/aggregated", params=params, headers=filled.headers
    )
    data = answer.json()["data"]
    assert len(data) == 50
    assert data[0] == {"timestamp": "2026-01-01T00:00:00.000Z", "value": 0}
    assert data[-1] == {"timestamp": "2026-01-01T23:59:00.000Z", "value": 1439 / 4}


async def test_history_of_others_does_not_exist(
    client: httpx.AsyncClient,
    filled: DeviceUnderTest,
    new_account: NewAccount,
    new_device: NewDevice,
) -> None:
    stranger = await new_account()
    other_device = await new_device(stranger)
    for headers in (stranger.headers, other_device.headers):
        for path in ("", "/latest", "/aggregated?field=a&aggregation=mean&window=1h"):
            answer = await client.get(f"{API}/{filled.id}{path}", headers=headers)
            assert answer.status_code == 404
    deleted = await client.delete(f"{API}/{filled.id}", params=RANGE, headers=stranger.headers)
    assert deleted.status_code == 404
