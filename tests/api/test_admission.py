"""The admission limit: what is too much is refused early, and probes are answered all the same."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager

from iotflow.app import create_app
from iotflow.http.admission import ARRIVED_S, PROBES, Admission, Slot
from iotflow.http.hot_routes import HotRoutes
from iotflow.http.load import Gate, Lateness, Load, Pace
from iotflow.http.security import SecurityHeaders
from iotflow.observability.metrics import Metrics
from iotflow.settings import RateLimitSettings, ServerSettings, Settings
from tests.api.conftest import DeviceUnderTest, create_account, create_device

LIMIT = 8


class Held:
    """A call of a store that waits until it is let go."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.begun = 0
        self.full = asyncio.Event()
        self.let_go = asyncio.Event()

    async def __call__(self, argument: Any) -> Any:
        self.begun += 1
        if self.begun == LIMIT:
            self.full.set()
        await self.let_go.wait()
        return await self._call(argument)


class Service:
    """A service that lets in few at once, a device of its, and its slow telemetry store."""

    def __init__(self, client: httpx.AsyncClient, runtime: Any, device: DeviceUnderTest) -> None:
        self.client = client
        self.device = device
        self.held = Held(runtime.telemetry.write)
        self.reads = Held(runtime.telemetry.history)
        runtime.telemetry.write = self.held
        runtime.telemetry.history = self.reads

    async def submit(self) -> httpx.Response:
        body = {"data": {"a": 1}}
        return await self.client.post("/api/v1/telemetry", json=body, headers=self.device.headers)

    async def fill(self) -> list[asyncio.Task[httpx.Response]]:
        tasks = [asyncio.create_task(self.submit()) for _ in range(LIMIT)]
        await asyncio.wait_for(self.held.full.wait(), 10)
        return tasks

    async def fill_with_reads(self) -> list[asyncio.Task[httpx.Response]]:
        read = f"/api/v1/telemetry/{self.device.id}"
        tasks = [
            asyncio.create_task(self.client.get(read, headers=self.device.headers))
            for _ in range(LIMIT)
        ]
        await asyncio.wait_for(self.reads.full.wait(), 10)
        return tasks


@pytest.fixture
async def service(data_dir: Path) -> AsyncIterator[Service]:
    settings = Settings.load(
        data_dir=data_dir,
        rate_limits=RateLimitSettings(enabled=False),
        server=ServerSettings(max_in_flight=LIMIT),
    )
    found: list[Any] = []
    async with LifespanManager(create_app(settings, found.append), startup_timeout=30) as manager:
        transport = httpx.ASGITransport(manager.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            device = await create_device(client, await create_account(client))
            service = Service(client, found[0], device)
            yield service
            service.held.let_go.set()
            service.reads.let_go.set()


async def test_the_next_one_is_refused_and_those_let_in_are_answered(service: Service) -> None:
    let_in = await service.fill()
    refused = await asyncio.wait_for(service.submit(), 10)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["x-content-type-options"] == "nosniff"
    problem = refused.json()
    assert (problem["code"], problem["status"]) == ("overloaded", 503)
    assert problem["request_id"] == refused.headers["x-request-id"]
    assert service.held.begun == LIMIT, "nothing was begun for it"
    service.held.let_go.set()
    assert [answer.status_code for answer in await asyncio.gather(*let_in)] == [201] * LIMIT
    assert (await service.submit()).status_code == 201


async def test_the_frameworks_routes_are_under_the_same_limit(service: Service) -> None:
    let_in = await service.fill()
    listed = await service.client.get("/api/v1/devices", headers=service.device.owner.headers)
    assert (listed.status_code, listed.json()["code"]) == (503, "overloaded")
    service.held.let_go.set()
    await asyncio.gather(*let_in)
    listed = await service.client.get("/api/v1/devices", headers=service.device.owner.headers)
    assert listed.status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/devices", "/api/v1/telemetry/7/latest", "/nowhere"])
async def test_who_waits_for_the_registry_leaves_places_to_submissions(path: str) -> None:
    admission = admission_of(100, Clock())

    def let_in(path: str) -> int:
        entered = [
            admission.enter({"type": "http", "path": path}, nothing_to_read) for _ in range(200)
        ]
        return sum(slot is not None for slot in entered)

    assert let_in(path) == 100
    assert let_in("/api/v1/telemetry") == Pace.LEAST
    assert let_in("/api/v1/telemetry/batch") == 0
    assert admission.shed["in_flight"] == 100 + 200 - Pace.LEAST + 200


def test_submissions_alone_may_take_all_places() -> None:
    admission = admission_of(100, Clock())
    scope = {"type": "http", "path": "/api/v1/telemetry"}
    entered = [admission.enter(scope, nothing_to_read) for _ in range(101)]
    assert [slot is not None for slot in entered] == [True] * 100 + [False]


@pytest.mark.parametrize("path", sorted(PROBES))
async def test_probes_are_answered_meanwhile(service: Service, path: str) -> None:
    let_in = await service.fill()
    assert (await service.client.get(path)).status_code == 200
    service.held.let_go.set()
    await asyncio.gather(*let_in)


async def test_what_was_refused_is_counted(service: Service) -> None:
    let_in = await service.fill()
    for _ in range(3):
        await service.submit()
    text = (await service.client.get("/metrics")).text
    assert 'iotflow_http_shed_total{reason="in_flight"} 3.0' in text
    assert f'iotflow_admission_in_flight{{kind="ingest"}} {float(LIMIT)}' in text
    assert f"iotflow_admission_limit {float(LIMIT)}" in text
    service.held.let_go.set()
    await asyncio.gather(*let_in)
    text = (await service.client.get("/metrics")).text
    assert 'iotflow_admission_in_flight{kind="ingest"} 0.0' in text


async def test_a_body_that_is_still_coming_takes_nobodys_place() -> None:
    gate, sent = Gate(Load(1)), asyncio.Event()
    parts = iter([(b'{"data": ', True), (b'{"a": 1}}', False)])

    async def receive() -> dict[str, Any]:
        body, more_body = next(parts)
        if not more_body:
            await sent.wait()
        return {"type": "http.request", "body": body, "more_body": more_body}

    slot = Slot(gate, receive)
    await slot.receive()
    assert gate.in_flight == 1
    rest = asyncio.create_task(slot.receive())
    await asyncio.sleep(0)
    assert gate.in_flight == 0, "it waits for its client"
    sent.set()
    await rest
    assert gate.in_flight == 1
    slot.leave()
    slot.leave()
    assert gate.in_flight == 0


async def test_bodies_that_come_together_find_no_more_room_than_there_is(
    service: Service,
) -> None:
    """Each was let in alone, and took no place while it was sent."""
    sent, more = asyncio.Event(), 5
    url, headers = "/api/v1/telemetry", service.device.headers
    known = await service.client.get("/api/v1/devices/credentials", headers=headers)
    assert known.status_code == 200

    async def body(begun: asyncio.Event) -> AsyncIterator[bytes]:
        yield b'{"data": '
        begun.set()
        await sent.wait()
        yield b'{"a": 1}}'

    async def submit(begun: asyncio.Event) -> httpx.Response:
        return await service.client.post(url, content=body(begun), headers=headers)

    begun = [asyncio.Event() for _ in range(LIMIT + more)]
    answers = [asyncio.create_task(submit(each)) for each in begun]
    await asyncio.wait_for(asyncio.gather(*[each.wait() for each in begun]), 10)
    sent.set()
    await asyncio.wait_for(service.held.full.wait(), 10)
    refused = [await answer for answer in answers if await is_done(answer)]
    assert [(each.status_code, each.json()["code"]) for each in refused] == [
        (503, "overloaded")
    ] * more
    assert service.held.begun == LIMIT
    text = (await service.client.get("/metrics")).text
    assert f'iotflow_http_shed_total{{reason="in_flight"}} {float(more)}' in text
    assert f'iotflow_admission_in_flight{{kind="ingest"}} {float(LIMIT)}' in text
    service.held.let_go.set()
    assert sorted(each.status_code for each in await asyncio.gather(*answers)) == (
        [201] * LIMIT + [503] * more
    )


async def is_done(task: asyncio.Task[Any]) -> bool:
    """Whether it ends without being let go."""
    for _ in range(20):
        await asyncio.sleep(0)
    return task.done()


async def test_a_body_for_the_framework_finds_no_room_either(service: Service) -> None:
    begun, sent = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'{"name": '
        begun.set()
        await sent.wait()
        yield b'"late"}'

    headers = service.device.owner.headers | {"Content-Type": "application/json"}
    post = service.client.post("/api/v1/groups", content=body(), headers=headers)
    late = asyncio.create_task(post)
    await asyncio.wait_for(begun.wait(), 10)
    let_in = await service.fill_with_reads()
    sent.set()
    refused = await late
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    text = (await service.client.get("/metrics")).text
    assert 'iotflow_http_shed_total{reason="in_flight"} 1.0' in text
    assert 'status="0"' not in text
    service.reads.let_go.set()
    await asyncio.gather(*let_in)


async def test_a_client_that_leaves_gives_its_place_back_once() -> None:
    gate = Gate(Load(1))

    async def receive() -> dict[str, Any]:
        raise asyncio.CancelledError

    slot = Slot(gate, receive)
    with pytest.raises(asyncio.CancelledError):
        await slot.receive()
    slot.leave()
    assert gate.in_flight == 0


async def test_what_is_read_once_the_answer_has_begun_takes_no_place() -> None:
    """As a stream does that looks for the end of its client."""
    gate, gone = Gate(Load(1)), asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def ignore(_: Any) -> None:
        return

    slot = Slot(gate, receive)
    looking = asyncio.create_task(slot.receive())
    await asyncio.sleep(0)
    await slot.sending(ignore)({"type": "http.response.start", "status": 200, "headers": []})
    gate.enter()  # somebody else
    gone.set()
    await looking
    slot.leave()
    assert gate.in_flight == 1


async def test_an_answer_that_has_begun_takes_nobodys_place() -> None:
    gate = Gate(Load(1))

    async def ignore(*_: Any) -> None:
        return

    slot = Slot(gate, ignore)
    send = slot.sending(ignore)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    assert (gate.in_flight, slot.has_begun) == (0, True)
    slot.leave()
    assert gate.in_flight == 0


async def test_a_stream_of_the_framework_takes_nobodys_place() -> None:
    admission = admission_of(1, Clock())
    seen: list[int] = []

    async def stream(_: Any, __: Any, send: Any) -> None:
        seen.append(admission.others.in_flight)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        seen.append(admission.others.in_flight)

    async def ignore(_: Any) -> None:
        return

    app = HotRoutes(stream, (), Metrics(), SecurityHeaders(hsts_s=0), admission)
    scope = {"type": "http", "method": "GET", "path": "/stream", "headers": []}
    await app(scope, nothing_to_read, ignore)
    assert seen == [1, 0]
    assert admission.others.in_flight == 0


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def nothing_to_read() -> dict[str, Any]:
    raise AssertionError("nothing is read")


def admission_of(limit: int, clock: Clock) -> Admission:
    security = SecurityHeaders(hsts_s=0)
    return Admission(
        security, limit=limit, max_mean_s=0.5, max_queue_s=0.1, max_put_off_s=1.0, clock=clock
    )


def test_only_lateness_that_lasts_refuses() -> None:
    now_s = 100.0
    lateness = Lateness(0.1)
    verdicts: list[bool] = []
    for _ in range(10):  # one request each 0.15 s, which has waited for as long
        assert not lateness.is_late(0, now_s), "this one did not wait"
        now_s += 0.15
        verdicts.append(lateness.is_late(0.15, now_s))
    assert verdicts == [False] * 4 + [True] * 6


def test_a_hiccup_refuses_nobody() -> None:
    lateness = Lateness(0.1)
    for turn in range(10):
        now_s = 100.0 + 3 * turn  # each a hiccup of its own, seconds after the last
        assert not lateness.is_late(1.0, now_s)


def test_lateness_refuses_work_but_no_probe() -> None:
    clock = Clock()
    admission = admission_of(100, clock)

    def enter(path: str) -> Slot | None:
        scope = {"type": "http", "path": path, ARRIVED_S: clock.now_s - 0.2}
        return admission.enter(scope, nothing_to_read)

    entered: list[Slot | None] = []
    for _ in range(10):
        clock.now_s += 0.2
        entered.append(enter("/api/v1/telemetry"))
    assert entered[-1] is None
    assert enter("/health/ready") is not None
    assert admission.shed["queue_delay"] > 0
    assert admission.shed["in_flight"] == 0


class Paced:
    """A load whose limit follows its pace, and a service behind it that does `rate` a second."""

    def __init__(self, limit: int = 1000) -> None:
        self.load = Load(limit)
        self._pace = Pace(self.load, max_mean_s=0.5)
        self._now_s = 100.0

    def spend(self, seconds: float, rate: int, in_flight: int, waited_s: float = 0) -> list[int]:
        """The limits of that time, while so many are in flight."""
        limits: list[int] = []
        for _ in range(int(seconds * 100)):
            self._now_s += 0.01
            self.load.done += rate // 100
            self.load.in_flight = min(in_flight, self.load.limit)
            self._pace.adjust(self._now_s, waited_s)
            limits.append(self.load.limit)
        return limits


def test_overload_lets_in_what_is_done_in_the_target() -> None:
    paced = Paced()
    limits = paced.spend(10, rate=400, in_flight=10_000)
    assert limits[0] == 1000
    assert 190 <= limits[-1] <= 210, "400 a second for half a second"
    assert limits.index(limits[-1]) < 200, "within two seconds"


def test_the_wait_for_a_turn_is_part_of_the_target() -> None:
    limits = Paced().spend(10, rate=400, in_flight=10_000, waited_s=0.25)
    (*_, settled) = [limit for limit in limits if limit >= 95]  # before long turns lower it
    assert settled <= 105, "400 a second for the quarter of a second that is left"
    assert Paced().spend(10, rate=4000, in_flight=10_000, waited_s=0.6)[-1] == Pace.LEAST


def test_where_some_are_refused_the_turns_of_the_loop_become_short() -> None:
    paced = Paced()
    (*_, tight) = paced.spend(2, rate=400, in_flight=10_000, waited_s=0.01)
    assert tight > 150
    limits = paced.spend(2, rate=400, in_flight=10_000, waited_s=0.1)
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] == Pace.LEAST
    assert set(paced.spend(2, rate=400, in_flight=10, waited_s=0.015)) == {Pace.LEAST}
    assert paced.spend(5, rate=400, in_flight=10, waited_s=0.005)[-1] == 1000


def test_long_turns_alone_refuse_nobody() -> None:
    assert set(Paced().spend(5, rate=10_000, in_flight=800, waited_s=0.1)) == {1000}


def test_the_limit_comes_back_once_requests_are_quick() -> None:
    paced = Paced()
    paced.spend(5, rate=400, in_flight=10_000)
    limits = paced.spend(10, rate=400, in_flight=20)
    assert limits == sorted(limits)
    assert limits[-1] == 1000


def test_the_limit_stays_between_the_target_and_half_of_it() -> None:
    paced = Paced()
    (*_, tight) = paced.spend(5, rate=400, in_flight=10_000)
    assert set(paced.spend(5, rate=400, in_flight=150)) == {tight}


@pytest.mark.parametrize("rate", [0, 50])
def test_few_are_always_let_in(rate: int) -> None:
    assert Paced().spend(10, rate, in_flight=10_000)[-1] == Pace.LEAST
    assert Paced(limit=8).spend(10, rate, in_flight=10_000)[-1] == 8


def test_a_stall_takes_no_room() -> None:
    paced = Paced()
    for _ in range(5):
        assert set(paced.spend(0.5, rate=0, in_flight=800)) == {1000}
        assert set(paced.spend(1, rate=4000, in_flight=800)) == {1000}


def test_those_who_come_to_an_idle_service_are_let_in() -> None:
    paced = Paced()
    paced.spend(60, rate=0, in_flight=0)
    assert set(paced.spend(2, rate=3000, in_flight=1000)) == {1000}


async def test_what_has_left_counts_for_the_pace() -> None:
    clock = Clock()
    admission = admission_of(200, clock)
    scope = {"type": "http", "path": "/api/v1/telemetry"}
    limits: list[int] = []
    for leave in (True, False):
        for _ in range(200):
            clock.now_s += 0.01
            slot = admission.enter(scope, nothing_to_read)
            if slot is not None and leave:
                slot.leave()
        limits.append(admission.work.limit)
    assert limits == [200, Pace.LEAST]


def test_probes_have_a_bound_of_their_own() -> None:
    admission = admission_of(0, Clock())
    scope = {"type": "http", "path": "/metrics"}
    entered = [
        admission.enter(scope, nothing_to_read) for _ in range(admission.probes.load.limit + 1)
    ]
    assert entered[-1] is None
    assert None not in entered[:-1]


async def test_a_request_that_the_stop_cuts_off_is_told_to_come_again(service: Service) -> None:
    (*_, last) = await service.fill()
    # As uvicorn does with the tasks of requests once their time is over.
    last.cancel()
    cut_off = await last
    assert (cut_off.status_code, cut_off.json()["code"]) == (503, "overloaded")
    assert "Send it again" in cut_off.json()["detail"]


class Turns:
    """An application whose requests take a while each; it notes in which turn each ran."""

    def __init__(self, takes_s: float, limit: int = 100) -> None:
        self.clock = Clock()
        self.ran: list[tuple[str, int]] = []
        self.admission = admission_of(limit, self.clock)
        self._takes_s = takes_s
        self._turn = 0
        security = SecurityHeaders(hsts_s=0)
        self._app = HotRoutes(self._run, (), Metrics(), security, self.admission)

    async def _run(self, scope: Any, _: Any, __: Any) -> None:
        self.ran.append((scope["path"], self._turn))
        self.clock.now_s += self._takes_s

    async def of(self, *paths: str) -> list[tuple[str, int]]:
        """Have requests come in one turn of the loop; those that are refused have the turn -1."""

        async def refused(path: str, message: Any) -> None:
            if message.get("status") == 503:
                self.ran.append((path, -1))

        scope = {"type": "http", "method": "GET", "headers": [], ARRIVED_S: self.clock()}
        tasks = [
            asyncio.create_task(
                self._app(
                    {**scope, "path": path},
                    nothing_to_read,
                    partial(refused, path),
                )
            )
            for path in paths
        ]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            self._turn += 1
        await asyncio.gather(*tasks)
        return self.ran


async def test_a_turn_of_the_loop_begins_so_many_requests_and_no_more() -> None:
    turns = Turns(takes_s=0.003)
    ran = await turns.of("/a", "/b", "/c", "/d", "/e")
    assert ran == [("/a", 0), ("/b", 0), ("/c", 1), ("/d", 1), ("/e", 2)]
    assert turns.admission.put_off == 3


async def test_submissions_and_probes_wait_for_no_turn() -> None:
    turns = Turns(takes_s=0.2)
    submit, ready, batch = "/api/v1/telemetry", "/health/ready", "/api/v1/telemetry/batch"
    ran = await turns.of("/a", "/b", submit, batch, ready)
    assert ran == [("/a", 0), (submit, 0), (ready, 0), ("/b", 1), (batch, 2)]


async def test_who_waited_begins_before_those_who_came_later() -> None:
    turns = Turns(takes_s=0.2)
    first = asyncio.create_task(turns.of("/a", "/b", "/c"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await turns.of("/late")
    await first
    assert [path for path, _ in turns.ran] == ["/a", "/b", "/c", "/late"]


async def test_requests_that_are_done_at_once_are_never_put_off() -> None:
    turns = Turns(takes_s=0.0001)
    ran = await turns.of(*map(str, range(40)))
    assert [turn for _, turn in ran] == [0] * 40
    assert turns.admission.put_off == 0


async def test_who_was_put_off_for_too_long_is_refused() -> None:
    turns = Turns(takes_s=0.6)
    ran = await turns.of("/a", "/b", "/c", "/d")
    assert ran == [("/a", 0), ("/b", 1), ("/c", -1), ("/d", -1)]
    assert turns.admission.shed == {"put_off": 2}


async def test_no_more_wait_than_may_be_in_flight() -> None:
    turns = Turns(takes_s=0.01, limit=2)
    ran = await turns.of("/a", "/b", "/c", "/d")
    assert ran == [("/a", 0), ("/d", -1), ("/b", 1), ("/c", 2)]
    assert turns.admission.shed["put_off"] == 1


async def test_having_been_put_off_is_not_lateness() -> None:
    """Or reads that wait for each other would have submissions refused."""
    turns = Turns(takes_s=0.15)
    for _ in range(6):
        await turns.of("/a", "/b", "/c", "/d")
    assert not any(turns.admission.shed.values())
    assert turns.admission.work.limit == 100
