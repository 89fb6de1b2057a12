"""A client of IoTFlow.

`connect` makes a client; `submit`, `submit_batch` and `history` do the everyday work; every call
of the API is a module under `iotflow_client.api`, with `sync`, `asyncio` and the two `_detailed`
functions, which return the status and the headers, too.
"""

from .client import AuthenticatedClient, Client
from .connecting import connect
from .models.problem import Problem
from .models.quantity import Quantity
from .results import ApiError, UnreadableAnswerError, ok
from .retrying import Retry, RetryTransport
from .telemetry import history, measurements, submit, submit_batch

__all__ = [
    "ApiError",
    "AuthenticatedClient",
    "Client",
    "Problem",
    "Quantity",
    "Retry",
    "RetryTransport",
    "UnreadableAnswerError",
    "connect",
    "history",
    "measurements",
    "ok",
    "submit",
    "submit_batch",
]
