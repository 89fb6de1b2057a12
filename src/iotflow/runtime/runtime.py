"""Opens the stores, builds the services, runs the workers, and closes all of it in reverse."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from iotflow.accounts.authentication import BearerAuthenticator
from iotflow.accounts.passwords import Passwords
from iotflow.accounts.personal_tokens import PersonalTokens
from iotflow.accounts.service import Accounts
from iotflow.accounts.tokens import AccessTokens
from iotflow.accounts.users import Users
from iotflow.devices.authentication import KeyAuthenticator
from iotflow.devices.configs import DeviceConfigs
from iotflow.devices.service import Devices
from iotflow.domain.clock import DeviceClock, WriteClock
from iotflow.events.service import Events
from iotflow.groups.service import Groups
from iotflow.health.service import Health
from iotflow.health.watch import StoreWatch
from iotflow.http.pagination import Cursors
from iotflow.jobs.service import Jobs
from iotflow.jobs.worker import JobWorker
from iotflow.limits.limiter import RateLimiter
from iotflow.observability.cache_metrics import cache_metrics
from iotflow.observability.metrics import Metrics
from iotflow.observability.siblings import Siblings
from iotflow.pipeline.cache_epoch import CacheEpoch
from iotflow.pipeline.lane import EMBEDDED, SHARED, LaneLease
from iotflow.pipeline.pipeline import Pipeline
from iotflow.pipeline.supervisor import Supervisor
from iotflow.runtime.stores import Stores, create_stores, is_embedded
from iotflow.settings import Settings
from iotflow.stores.telemetry.protocol import TelemetryStore
from iotflow.telemetry.aggregates import Aggregates
from iotflow.telemetry.deletion import Deletion
from iotflow.telemetry.ingest import Ingest
from iotflow.telemetry.latest import LatestValues
from iotflow.telemetry.names import MeasurementNames
from iotflow.telemetry.ranges import RangeCursors

# A store that does not come in this time is waited for in the background.
_FIRST_ATTEMPT_S = 5.0


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """One of several processes that serve the same port; they share `directory`."""

    directory: Path
    name: str


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that a route may use."""

    settings: Settings
    metrics: Metrics
    supervisor: Supervisor
    telemetry: TelemetryStore
    limiter: RateLimiter
    keys: KeyAuthenticator
    bearers: BearerAuthenticator
    accounts: Accounts
    tokens: PersonalTokens
    users: Users
    devices: Devices
    configs: DeviceConfigs
    events: Events
    groups: Groups
    jobs: Jobs
    job_worker: JobWorker
    ingest: Ingest
    latest: LatestValues
    aggregates: Aggregates
    deletion: Deletion
    pipeline: Pipeline
    health: Health
    cursors: Cursors
    range_cursors: RangeCursors
    siblings: Siblings | None
    started_s: float

    def now_ms(self) -> int:
        return int(time.time() * 1000)

    def uptime_s(self) -> int:
        return int(time.monotonic() - self.started_s)


@asynccontextmanager
async def open_runtime(
    settings: Settings, metrics: Metrics, worker: WorkerProcess | None = None
) -> AsyncGenerator[Runtime]:
    """A running service without HTTP. At the end workers drain, then stores close in reverse.

    `worker` says which of several processes this is.

    Raises:
        ConfigurationError: a setting that cannot work. A store that is down raises nothing.
    """
    async with AsyncExitStack() as stack:
        stores = create_stores(settings)
        for store in (stores.registry, stores.events, stores.cache, stores.telemetry):
            stack.push_async_callback(store.close)
        passwords = Passwords()
        stack.callback(passwords.close)
        siblings = Siblings(worker.directory, worker.name, metrics.families) if worker else None
        runtime = _build(settings, metrics, stores, passwords, siblings)
        runtime.supervisor.start()
        stack.push_async_callback(runtime.supervisor.stop, settings.pipeline.drain_s)
        await runtime.health.wait_for_first_attempts(_FIRST_ATTEMPT_S)
        yield runtime
        runtime.health.draining = True


def _build(
    settings: Settings,
    metrics: Metrics,
    stores: Stores,
    passwords: Passwords,
    siblings: Siblings | None,
) -> Runtime:
    now = time.time
    secret = settings.signing_secret()
    alone = is_embedded(settings.store_url("registry"))
    lane = LaneLease(stores.registry, EMBEDDED if alone else SHARED, now=now)
    pipeline = Pipeline(
        stores.events,
        stores.registry.note_seen,
        metrics,
        event_capacity=settings.pipeline.event_queue,
    )
    limiter = RateLimiter(stores.cache, settings.rate_limits, now)
    keys = KeyAuthenticator(stores.registry, stores.cache, stores.epoch, metrics, now)
    names = MeasurementNames(stores.telemetry, settings.ingest.max_measurements)
    write_clock = WriteClock(lane.lane, now)
    cursors = Cursors(secret)
    supervisor, watches = Supervisor(), _watches(stores)
    devices = Devices(
        stores.registry,
        stores.cache,
        keys,
        online_s=settings.cache_ttl.online_s,
        limit=settings.quotas.devices,
        log_event=pipeline.log_event,
        now=now,
    )
    job_worker = JobWorker(
        stores.registry,
        stores.telemetry,
        stores.cache,
        stores.events,
        keys,
        write_clock,
        settle_s=settings.jobs.settle_s,
        now=now,
    )
    access_tokens = AccessTokens(settings.token_secrets(), settings.tokens.access_s)
    bearers = BearerAuthenticator(stores.registry, access_tokens, now)
    runtime = Runtime(
        settings=settings,
        metrics=metrics,
        supervisor=supervisor,
        telemetry=stores.telemetry,
        limiter=limiter,
        keys=keys,
        accounts=Accounts(
            stores.registry,
            passwords,
            access_tokens,
            bearers,
            limiter,
            registration=settings.accounts.registration,
            refresh_lifetime_s=settings.tokens.refresh_s,
            log_event=pipeline.log_event,
            now=now,
        ),
        bearers=bearers,
        tokens=PersonalTokens(
            stores.registry,
            bearers,
            limit=settings.quotas.tokens,
            log_event=pipeline.log_event,
            now=now,
        ),
        users=Users(stores.registry, bearers, keys, log_event=pipeline.log_event, now=now),
        devices=devices,
        configs=DeviceConfigs(stores.registry, devices, log_event=pipeline.log_event, now=now),
        events=Events(stores.events, devices, metrics),
        groups=Groups(stores.registry, now, limit=settings.quotas.groups),
        jobs=Jobs(
            stores.registry,
            keys,
            wake=job_worker.wake,
            gone=devices.forget_owners,
            log_event=pipeline.log_event,
            now=now,
        ),
        job_worker=job_worker,
        ingest=Ingest(
            stores.telemetry,
            stores.cache,
            limiter,
            names,
            metrics,
            settings=settings.ingest,
            write_clock=write_clock,
            device_clock=DeviceClock(lane.lane, now),
            submitted=pipeline.submitted,
            now=now,
        ),
        latest=LatestValues(
            stores.telemetry, stores.cache, metrics, lambda: watches["telemetry"].available
        ),
        aggregates=Aggregates(
            stores.telemetry, settings.query.row_budget, settings.query.chart_row_budget
        ),
        deletion=Deletion(stores.telemetry, stores.cache, names, write_clock),
        pipeline=pipeline,
        health=Health(list(watches.values()), supervisor, lane),
        cursors=cursors,
        range_cursors=RangeCursors(cursors),
        siblings=siblings,
        started_s=time.monotonic(),
    )
    _add_workers(runtime, stores, lane)
    _add_metrics(runtime, stores)
    return runtime


def _watches(stores: Stores) -> dict[str, StoreWatch]:
    return {
        "registry": StoreWatch("registry", stores.registry),
        "telemetry": StoreWatch("telemetry", stores.telemetry),
        "cache": StoreWatch("cache", stores.cache),
        "events": StoreWatch("events", stores.events),
    }


def _add_workers(runtime: Runtime, stores: Stores, lane: LaneLease) -> None:
    supervisor = runtime.supervisor
    for watch in runtime.health.watches:
        supervisor.add(f"watch_{watch.role}", watch.run)
    registry = runtime.health.watch("registry")
    supervisor.add("lane", lambda stop: _after_opening(registry, lane.keep, stop))
    cache = runtime.health.watch("cache")
    supervisor.add("revocations", lambda stop: _after_opening(cache, runtime.keys.listen, stop))
    supervisor.add("jobs", runtime.job_worker.run)
    if isinstance(stores.epoch, CacheEpoch):
        stores.epoch.listeners.append(runtime.keys.forget_all)
        supervisor.add("cache_epoch", stores.epoch.follow)
    for name, work in stores.cache.workers().items():
        supervisor.add(name, work)
    if runtime.siblings is not None:
        supervisor.add("metrics_socket", runtime.siblings.serve)
    runtime.pipeline.start(supervisor)


async def _after_opening(
    watch: StoreWatch, work: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event
) -> None:
    """Begin work that needs a store once that is open: sooner it would only fail."""
    opening = asyncio.ensure_future(watch.opened.wait())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        opening.cancel()
        stopping.cancel()
    if watch.opened.is_set():
        await work(stop)


def _add_metrics(runtime: Runtime, stores: Stores) -> None:
    runtime.metrics.add_source(runtime.pipeline.metrics)
    runtime.metrics.add_source(lambda: cache_metrics(stores.cache.counters, runtime.keys))
    runtime.metrics.add_source(runtime.health.metrics)
    runtime.metrics.add_source(runtime.limiter.metrics)
