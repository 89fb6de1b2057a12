"""What the Python client does about 503: prints what came of a submission and a registration."""

import os

from iotflow_client import ApiError, Retry, connect, ok, submit
from iotflow_client.api.devices import register_device
from iotflow_client.models import DeviceRegistration

URL = os.environ["IOTFLOW_URL"]
RETRY = Retry(first_wait_s=0.01)

print("stored", submit(connect(URL, api_key="key", retry=RETRY), {"n": 1}).accepted)
try:
    user = connect(URL, token="token", retry=RETRY)
    ok(register_device.sync(client=user, body=DeviceRegistration(name="once")))
except ApiError as error:
    print("refused", error.status)
