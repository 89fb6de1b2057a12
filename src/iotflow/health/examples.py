"""Health and status as the API explorer shows them."""

from typing import Any

from iotflow.http.examples import answers

_ROLES = {
    "cassandra": ("Time-series telemetry storage", "cassandra"),
    "redis": ("Caching layer", "redis"),
    "mongodb": ("Event logging and analytics", "mongodb"),
    "postgres": ("User and device management", "postgresql"),
}
_DATABASES: dict[str, Any] = {
    name: {"available": True, "role": role, "backend": backend}
    for name, (role, backend) in _ROLES.items()
}
_SERVICE = {"version": "0.1.0", "status": "healthy", "uptime_s": 86_400}

SERVICE = answers(
    200, {"name": "IoTFlow", "version": "0.1.0", "links": {"docs": "/docs", "health": "/health"}}
)
HEALTH = answers(200, _SERVICE)
UNHEALTHY = answers(503, {**_SERVICE, "status": "unhealthy"})
LIVE = answers(200, {"status": "alive"})
READY = answers(200, {"status": "ready", "reasons": []})
NOT_READY = answers(
    503,
    {"status": "not_ready", "reasons": ["the telemetry store (cassandra) is not available"]},
)
STATUS = answers(200, {"name": "IoTFlow", **_SERVICE, "databases": _DATABASES})
TELEMETRY_STATUS = answers(200, {"status": "healthy", "databases": _DATABASES})
METRICS = answers(
    200,
    'iotflow_store_up{store="telemetry"} 1.0\n',
    media_type="text/plain",
)
