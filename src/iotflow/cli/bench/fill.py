"""Fills a server with points, through its own batch API."""

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from iotflow.cli.bench.fleet import API, BenchDevice, expect, reporting
from iotflow.cli.bench.scenarios import PLACEHOLDER, batch_body
from iotflow.cli.bench.servers import Server

_RECORDS = 5000  # of two points
_THREADS = 4
_FIRST_DAYS = 300
_DAY_MS = 86_400_000


class Filler:
    """Gives devices points that are older than anything that is read or submitted meanwhile."""

    def __init__(self, server: Server, devices: Sequence[BenchDevice]) -> None:
        self._server = server
        self._devices = devices
        self._next_ms = int(time.time() * 1000) - _FIRST_DAYS * _DAY_MS

    def add(self, points: int) -> int:
        """At least so many points, spread over all devices, one record a second; how many.

        Raises:
            BenchError: the server refused them, or broke off.
        """
        records = math.ceil(points / 2 / len(self._devices))
        with reporting(self._server), httpx.Client(base_url=self._server.base_url) as api:
            for begin in range(0, records, _RECORDS):
                self._chunk(api, min(_RECORDS, records - begin))
        return 2 * records * len(self._devices)

    def _chunk(self, api: httpx.Client, records: int) -> None:
        template = batch_body(0, records).replace(PLACEHOLDER, b"%d")
        body = template % tuple(range(self._next_ms, self._next_ms + records * 1000, 1000))
        self._next_ms += records * 1000

        def post(device: BenchDevice) -> None:
            headers = {"X-API-Key": device.key, "Content-Type": "application/json"}
            path = f"{API}/telemetry/batch"
            expect(api.post(path, content=body, headers=headers, timeout=120), 201)

        with ThreadPoolExecutor(_THREADS) as threads:
            for _ in threads.map(post, self._devices):
                pass
