"""The settings by theme, each with its defaults and bounds."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from iotflow.domain.limits import RatePolicy
from iotflow.settings.types import Origins, Policy, StrictModel


class StoreSettings(StrictModel):
    url: str = ""


class EventSettings(StoreSettings):
    """`retention_s`: MongoDB drops events that are older; None keeps them for ever."""

    retention_s: Annotated[int | None, Field(ge=60)] = None


class DeviceLimits(StrictModel):
    """What one device has instead of the general limits; None leaves it with those."""

    ingest: Policy | None = None
    points: Policy | None = None


class RateLimitSettings(StrictModel):
    """Named policies as count/seconds. `enabled` false switches off every limit.

    `devices` is JSON, by the device's id: {"42": {"ingest": "5000/10", "points": "500000/10"}}.
    """

    enabled: bool = True
    register_: Policy = Field(default=RatePolicy(30, 3600), alias="register")
    login: Policy = RatePolicy(60, 60)
    login_failures: Policy = RatePolicy(10, 300)
    ingest: Policy = RatePolicy(1000, 10)
    points: Policy = RatePolicy(100_000, 10)
    read: Policy = RatePolicy(1000, 10)
    write: Policy = RatePolicy(600, 60)
    devices: Annotated[dict[int, DeviceLimits], Field(max_length=10_000)] = Field(
        default_factory=dict[int, DeviceLimits]
    )


class CacheTtlSettings(StrictModel):
    """Times to live in seconds."""

    key_s: Annotated[int, Field(ge=1)] = 3600
    latest_s: Annotated[int, Field(ge=1)] = 600
    online_s: Annotated[int, Field(ge=1)] = 300


class TokenSettings(StrictModel):
    access_s: Annotated[int, Field(ge=1)] = 900
    refresh_s: Annotated[int, Field(ge=1)] = 30 * 86_400


RegistrationMode = Literal["open", "invitation", "closed"]


class AccountSettings(StrictModel):
    """Who may register: anyone, whoever an admin has invited, or nobody."""

    registration: RegistrationMode = "open"
    invitation_s: Annotated[int, Field(ge=60)] = 7 * 86_400


class QuotaSettings(StrictModel):
    """How much one user may have at once."""

    devices: Annotated[int, Field(ge=0)] = 100_000
    groups: Annotated[int, Field(ge=0)] = 10_000
    tokens: Annotated[int, Field(ge=0)] = 100


class IngestSettings(StrictModel):
    """Bounds of what devices send."""

    max_future_s: Annotated[int, Field(ge=0)] = 300
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    max_batch_bytes: Annotated[int, Field(ge=1024)] = 8 * 1024 * 1024
    max_measurements: Annotated[int, Field(ge=1)] = 1024


class QuerySettings(StrictModel):
    """Bounds of what a single query may cost."""

    row_budget: Annotated[int, Field(ge=1)] = 5_000_000
    chart_row_budget: Annotated[int, Field(ge=1)] = 500_000


class PipelineSettings(StrictModel):
    event_queue: Annotated[int, Field(ge=1)] = 50_000
    drain_s: Annotated[float, Field(gt=0)] = 10.0


class JobSettings(StrictModel):
    """`settle_s`: how long after a deletion a submission may still be under way."""

    settle_s: Annotated[float, Field(ge=0, le=3600)] = 5.0


class LogSettings(StrictModel):
    """A store call of `slow_query_ms` and longer is logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"
    access: Literal["all", "errors", "off"] = "errors"
    slow_query_ms: Annotated[int, Field(ge=1)] = 500


class MetricsSettings(StrictModel):
    """With a token, GET /metrics asks for it as a bearer. Stores are asked for their statistics
    every `stores_every_s`."""

    token: SecretStr | None = None
    stores_every_s: Annotated[float, Field(ge=0.1, le=3600)] = 30.0


class ServerSettings(StrictModel):
    """What a connection may take. Past these bounds it is answered in a line and closed.

    `header_s` and `request_s` bound the time from a request's first byte (or from the connection)
    until its headers and its body are there; `keep_alive_s` how long an idle connection is kept.
    `max_connections` counts idle ones too, in each process.

    Past `max_in_flight` requests at work in a process, or fewer while they take longer than
    `max_mean_ms` on average, or where they wait for longer than `max_queue_ms` for their turn,
    further ones are refused (docs/decisions/0015). What is no single submission leaves others their
    turn for up to `max_put_off_ms` (docs/decisions/0021).

    A stop is announced in readiness for `stop_delay_s` while requests are still taken; then those
    under way have `grace_s`, and the queues what is left. After `stop_s` the process ends anyway.
    """

    header_s: Annotated[float, Field(gt=0, le=3600)] = 10.0
    request_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    keep_alive_s: Annotated[int, Field(ge=1, le=3600)] = 75
    max_headers: Annotated[int, Field(ge=16, le=1000)] = 100
    max_header_bytes: Annotated[int, Field(ge=4096, le=1024 * 1024)] = 64 * 1024
    max_connections: Annotated[int, Field(ge=1)] = 10_000
    backlog: Annotated[int, Field(ge=1, le=65_535)] = 2048
    max_in_flight: Annotated[int, Field(ge=1)] = 1000
    max_mean_ms: Annotated[int, Field(ge=1, le=60_000)] = 250
    max_queue_ms: Annotated[int, Field(ge=1, le=60_000)] = 200
    max_put_off_ms: Annotated[int, Field(ge=1, le=60_000)] = 1000
    stop_delay_s: Annotated[float, Field(ge=0, le=3600)] = 0.0
    grace_s: Annotated[float, Field(gt=0, le=3600)] = 10.0
    stop_s: Annotated[float, Field(gt=0, le=7200)] = 25.0
    hsts_s: Annotated[int, Field(ge=0)] = 31_536_000

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.request_s < self.header_s:
            raise ValueError("request_s takes the headers in: it is at least header_s")
        if self.stop_s <= self.stop_delay_s:
            raise ValueError("stop_s takes the delay in: it is more than stop_delay_s")
        return self


class TlsSettings(StrictModel):
    """PEM files. With a certificate the service speaks https alone."""

    certificate: Path | None = None
    key: Path | None = None
    key_password: SecretStr | None = None


class CorsSettings(StrictModel):
    """Web pages of these origins may call the API; by default none may."""

    origins: Origins = ()
    max_age_s: Annotated[int, Field(ge=0, le=86_400)] = 600
