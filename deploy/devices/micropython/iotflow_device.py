"""A device of IoTFlow for MicroPython: measures now, sends when it can, loses nothing it can hold.

What is measured goes into a bounded outbox with the moment it was measured at, and leaves it when
the service has it. The same moment is sent again after every failure: the service knows a point by
device, timestamp and name, so an answer that got lost doubles nothing.
"""

import random
import time

import requests

# Boards count from 2000, unix ports from 1970.
_EPOCH_MS = 946_684_800_000 if time.gmtime(0)[0] == 2000 else 0
_CLOCK_SET_MS = 1_704_067_200_000  # 2024: a clock that says less was never set


def now_ms():
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000 + _EPOCH_MS


def clock_is_set():
    return now_ms() > _CLOCK_SET_MS


class Outbox:
    """Records waiting to be sent, oldest first. Full: the oldest goes, and is counted."""

    def __init__(self, capacity):
        self._records = []
        self._capacity = capacity
        self.dropped = 0

    def __len__(self):
        return len(self._records)

    def put(self, record):
        if len(self._records) >= self._capacity:
            self._records.pop(0)
            self.dropped += 1
        self._records.append(record)

    def oldest(self, count):
        return self._records[:count]

    def done(self, count):
        """So many of the oldest need not be sent again."""
        self._records = self._records[count:]


class Device:
    """Call `measure` when there is something to tell, and `poll` as often as you like.

    `settings`: url, api_key, and optionally outbox_size (500), batch_size (50), timeout_s (10),
    heartbeat_s (60), config_s (60), longest_wait_s (300). `on_config` gets a changed configuration
    and returns what it applied of it.
    """

    def __init__(self, settings, on_config=None, log=print):
        self._api = settings["url"].rstrip("/") + "/api/v1"
        self._key = settings["api_key"]
        self._batch_size = settings.get("batch_size", 50)
        self._timeout_s = settings.get("timeout_s", 10)
        self._longest_wait_ms = int(settings.get("longest_wait_s", 300) * 1000)
        self._heartbeat_ms = int(settings.get("heartbeat_s", 60) * 1000)
        self._config_ms = int(settings.get("config_s", 60) * 1000)
        self.outbox = Outbox(settings.get("outbox_size", 500))
        self._on_config = on_config
        self._log = log
        self._etag = None
        self._last_ms = 0
        self._failures = 0
        start = time.ticks_ms()
        self._next_send = self._next_heartbeat = self._next_config = start
        self.stored = self.rejected = 0

    def measure(self, data):
        """Keep a reading, `{"temperature": 23.5}`, until the service has it; its moment."""
        # Two readings in one millisecond would be one point to the service.
        self._last_ms = max(now_ms(), self._last_ms + 1)
        self.outbox.put({"timestamp": self._last_ms, "data": data})
        return self._last_ms

    def poll(self):
        """Do what is due; at most one request of each kind, each bounded by timeout_s."""
        now = time.ticks_ms()
        if not _due(self._next_send, now):
            return  # the service asked for quiet, or does not answer: that holds for all requests
        if _due(
            self._next_config, now
        ):  # first, or a device that always has more to send never asks
            self._next_config = time.ticks_add(now, self._config_ms)
            self._fetch_config()
        elif len(self.outbox):
            self._send()
        elif _due(self._next_heartbeat, now):
            self._next_heartbeat = time.ticks_add(now, self._heartbeat_ms)
            self._request("POST", "/devices/heartbeat")

    def _send(self):
        records = self.outbox.oldest(self._batch_size)
        status, _, answer = self._request("POST", "/telemetry/batch", {"records": records})
        if status in (201, 207):
            self.stored += answer["accepted"]
            self._refused(answer["rejected"])
            self.outbox.done(len(records))
        elif status in (400, 413, 415, 422):
            # The service will never take these. Waiting behind them would lose what is good.
            self._refused((answer or {}).get("rejected") or [{"message": "status %d" % status}])
            self.outbox.done(len(records))

    def _refused(self, rejected):
        self.rejected += len(rejected)
        for each in rejected:
            self._log("refused:", each.get("measurement"), each.get("message"))

    def _fetch_config(self):
        headers = {"If-None-Match": self._etag} if self._etag else {}
        status, etag, answer = self._request("GET", "/devices/config", headers=headers)
        if status != 200:
            return
        if self._on_config and answer["version"]:
            applied = self._on_config(answer["config"])
            report = {"version": answer["version"], "config": applied}
            if self._request("PUT", "/devices/config", report)[0] != 200:
                return  # without its ETag it is fetched, applied and reported again
        self._etag = etag

    def _request(self, method, path, body=None, headers=None):
        """(status, ETag, the answer's JSON); status 0 if there was none. Failures set the pace."""
        headers = dict(headers or {})
        headers["X-API-Key"] = self._key
        response = None
        try:
            response = requests.request(
                method, self._api + path, json=body, headers=headers, timeout=self._timeout_s
            )
            status = response.status_code
            answer = response.json() if status in (200, 201, 207, 422) else None
            found = {name.lower(): value for name, value in response.headers.items()}
        except (OSError, ValueError, NotImplementedError, IndexError) as error:
            # ValueError and IndexError: an answer that was cut off, or is not HTTP.
            self._log("no answer:", repr(error))
            self._wait(None)
            return 0, None, None
        finally:
            if response is not None:
                response.close()
        if status in (401, 403, 408, 429) or status >= 500:
            self._log("not now:", status)
            self._wait(found.get("retry-after"))
        else:
            self._failures = 0
        return status, found.get("etag"), answer

    def _wait(self, retry_after):
        """What the service asks for; else twice as long as before. Both with jitter on top."""
        backoff_ms = min(1000 << min(self._failures, 16), self._longest_wait_ms)
        self._failures += 1
        asked_ms = int(retry_after) * 1000 if retry_after and retry_after.isdigit() else 0
        jitter_ms = random.getrandbits(16) * backoff_ms // 0x20000
        wait_ms = asked_ms + jitter_ms if asked_ms else backoff_ms // 2 + jitter_ms
        self._next_send = time.ticks_add(time.ticks_ms(), wait_ms)


def _due(moment, now):
    return time.ticks_diff(now, moment) >= 0
