"""The main job with the Python client; prints what it saw as JSON."""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime, timedelta

from iotflow_client import ApiError, Quantity, Retry, connect, history, ok, submit, submit_batch
from iotflow_client.api.accounts import login, me, register
from iotflow_client.api.devices import register_device
from iotflow_client.api.telemetry import device_aggregated, device_latest
from iotflow_client.models import Aggregation, DeviceRegistration, Login, Registration

URL = os.environ["IOTFLOW_URL"]
NAME, PASSWORD = sys.argv[1] if len(sys.argv) > 1 else "python", "correct horse battery"
START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)

with connect(URL) as nobody:
    account = Registration(username=NAME, email=f"{NAME}@example.com", password=PASSWORD)
    ok(register.sync(client=nobody, body=account))
    session = ok(login.sync(client=nobody, body=Login(username=NAME, password=PASSWORD)))
with connect(URL, token=session.access_token) as user:
    made = ok(register_device.sync(client=user, body=DeviceRegistration(name="from python")))
    device = connect(URL, api_key=made.api_key)

    receipt = submit(
        device, {"t": 23.5, "open": True, "note": "x", "co2": Quantity(value=612, unit="ppm")},
        timestamp=START, metadata={"battery": "ok"},
    )  # fmt: skip
    batch = submit_batch(device, ((START + timedelta(seconds=n), {"n": n}) for n in range(1, 251)))
    points = list(history(user, made.device.id, start=START, page_size=100, oldest_first=True))
    latest = ok(device_latest.sync(made.device.id, client=user))
    windows = ok(
        device_aggregated.sync(
            made.device.id, client=user, field="n", aggregation=[Aggregation.SUM], window="1d",
        )
    )  # fmt: skip
    partly = submit(device, {"t": 1.0, "1st": 2.0})

    try:
        submit(device, {"1st": 1.0})
        refused = {}
    except ApiError as error:
        refused = {
            "status": error.status,
            "code": error.code,
            "rejected": [[each.measurement, each.code] for each in error.rejected],
        }
    try:
        ok(register_device.sync(client=user, body=DeviceRegistration(name="")))
        invalid = {}
    except ApiError as error:
        invalid = {"status": error.status, "fields": [each.field for each in error.errors]}

    async def again() -> str:
        async with connect(URL, token=session.access_token) as client:
            return ok(await me.asyncio(client=client)).username

    report = {
        "token": session.access_token,
        "device_id": made.device.id,
        "accepted": receipt.accepted,
        "batch": batch.accepted,
        "points": [[p.timestamp.isoformat(), p.measurement_name, p.value, p.unit] for p in points],
        "latest": latest.data.to_dict(),
        "sum": [window.to_dict().get("sum") for window in windows.data],
        "partly": [partly.accepted, [each.measurement for each in partly.rejected]],
        "refused": refused,
        "invalid": invalid,
        "async": asyncio.run(again()),
    }

if "IOTFLOW_STRICT" in os.environ:
    patient, hasty = device, connect(URL, api_key=made.api_key, retry=Retry(attempts=1))
    report["patient"] = sum(
        submit(patient, {"n": n}, timestamp=START - timedelta(seconds=n)).accepted for n in range(8)
    )
    try:
        for n in range(50):
            submit(hasty, {"n": n}, timestamp=START - timedelta(minutes=n + 1))
    except ApiError as error:
        report["hasty"] = {"status": error.status, "code": error.code}

print(json.dumps(report))
