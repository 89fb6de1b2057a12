"""Slow store calls: counted all, logged few, and never with a value."""

import pytest
from structlog.testing import capture_logs

from iotflow.observability.metrics import Metrics, exposition
from iotflow.observability.slow import SlowCalls
from iotflow.observability.timing import timed


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_only_what_reaches_the_threshold_is_slow() -> None:
    metrics = Metrics(slow_s=0.5)
    latencies = metrics.store("telemetry", "write")
    with capture_logs() as lines:
        latencies.observe(0.499)
        latencies.observe(0.5)
    assert [line["event"] for line in lines] == ["slow_store_call"]
    assert lines[0] | {"log_level": "warning"} == {
        "event": "slow_store_call",
        "log_level": "warning",
        "store": "telemetry",
        "operation": "write",
        "ms": 500.0,
        "threshold_ms": 500.0,
    }
    text = exposition(metrics.families()).decode()
    assert 'iotflow_store_slow_total{operation="write",store="telemetry"} 1.0' in text
    assert 'iotflow_store_seconds_count{operation="write",store="telemetry"} 2.0' in text


def test_a_flood_is_counted_and_told_with_the_next_line() -> None:
    clock = Clock()
    slow = SlowCalls(0.1, clock)
    with capture_logs() as lines:
        for _ in range(25):
            slow.note("registry", "user", 0.2)
        assert len(lines) == 10
        clock.now_s += 10
        slow.note("registry", "user", 0.2)
    assert len(lines) == 11
    assert lines[-1]["left_out"] == 15
    assert "left_out" not in lines[0]
    (family,) = slow.metrics()
    assert [sample.value for sample in family.samples] == [26.0]


class Store:
    closed = False

    async def find(self, name: str) -> str:
        return name

    async def fail(self) -> None:
        raise ValueError("as told")

    async def ping(self) -> None:
        return

    async def write(self, point: int) -> int:
        return point

    def size(self) -> int:
        return 3

    @property
    def backend(self) -> str:
        return "own"


async def test_a_stores_calls_are_timed_by_name() -> None:
    metrics = Metrics()
    store = Store()
    seen = timed(store, "telemetry", metrics)
    assert await seen.find("x") == "x"
    assert await seen.write(1) == 1
    await seen.ping()
    with pytest.raises(ValueError, match="as told"):
        await seen.fail()
    assert (seen.size(), seen.backend, seen.closed) == (3, "own", False)
    text = exposition(metrics.families()).decode()
    assert 'iotflow_store_seconds_count{operation="find",store="telemetry"} 1.0' in text
    assert 'iotflow_store_seconds_count{operation="fail",store="telemetry"} 1.0' in text
    for untimed in ("ping", "write", "size"):
        assert f'operation="{untimed}"' not in text
    assert seen.write == store.write, "what the hot path calls has no detour"
