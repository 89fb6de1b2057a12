"""Builds the services of a runtime, feature by feature, over what all of them share."""

import time
from collections.abc import Callable
from dataclasses import dataclass

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
from iotflow.domain.jobs import DELETIONS, JobKind
from iotflow.health.watch import StoreWatch
from iotflow.jobs.deletions import DeletionWork
from iotflow.jobs.service import Jobs
from iotflow.jobs.worker import JobWork, JobWorker
from iotflow.limits.limiter import RateLimiter
from iotflow.maintenance.lost_events import LostEvents
from iotflow.maintenance.pace import Pace
from iotflow.maintenance.replay import ReplayWork
from iotflow.maintenance.service import Maintenance
from iotflow.maintenance.verification import Looked, VerificationWork
from iotflow.maintenance.warming import WarmingWork
from iotflow.observability.metrics import Metrics
from iotflow.pipeline.lane import EMBEDDED, SHARED, LaneLease
from iotflow.pipeline.pipeline import Pipeline
from iotflow.runtime.stores import Stores, is_embedded
from iotflow.settings import Settings
from iotflow.telemetry.aggregates import Aggregates
from iotflow.telemetry.deletion import Deletion
from iotflow.telemetry.ingest import Ingest
from iotflow.telemetry.latest import LatestValues
from iotflow.telemetry.names import MeasurementNames

# What looks after the stores takes no more than this part of the time.
_MAINTENANCE_SHARE = 0.25


class Shared:
    """What the features have in common. A watch tells whether a store answers."""

    def __init__(self, settings: Settings, metrics: Metrics, stores: Stores) -> None:
        self.settings = settings
        self.metrics = metrics
        self.stores = stores
        self.now: Callable[[], float] = time.time
        alone = is_embedded(settings.store_url("registry"))
        self.lane = LaneLease(stores.registry, EMBEDDED if alone else SHARED, now=self.now)
        self.write_clock = WriteClock(self.lane.lane, self.now)
        self.limiter = RateLimiter(stores.cache, settings.rate_limits, self.now)
        self.keys = KeyAuthenticator(stores.registry, stores.cache, stores.epoch, metrics, self.now)
        self.watches = {
            "registry": StoreWatch("registry", stores.registry),
            "telemetry": StoreWatch("telemetry", stores.telemetry),
            "cache": StoreWatch("cache", stores.cache),
            "events": StoreWatch("events", stores.events),
        }


@dataclass(frozen=True, slots=True)
class Work:
    """What goes on off the request path: the queues, the jobs, and what is noted as lost."""

    pipeline: Pipeline
    deletions: JobWorker
    maintenance: JobWorker
    maintenance_jobs: Maintenance
    lost_events: LostEvents


def build_work(shared: Shared, latest: LatestValues) -> Work:
    """`latest` is what a cache is warmed with."""
    stores, settings, now = shared.stores, shared.settings, shared.now
    maintenance = JobWorker(stores.registry, _maintenance(shared, latest), now=now)
    settle_s = settings.jobs.settle_s
    lost = LostEvents(
        stores.registry,
        settle_s=settle_s,
        max_future_s=settings.ingest.max_future_s,
        wake=maintenance.wake,
        now=now,
    )
    pipeline = Pipeline(
        stores.events,
        stores.registry.note_seen,
        event_capacity=settings.pipeline.event_queue,
        lost_event=lost.note,
    )
    jobs = Maintenance(stores.registry, settle_s=settle_s, wake=maintenance.wake, now=now)
    return Work(pipeline, _deletions(shared), maintenance, jobs, lost)


def _deletions(shared: Shared) -> JobWorker:
    stores = shared.stores
    work = DeletionWork(
        stores.registry,
        stores.telemetry,
        stores.cache,
        stores.events,
        shared.keys,
        shared.write_clock,
        settle_s=shared.settings.jobs.settle_s,
    )
    return JobWorker(stores.registry, dict.fromkeys(DELETIONS, work), now=shared.now)


def _maintenance(shared: Shared, latest: LatestValues) -> dict[JobKind, JobWork]:
    stores, pace = shared.stores, Pace(_MAINTENANCE_SHARE)
    registry, telemetry, cache, events = (
        stores.registry, stores.telemetry, stores.cache, stores.events,
    )  # fmt: skip
    kept_s = shared.settings.events.retention_s
    return {
        JobKind.EVENT_REPLAY: ReplayWork(registry, telemetry, events, pace),
        JobKind.VERIFICATION: VerificationWork(
            Looked(registry, telemetry, cache, events),
            shared.write_clock,
            pace,
            events_kept_ms=kept_s and kept_s * 1000,
        ),
        JobKind.CACHE_WARMING: WarmingWork(registry, cache, latest, shared.keys, pace),
    }


@dataclass(frozen=True, slots=True)
class AccountServices:
    accounts: Accounts
    bearers: BearerAuthenticator
    tokens: PersonalTokens
    users: Users


def build_accounts(shared: Shared, passwords: Passwords, pipeline: Pipeline) -> AccountServices:
    settings, registry, now = shared.settings, shared.stores.registry, shared.now
    access_tokens = AccessTokens(settings.token_secrets(), settings.tokens.access_s)
    bearers = BearerAuthenticator(registry, access_tokens, now)
    log_event = pipeline.log_event
    accounts = Accounts(
        registry,
        passwords,
        access_tokens,
        bearers,
        shared.limiter,
        registration=settings.accounts.registration,
        refresh_lifetime_s=settings.tokens.refresh_s,
        log_event=log_event,
        now=now,
    )
    tokens = PersonalTokens(
        registry, bearers, limit=settings.quotas.tokens, log_event=log_event, now=now
    )
    users = Users(registry, bearers, shared.keys, log_event=log_event, now=now)
    return AccountServices(accounts, bearers, tokens, users)


@dataclass(frozen=True, slots=True)
class DeviceServices:
    devices: Devices
    configs: DeviceConfigs
    jobs: Jobs


def build_devices(shared: Shared, work: Work) -> DeviceServices:
    settings, stores, now = shared.settings, shared.stores, shared.now
    log_event = work.pipeline.log_event
    devices = Devices(
        stores.registry,
        stores.cache,
        shared.keys,
        online_s=settings.cache_ttl.online_s,
        limit=settings.quotas.devices,
        log_event=log_event,
        now=now,
    )
    jobs = Jobs(
        stores.registry,
        shared.keys,
        wake=work.deletions.wake,
        gone=devices.forget_owners,
        log_event=log_event,
        now=now,
    )
    configs = DeviceConfigs(stores.registry, devices, log_event=log_event, now=now)
    return DeviceServices(devices, configs, jobs)


@dataclass(frozen=True, slots=True)
class TelemetryServices:
    ingest: Ingest
    aggregates: Aggregates
    deletion: Deletion


def build_telemetry(shared: Shared, pipeline: Pipeline) -> TelemetryServices:
    settings, stores = shared.settings, shared.stores
    names = MeasurementNames(stores.telemetry, settings.ingest.max_measurements)
    ingest = Ingest(
        stores.telemetry,
        stores.cache,
        shared.limiter,
        names,
        shared.metrics,
        settings=settings.ingest,
        write_clock=shared.write_clock,
        device_clock=DeviceClock(shared.lane.lane, shared.now),
        submitted=pipeline.submitted,
        now=shared.now,
    )
    query = settings.query
    return TelemetryServices(
        ingest=ingest,
        aggregates=Aggregates(stores.telemetry, query.row_budget, query.chart_row_budget),
        deletion=Deletion(stores.telemetry, stores.cache, names, shared.write_clock),
    )


def build_latest(shared: Shared) -> LatestValues:
    stores, telemetry = shared.stores, shared.watches["telemetry"]
    return LatestValues(stores.telemetry, stores.cache, shared.metrics, lambda: telemetry.available)
