"""What the Cassandra driver says is passed on, but not as often as it is said."""

from types import SimpleNamespace

from structlog.testing import capture_logs

from iotflow.stores.telemetry.cassandra.cluster import DriverLog


def test_each_thing_is_told_once_a_minute() -> None:
    now_s = 0.0
    log = DriverLog(lambda: now_s)

    def said(*texts: str) -> list[str]:
        with capture_logs() as found:
            for text in texts:
                log.take(SimpleNamespace(message=text))
        return [each["message"] for each in found]

    assert said("a is away", "a is away", "b is away") == ["a is away", "b is away"]
    now_s = 59.0
    assert said("a is away") == []
    now_s = 60.0
    assert said("a is away") == ["a is away"]


def test_it_remembers_no_more_than_it_has_room_for() -> None:
    log = DriverLog(lambda: 0.0)
    with capture_logs() as found:
        for number in range(1_000):
            log.take(SimpleNamespace(message=f"host {number}"))
    assert len(found) == 1_000
    assert len(log._told_s) <= 256
