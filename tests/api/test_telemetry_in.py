import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.api.conftest import DeviceUnderTest, NewDevice

API = "/api/v1/telemetry"


async def history(
    client: httpx.AsyncClient, device: DeviceUnderTest, **params: Any
) -> list[dict[str, Any]]:
    answer = await client.get(
        f"{API}/{device.id}", params={"limit": 10_000} | params, headers=device.headers
    )
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def test_a_submission_is_stored_with_its_types_and_units(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    moment = datetime.now(UTC) - timedelta(hours=1)
    body = {
        "data": {
            "temperature": 23.5,
            "door_open": True,
            "co2": {"value": 612, "unit": "ppm"},
            "counter": 2**63 - 1,
            "lowest": -(2**63),
            "state": "on",
            "whole": 23.0,
        },
        "timestamp": moment.isoformat(),
        "metadata": {"battery": "ok"},
    }
    answer = await client.post(API, json=body, headers=device.headers)
    assert answer.status_code == 201
    written = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
    assert answer.json() == {
        "device_id": device.id,
        "timestamp": written,
        "accepted": 7,
        "rejected": [],
    }
    found = {point["measurement_name"]: point for point in await history(client, device)}
    assert {point["timestamp"] for point in found.values()} == {written}
    values = {name: point["value"] for name, point in found.items()}
    assert values == {
        "temperature": 23.5,
        "door_open": True,
        "co2": 612,
        "counter": 2**63 - 1,
        "lowest": -(2**63),
        "state": "on",
        "whole": 23.0,
    }
    types = {name: type(value) for name, value in values.items()}
    assert types["door_open"] is bool
    assert types["counter"] is int
    assert types["whole"] is float
    assert found["co2"]["unit"] == "ppm"
    assert found["temperature"]["unit"] is None


async def test_a_bad_measurement_costs_no_other(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    raw = (
        b'{"data": {"good": 1, "nan": NaN, "inf": -Infinity, "huge": 1e400, "c_nan": -nan,'
        b' "list": [1], "null": null, "1st": 2, "text": "said nan, inf"}}'
    )
    answer = await client.post(API, content=raw, headers=device.headers)
    assert answer.status_code == 207
    receipt = answer.json()
    assert receipt["accepted"] == 2
    codes = {each["measurement"]: each["code"] for each in receipt["rejected"]}
    assert codes == {
        "nan": "not_finite",
        "inf": "not_finite",
        "huge": "not_finite",
        "c_nan": "not_finite",
        "list": "invalid_value",
        "null": "invalid_value",
        "1st": "invalid_name",
    }
    values = {point["measurement_name"]: point["value"] for point in await history(client, device)}
    assert values == {"good": 1, "text": "said nan, inf"}


async def test_nothing_good_is_422_with_every_reason(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    answer = await client.post(API, content=b'{"data": {"a": NaN}}', headers=device.headers)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["accepted"] == 0
    assert [each["code"] for each in problem["rejected"]] == ["not_finite"]
    assert problem["request_id"] == answer.headers["x-request-id"]


async def test_sending_again_changes_nothing_and_the_last_value_wins_whole(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    stamp = int(datetime.now(UTC).timestamp() * 1000) - 1000
    first = {"data": {"x": {"value": 1, "unit": "m"}}, "timestamp": stamp}
    for _ in range(2):
        answer = await client.post(API, json=first, headers=device.headers)
        assert (answer.status_code, answer.json()["accepted"]) == (201, 1)
    assert [point["value"] for point in await history(client, device)] == [1]
    second = {"data": {"x": "text"}, "timestamp": stamp}
    assert (await client.post(API, json=second, headers=device.headers)).status_code == 201
    (point,) = await history(client, device)
    assert (point["value"], point["unit"]) == ("text", None)
    latest = (await client.get(f"{API}/{device.id}/latest", headers=device.headers)).json()
    assert latest["measurements"]["x"]["value"] == "text"
    assert latest["measurements"]["x"]["unit"] is None


async def test_concurrent_submissions_without_a_timestamp_are_points_of_their_own(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    async def submit(number: int) -> str:
        body = {"data": {"number": number, "twice": number * 2}}
        answer = await client.post(API, json=body, headers=device.headers)
        assert answer.status_code == 201, answer.text
        stamp: str = answer.json()["timestamp"]
        return stamp

    stamps = await asyncio.gather(*(submit(number) for number in range(400)))
    assert len(set(stamps)) == 400
    found = await history(client, device)
    assert len(found) == 800
    assert {p["value"] for p in found if p["measurement_name"] == "number"} == set(range(400))


async def test_the_first_time_of_all_is_a_time(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    body = {"data": {"x": 1}, "timestamp": "1970-01-01T00:00:00Z"}
    answer = await client.post(API, json=body, headers=device.headers)
    assert (answer.status_code, answer.json()["timestamp"]) == (201, "1970-01-01T00:00:00.000Z")


async def test_late_data_is_stored_and_does_not_become_the_latest(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    for stamp, value in ((now_ms, "new"), (now_ms - 60_000, "late")):
        body = {"data": {"x": value}, "timestamp": stamp}
        assert (await client.post(API, json=body, headers=device.headers)).status_code == 201
        latest = (await client.get(f"{API}/{device.id}/latest", headers=device.headers)).json()
        assert latest["data"] == {"x": "new"}
    found = await history(client, device)
    assert [point["value"] for point in found] == ["new", "late"]


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("packed", [False, True])
async def test_a_bad_record_costs_no_other(
    client: httpx.AsyncClient, new_device: NewDevice, lines: bool, packed: bool
) -> None:
    device = await new_device()
    stamp = int(datetime.now(UTC).timestamp() * 1000) - 100_000
    records: list[Any] = [
        {"timestamp": stamp, "data": {"a": 1}},
        {"timestamp": stamp // 1000, "data": {"a": 2}},
        {"data": {"a": 3}},
        "no record",
        {"timestamp": stamp + 1, "data": {"a": 4, "b": None}},
        {"timestamp": stamp + 2, "data": {}},
        {"timestamp": stamp + 3, "data": {"a": 5}, "unit": "m"},
        {"timestamp": stamp + 10**9, "data": {"a": 6}},
        {"timestamp": stamp + 4, "data": {"a": 7}, "metadata": {"run": 3}},
        {
            "timestamp": stamp + 5,
            "data": {"a": 8},
            "metadata": {"run": json.loads("[" * 64 + "]" * 64)},
        },
    ]
    if lines:
        bottomless = b'{"data": {"a": 9}, "metadata": {"run": ' + b"[" * 100_000 + b"\n"
        content = b"\n".join(json.dumps(record).encode() for record in records)
        content += b"\n{broken\n" + bottomless
    else:
        content = json.dumps({"records": records}).encode()
    headers = device.headers | {
        "Content-Type": "application/x-ndjson" if lines else "application/json"
    }
    if packed:
        content = gzip.compress(content)
        headers["Content-Encoding"] = "gzip"
    answer = await client.post(f"{API}/batch", content=content, headers=headers)
    assert answer.status_code == 207, answer.text
    receipt = answer.json()
    assert receipt["accepted"] == 3
    verdicts = [(each["index"], each["measurement"], each["code"]) for each in receipt["rejected"]]
    assert verdicts[:8] == [
        (1, None, "invalid_timestamp"),
        (2, None, "missing_timestamp"),
        (3, None, "invalid_record"),
        (4, "b", "invalid_value"),
        (5, None, "empty_data"),
        (6, None, "unknown_field"),
        (7, None, "timestamp_in_future"),
        (9, None, "too_deep"),
    ]
    broken = [(10, None, "invalid_json"), (11, None, "invalid_json")]
    assert verdicts[8:] == (broken if lines else [])
    assert sorted(point["value"] for point in await history(client, device)) == [1, 4, 7]


async def test_repeats_within_a_batch_are_reduced_to_the_last(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    stamp = int(datetime.now(UTC).timestamp() * 1000) - 1000
    records = [{"timestamp": stamp, "data": {"a": value}} for value in (1, 2, 3)]
    answer = await client.post(f"{API}/batch", json={"records": records}, headers=device.headers)
    assert (answer.status_code, answer.json()["accepted"]) == (201, 3)
    assert [point["value"] for point in await history(client, device)] == [3]


async def test_bounds_of_a_batch(client: httpx.AsyncClient, device: DeviceUnderTest) -> None:
    stamp = int(datetime.now(UTC).timestamp() * 1000) - 100_000
    many = [{"timestamp": stamp + n, "data": {"a": n}} for n in range(5_001)]
    answer = await client.post(f"{API}/batch", json={"records": many}, headers=device.headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "too_many_records"
    wide = [{"timestamp": stamp + n, "data": {f"m{m}": m for m in range(201)}} for n in range(100)]
    answer = await client.post(f"{API}/batch", json={"records": wide}, headers=device.headers)
    assert answer.json()["errors"][0]["code"] == "too_many_points"
    answer = await client.post(
        f"{API}/batch", json={"records": many[:5_000]}, headers=device.headers
    )
    assert (answer.status_code, answer.json()["accepted"]) == (201, 5_000)


async def test_a_device_has_at_most_1024_measurement_names(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    stamp = int(datetime.now(UTC).timestamp() * 1000) - 1000
    records = [
        {"timestamp": stamp + part, "data": {f"m{part * 256 + n}": n for n in range(256)}}
        for part in range(4)
    ]
    answer = await client.post(f"{API}/batch", json={"records": records}, headers=device.headers)
    assert (answer.status_code, answer.json()["accepted"]) == (201, 1024)
    body = {"data": {"m7": 1, "one_more": 1}}
    answer = await client.post(API, json=body, headers=device.headers)
    assert (answer.status_code, answer.json()["accepted"]) == (207, 1)
    assert answer.json()["rejected"][0]["measurement"] == "one_more"
    assert answer.json()["rejected"][0]["code"] == "too_many_measurements"


async def test_integers_past_64_bits_become_floats(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    raw = b'{"data": {"big": 100000000000000000000, "endless": 1%b}}' % (b"0" * 5000)
    answer = await client.post(API, content=raw, headers=device.headers)
    assert answer.status_code == 207
    assert [each["code"] for each in answer.json()["rejected"]] == ["not_finite"]
    (point,) = await history(client, device)
    assert point["value"] == 1e20


async def test_every_submission_becomes_an_event_and_a_last_seen(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    answer = await client.post(API, json={"data": {"a": 1}}, headers=device.headers)
    assert answer.status_code == 201
    for _ in range(50):
        status = await client.get(
            f"/api/v1/devices/{device.id}/status", headers=device.owner.headers
        )
        if status.json()["last_seen"]:
            break
        await asyncio.sleep(0.1)
    assert status.json()["last_seen"] is not None
    assert status.json()["is_online"] is True


async def slowly(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(0.6)
        yield part


async def test_a_key_revoked_while_a_body_arrives_is_refused(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    keys = f"/api/v1/devices/{device.id}/keys"
    key_id = (await client.get(keys, headers=device.owner.headers)).json()["items"][0]["id"]
    content = slowly(b'{"data": ', b'{"a": ', b"1}}")
    sending = asyncio.create_task(
        client.post("/api/v1/telemetry", content=content, headers=device.headers)
    )
    await asyncio.sleep(0.3)
    revoked = await client.delete(f"{keys}/{key_id}", headers=device.owner.headers)
    assert revoked.status_code == 204
    assert (await sending).status_code == 401


async def test_a_body_that_does_not_come_to_an_end_is_given_up(
    client: httpx.AsyncClient, device: DeviceUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iotflow.http.bodies.MAX_SECONDS", 0.5)
    content = slowly(b'{"data": ', b'{"a": 1}}')
    answer = await client.post("/api/v1/telemetry", content=content, headers=device.headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "body_too_slow")
