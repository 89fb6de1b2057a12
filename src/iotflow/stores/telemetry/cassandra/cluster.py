"""How the driver is set up."""

from collections.abc import Callable
from time import monotonic
from typing import Any

import acsylla
import structlog

from iotflow.stores.telemetry.cassandra.address import Address

_CONNECT_S = 3.0
# A node that says nothing for so long is left alone. Until then a frozen one is asked like others.
_HEARTBEAT_S, _IDLE_S = 1, 3
_RECONNECT_MS = 500
_REQUEST_S = 30  # the limits of driver.py come first
_TELL_AGAIN_S = 60.0
_REMEMBERED = 256
_HARMLESS = "Could not retrieve sharding info"  # each connection to Cassandra says it as an error

_log = structlog.get_logger(__name__)


class DriverLog:
    """Passes on what the driver says, each thing once in a while: with nodes away it tells of
    every attempt to reconnect, several a second and node."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._told_s: dict[str, float] = {}

    def take(self, message: Any) -> None:
        text = str(message.message)
        now_s = self._clock()
        if _HARMLESS in text or now_s - self._told_s.get(text, -_TELL_AGAIN_S) < _TELL_AGAIN_S:
            return
        if len(self._told_s) >= _REMEMBERED:
            self._told_s.clear()
        self._told_s[text] = now_s
        _log.warning("cassandra_driver", message=text)


def create_cluster(address: Address, io_threads: int, connections_a_host: int) -> Any:
    """The driver's cluster object, not yet connected. It belongs to the running loop."""
    options: dict[str, Any] = {"logging_callback": DriverLog().take}
    if address.user is not None:
        options |= {"username": address.user, "password": address.password}
    if address.local_dc is not None:
        options["load_balance_dc_aware"] = address.local_dc
    if address.tls_roots is not None:
        flags = acsylla.SSLVerifyFlags
        options |= {
            "ssl_enabled": True,
            "ssl_trusted_cert": address.tls_roots or None,
            "ssl_verify_flags": flags.PEER_CERT if address.tls_roots else flags.NONE,
        }
    cluster: Any = acsylla.create_cluster(
        list(address.hosts),
        port=address.port,
        connect_timeout=_CONNECT_S,
        request_timeout=_REQUEST_S,
        consistency=acsylla.Consistency.LOCAL_QUORUM,
        serial_consistency=acsylla.Consistency.SERIAL,
        num_threads_io=io_threads,
        core_connections_per_host=connections_a_host,
        heartbeat_interval_sec=_HEARTBEAT_S,
        idle_timeout_sec=_IDLE_S,
        application_name="iotflow",
        **options,
    )
    # As an option it is overridden by the default of another one, which grows to a minute.
    cluster.set_constant_reconnect(_RECONNECT_MS)
    return cluster
