"""The simulated fleet, and the accounts of what becomes of its submissions."""

import asyncio
import contextlib
import json
import stat
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iotflow.cli.client import ServerUnreachableError
from iotflow.cli.fleet import Faults, Fleet, Kind, Submission
from iotflow.cli.simulating.chance import Chance
from iotflow.cli.simulating.latencies import Latencies
from iotflow.cli.simulating.ledger import Ledger
from iotflow.cli.simulating.load import Load, Target
from iotflow.cli.simulating.state import Account, KnownDevice, SimulatorState
from iotflow.errors import ConfigurationError
from iotflow.telemetry.decoding import decode_submission
from tests.process.conftest import free_port

START_MS = 1_767_225_600_000
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"
FAULTS = Faults(duplicates=0.1, late=0.1, dropouts=0.1)


def submissions(
    slots: int, devices: int = 8, seed: int = 1, faults: Faults = FAULTS
) -> list[Submission]:
    fleet = Fleet(devices, seed, faults)
    return [fleet.submission(slot, START_MS + slot * 1000) for slot in range(slots)]


class TestFleet:
    def test_the_same_seed_makes_the_same_submissions_another_makes_others(self) -> None:
        assert submissions(500) == submissions(500)
        assert submissions(500) != submissions(500, seed=2)

    def test_the_service_accepts_every_submission_in_full(self) -> None:
        for made in submissions(2000):
            if made.kind is not Kind.ABSENT:
                reading = decode_submission(made.body)
                assert reading.rejected == []
                assert len(reading.points) == made.points > 0
                assert reading.timestamp_ms is not None

    def test_faults_have_their_shares(self) -> None:
        faults = Faults(duplicates=0.05, late=0.1, dropouts=0.2)
        kinds = Counter(made.kind for made in submissions(40_000, faults=faults))
        sent = 40_000 - kinds[Kind.ABSENT]
        assert kinds[Kind.ABSENT] / 40_000 == pytest.approx(0.2, rel=0.15)
        assert kinds[Kind.DUPLICATE] / sent == pytest.approx(0.05, rel=0.1)
        assert kinds[Kind.LATE] / (sent - kinds[Kind.DUPLICATE]) == pytest.approx(0.1, rel=0.1)

    def test_without_faults_there_are_none(self) -> None:
        assert {made.kind for made in submissions(1000, faults=Faults())} == {Kind.FRESH}

    def test_drop_outs_last_some_turns(self) -> None:
        made = submissions(20_000, devices=1, faults=Faults(dropouts=0.2))
        runs = "".join("x" if each.kind is Kind.ABSENT else " " for each in made).split()
        assert mean(len(run) for run in runs) == pytest.approx(5, rel=0.15)

    def test_all_devices_can_be_away(self) -> None:
        assert {made.kind for made in submissions(50, faults=Faults(dropouts=1))} == {Kind.ABSENT}

    def test_duplicates_repeat_the_device_s_last_submission_and_late_data_is_late(self) -> None:
        last: dict[int, bytes] = {}
        fresh_ms: dict[int, int] = {}
        for slot, made in enumerate(submissions(3000)):
            if made.kind is Kind.ABSENT:
                continue
            timestamp_ms = json.loads(made.body)["timestamp"]
            if made.kind is Kind.DUPLICATE:
                assert made.body == last[made.device]
            elif made.kind is Kind.LATE:
                assert timestamp_ms < START_MS + slot * 1000
            else:
                assert timestamp_ms > fresh_ms.get(made.device, 0)
                fresh_ms[made.device] = timestamp_ms
            last[made.device] = made.body

    def test_days_have_a_warm_afternoon(self) -> None:
        fleet = Fleet(1, 1, Faults())
        by_hour: dict[int, list[float]] = {}
        for slot in range(24 * 60):
            at_ms = START_MS + slot * 1800_000
            data = json.loads(fleet.submission(slot, at_ms).body)["data"]
            by_hour.setdefault(at_ms // 3_600_000 % 24, []).append(data["temperature"]["value"])
        warmth = {hour: mean(values) for hour, values in by_hour.items()}
        assert max(warmth, key=warmth.__getitem__) in (13, 14, 15)
        assert min(warmth, key=warmth.__getitem__) in (1, 2, 3)


class TestChance:
    def test_is_splitmix64(self) -> None:
        chance = Chance(1234567)
        assert [chance._next() for _ in range(3)] == [
            6457827717110365317, 3203168211198807973, 9817491932198370423,
        ]  # fmt: skip

    def test_distributions(self) -> None:
        chance = Chance(1)
        normal = [chance.normal(2.0) for _ in range(20_000)]
        assert mean(normal) == pytest.approx(0, abs=0.06)
        assert mean(each * each for each in normal) == pytest.approx(4, rel=0.05)
        assert mean(chance.geometric(5) for _ in range(20_000)) == pytest.approx(5, rel=0.05)


@settings(deadline=None)
@given(st.lists(st.floats(1e-5, 100), min_size=1, max_size=300), st.floats(0, 1))
def test_percentiles_are_true_to_one_per_cent(seconds: list[float], share: float) -> None:
    latencies = Latencies()
    for each in seconds:
        latencies.add(each)
    rank = max(1, -int(-round(share * len(seconds), 9) // 1))
    exact = sorted(seconds)[rank - 1]
    assert exact * 0.999 <= latencies.percentile_s(share) <= exact * 1.0101
    assert Latencies().percentile_s(0.5) == 0.0


Behaviour = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(behaviour: Behaviour) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that lets `behaviour` answer; yields its port and the bodies that came."""
    bodies: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                bodies.append(await reader.readexactly(length))
                await behaviour(len(bodies), writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], bodies
    finally:
        server.close()
        await asyncio.sleep(0.02)


async def created(number: int, writer: asyncio.StreamWriter) -> None:
    writer.write(CREATED)


def load_for(
    port: int, *, rate: float = 200, duration_s: float = 0.5, connections: int = 4
) -> Load:
    fleet = Fleet(4, 1, FAULTS)
    target = Target.of(f"http://127.0.0.1:{port}", ["k"] * 4)
    return Load(target, fleet.submission, rate=rate, connections=connections, duration_s=duration_s)


def settle(ledger: Ledger) -> None:
    """Every slot is in exactly one column."""
    absent = ledger.kinds[Kind.ABSENT]
    columns = ledger.acknowledged, ledger.rejected, ledger.broken, ledger.unsent, ledger.waiting
    assert ledger.due == ledger.kinds.total() == absent + sum(columns)
    assert all(column >= 0 for column in columns)


class TestLoad:
    async def test_every_slot_is_sent_and_counted(self) -> None:
        async with serving(created) as (port, bodies):
            load = load_for(port)
            await load.run(asyncio.Event())
        assert load.ledger.due == 100
        assert load.ledger.complete
        assert len(bodies) == load.ledger.acknowledged == 100 - load.ledger.kinds[Kind.ABSENT]
        assert load.ledger.points == sum(len(json.loads(body)["data"]) for body in bodies)
        assert load.seconds == pytest.approx(0.5)
        settle(load.ledger)

    async def test_rejections_and_broken_connections_are_told_apart(self) -> None:
        async def odd(number: int, writer: asyncio.StreamWriter) -> None:
            if number % 10 == 0:
                writer.transport.abort()
            elif number % 5 == 0:
                writer.write(CREATED.replace(b"201 Created", b"429 Slower"))
            else:
                writer.write(CREATED)

        async with serving(odd) as (port, bodies):
            load = load_for(port)
            await load.run(asyncio.Event())
        assert not load.ledger.complete
        assert load.ledger.broken == len(bodies) // 10
        assert (
            load.ledger.rejected
            == load.ledger.statuses[429]
            == len(bodies) // 5 - len(bodies) // 10
        )
        settle(load.ledger)

    async def test_latency_counts_from_the_due_time(self) -> None:
        async def stalls_once(number: int, writer: asyncio.StreamWriter) -> None:
            if number == 10:
                await asyncio.sleep(0.3)
            writer.write(CREATED)

        async with serving(stalls_once) as (port, _):
            load = load_for(port, rate=100, duration_s=1.0, connections=1)
            await load.run(asyncio.Event())
        assert load.ledger.complete
        assert load.ledger.latencies.percentile_s(0.9) > 0.15
        assert load.ledger.latencies.longest_s == pytest.approx(0.3, abs=0.1)

    async def test_a_stop_ends_it_with_true_accounts(self) -> None:
        stop = asyncio.Event()
        async with serving(created) as (port, bodies):
            load = load_for(port, duration_s=0)
            asyncio.get_running_loop().call_later(0.2, stop.set)
            async with asyncio.timeout(3):
                await load.run(stop)
        assert load.ledger.complete
        assert 10 < len(bodies) < 60
        settle(load.ledger)

    async def test_what_waits_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def silent(number: int, writer: asyncio.StreamWriter) -> None:
            return

        monkeypatch.setattr("iotflow.cli.simulating.load.MOST_WAITING", 20)
        monkeypatch.setattr("iotflow.cli.simulating.load._DRAIN_S", 0.1)
        async with serving(silent) as (port, _):
            load = load_for(port)
            await load.run(asyncio.Event())
        assert load.ledger.waiting == 24
        assert load.ledger.unsent == 76 - load.ledger.kinds[Kind.ABSENT]
        settle(load.ledger)

    async def test_nobody_there_is_one_clear_error(self) -> None:
        with pytest.raises(ServerUnreachableError, match="cannot be reached"):
            await load_for(free_port()).run(asyncio.Event())

    def test_targets(self) -> None:
        target = Target.of("https://iot.example/base/", ["k"])
        assert (target.port, target.tls, target.path) == (443, True, "/base/api/v1/telemetry")
        request = target.request(Submission(0, Kind.FRESH, b"{}", 1))
        assert request.startswith(b"POST /base/api/v1/telemetry HTTP/1.1\r\nHost: iot.example\r\n")
        assert b"X-API-Key: k\r\n" in request


class TestState:
    def test_keys_come_back_and_nobody_else_reads_them(self, tmp_path: Path) -> None:
        path = tmp_path / "state.json"
        state = SimulatorState(path)
        device = KnownDevice(7, "sim-0001", "iotd_x")
        state.put("http://a", "u", Account("secret", {"sim-0001": device}))
        state.save()
        state.save()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        account = SimulatorState(path).account("http://a", "u")
        assert account is not None
        assert (account.password, account.devices["sim-0001"]) == ("secret", device)
        assert SimulatorState(path).account("http://b", "u") is None
        assert [each.name for each in tmp_path.iterdir()] == ["state.json"]

    def test_what_is_no_state_is_not_overwritten(self, tmp_path: Path) -> None:
        path = tmp_path / "state.json"
        path.write_text("{")
        with pytest.raises(ConfigurationError, match="--state"):
            SimulatorState(path)
        assert path.read_text() == "{"
