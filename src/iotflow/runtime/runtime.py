"""Opens the stores, builds the services, runs the workers, and closes all of it in reverse."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from iotflow.accounts.authentication import BearerAuthenticator
from iotflow.accounts.passwords import Passwords
from iotflow.accounts.personal_tokens import PersonalTokens
from iotflow.accounts.service import Accounts
from iotflow.accounts.users import Users
from iotflow.devices.authentication import KeyAuthenticator
from iotflow.devices.configs import DeviceConfigs
from iotflow.devices.service import Devices
from iotflow.events.service import Events
from iotflow.groups.service import Groups
from iotflow.health.service import Health
from iotflow.health.watch import StoreWatch
from iotflow.http.pagination import Cursors
from iotflow.jobs.service import Jobs
from iotflow.limits.limiter import RateLimiter
from iotflow.maintenance.lost_events import LostEvents
from iotflow.maintenance.service import Maintenance
from iotflow.observability.cache_metrics import cache_metrics
from iotflow.observability.metrics import Metrics
from iotflow.observability.siblings import Siblings
from iotflow.pipeline.cache_epoch import CacheEpoch
from iotflow.pipeline.lane import LaneLease
from iotflow.pipeline.pipeline import Pipeline
from iotflow.pipeline.store_statistics import StatisticsCollector, StoreStatistics
from iotflow.pipeline.supervisor import Supervisor
from iotflow.runtime.features import (
    Shared,
    Work,
    build_accounts,
    build_devices,
    build_latest,
    build_telemetry,
    build_work,
)
from iotflow.runtime.stores import Stores, create_stores, timed_stores
from iotflow.settings import Settings
from iotflow.stores.telemetry.protocol import TelemetryStore
from iotflow.telemetry.aggregates import Aggregates
from iotflow.telemetry.deletion import Deletion
from iotflow.telemetry.ingest import Ingest
from iotflow.telemetry.latest import LatestValues
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
    maintenance: Maintenance
    lost_events: LostEvents
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
        stores = timed_stores(create_stores(settings), metrics)
        for store in (stores.registry, stores.events, stores.cache, stores.telemetry):
            stack.push_async_callback(store.close)
        passwords = Passwords()
        stack.callback(passwords.close)
        siblings = Siblings(worker.directory, worker.name, metrics.families) if worker else None
        runtime = _build(settings, metrics, stores, passwords, siblings)
        runtime.supervisor.start()
        # After the workers: what the event log could not write at the end is known then.
        stack.push_async_callback(_note_lost_events, runtime)
        stack.push_async_callback(runtime.supervisor.stop, settings.pipeline.drain_s)
        await runtime.health.wait_for_first_attempts(_FIRST_ATTEMPT_S)
        yield runtime
        runtime.health.draining = True


async def _note_lost_events(runtime: Runtime) -> None:
    runtime.pipeline.tell_unwritten()
    await runtime.lost_events.keep_last()


def _build(
    settings: Settings,
    metrics: Metrics,
    stores: Stores,
    passwords: Passwords,
    siblings: Siblings | None,
) -> Runtime:
    shared, supervisor = Shared(settings, metrics, stores), Supervisor()
    latest = build_latest(shared)
    work = build_work(shared, latest)
    accounts = build_accounts(shared, passwords, work.pipeline)
    devices = build_devices(shared, work)
    telemetry = build_telemetry(shared, work.pipeline)
    cursors = Cursors(settings.signing_secret())
    runtime = Runtime(
        settings=settings,
        metrics=metrics,
        supervisor=supervisor,
        telemetry=stores.telemetry,
        limiter=shared.limiter,
        keys=shared.keys,
        accounts=accounts.accounts,
        bearers=accounts.bearers,
        tokens=accounts.tokens,
        users=accounts.users,
        devices=devices.devices,
        configs=devices.configs,
        events=Events(stores.events, devices.devices),
        groups=Groups(stores.registry, shared.now, limit=settings.quotas.groups),
        jobs=devices.jobs,
        maintenance=work.maintenance_jobs,
        lost_events=work.lost_events,
        ingest=telemetry.ingest,
        latest=latest,
        aggregates=telemetry.aggregates,
        deletion=telemetry.deletion,
        pipeline=work.pipeline,
        health=Health(list(shared.watches.values()), supervisor, shared.lane),
        cursors=cursors,
        range_cursors=RangeCursors(cursors),
        siblings=siblings,
        started_s=time.monotonic(),
    )
    _add_workers(runtime, stores, shared.lane, work)
    _add_statistics(runtime, stores)
    _add_metrics(runtime, stores)
    return runtime


def _add_workers(runtime: Runtime, stores: Stores, lane: LaneLease, work: Work) -> None:
    supervisor = runtime.supervisor
    for watch in runtime.health.watches:
        supervisor.add(f"watch_{watch.role}", watch.run)
    registry = runtime.health.watch("registry")
    supervisor.add("lane", lambda stop: _after_opening(registry, lane.keep, stop))
    cache = runtime.health.watch("cache")
    supervisor.add("revocations", lambda stop: _after_opening(cache, runtime.keys.listen, stop))
    supervisor.add("jobs", work.deletions.run)
    supervisor.add("maintenance", work.maintenance.run)
    supervisor.add("lost_events", work.lost_events.run)
    if isinstance(stores.epoch, CacheEpoch):
        stores.epoch.listeners.append(runtime.keys.forget_all)
        supervisor.add("cache_epoch", stores.epoch.follow)
    for name, run in stores.cache.workers().items():
        supervisor.add(name, run)
    if runtime.siblings is not None:
        supervisor.add("metrics_socket", runtime.siblings.serve)
    runtime.pipeline.start(supervisor)


def _add_statistics(runtime: Runtime, stores: Stores) -> None:
    every_s = runtime.settings.metrics.stores_every_s
    collector = StatisticsCollector(
        [StoreStatistics(role, store, every_s) for role, store in stores.by_role().items()]
    )
    for each in collector.stores:
        run = partial(_after_opening, runtime.health.watch(each.role), each.run)
        runtime.supervisor.add(f"statistics_{each.role}", run)
    runtime.metrics.add_source(collector.metrics)


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
    runtime.metrics.add_source(runtime.lost_events.metrics)
    runtime.metrics.add_source(lambda: cache_metrics(stores.cache.counters, runtime.keys))
    runtime.metrics.add_source(runtime.health.metrics)
    runtime.metrics.add_source(runtime.limiter.metrics)
