"""Settings: environment variables that begin with IOTFLOW_, a .env file, or secret files.

A nested setting joins its parts with two underscores: IOTFLOW_TELEMETRY__URL.
"""

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from iotflow.domain.limits import RatePolicy
from iotflow.errors import ConfigurationError

PREFIX = "IOTFLOW_"
# Read by commands, not by the server.
CLIENT_VARIABLES = frozenset(
    {"IOTFLOW_URL", "IOTFLOW_API_KEY", "IOTFLOW_TOKEN", "IOTFLOW_ADMIN_PASSWORD"}
)

Role = Literal["registry", "telemetry", "cache", "events"]
SCHEMES: dict[Role, frozenset[str]] = {
    "registry": frozenset({"sqlite", "postgresql"}),
    "telemetry": frozenset({"sqlite", "postgresql", "cassandra"}),
    "cache": frozenset(
        {
            "memory",
            "none",
            "redis",
            "rediss",
            "redis+sentinel",
            "rediss+sentinel",
            "redis+cluster",
            "rediss+cluster",
        }
    ),
    "events": frozenset({"sqlite", "postgresql", "mongodb", "mongodb+srv"}),
}


def _parse_policy(value: object) -> object:
    if not isinstance(value, str):
        return value
    limit, slash, window = value.partition("/")
    if not (slash and limit.isdecimal() and window.isdecimal() and int(limit) and int(window)):
        raise ValueError("write it as count/seconds, for instance 1000/10")
    return RatePolicy(int(limit), int(window))


Policy = Annotated[RatePolicy, NoDecode, BeforeValidator(_parse_policy)]


def _split(value: object) -> object:
    return value.replace(",", " ").split() if isinstance(value, str) else value


Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_split), Field(max_length=64)
]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split), Field(max_length=8)]
_MIN_SECRET = 32


class StrictModel(BaseModel):
    model_config = {"extra": "forbid", "frozen": True, "arbitrary_types_allowed": True}


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
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"
    access: Literal["all", "errors", "off"] = "errors"


class MetricsSettings(StrictModel):
    """With a token, GET /metrics asks for it as a bearer."""

    token: SecretStr | None = None


class Settings(BaseSettings):
    """Everything that can be set. Defaults run embedded, under the data directory."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
    )

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    data_dir: Path = Path("data")
    secret_key: SecretStr | None = None
    previous_secret_keys: Secrets = ()

    registry: StoreSettings = StoreSettings()
    telemetry: StoreSettings = StoreSettings()
    cache: StoreSettings = StoreSettings()
    events: EventSettings = EventSettings()

    # CIDRs of the proxies whose X-Forwarded-For or Forwarded is believed.
    trusted_proxies: Networks = ()

    rate_limits: RateLimitSettings = RateLimitSettings()
    cache_ttl: CacheTtlSettings = CacheTtlSettings()
    tokens: TokenSettings = TokenSettings()
    accounts: AccountSettings = AccountSettings()
    quotas: QuotaSettings = QuotaSettings()
    ingest: IngestSettings = IngestSettings()
    query: QuerySettings = QuerySettings()
    pipeline: PipelineSettings = PipelineSettings()
    jobs: JobSettings = JobSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, /, **overrides: Any) -> Self:
        """Read the settings; `overrides` win over the environment.

        Raises:
            ConfigurationError: one line that names the setting at fault, without its value.
        """
        environ = os.environ if environ is None else environ
        _refuse_unknown(cls, environ)
        if directory := environ.get(f"{PREFIX}SECRETS_DIR"):
            overrides["_secrets_dir"] = directory
        try:
            settings = cls(**overrides)
        except ValidationError as error:
            raise ConfigurationError(_one_line(error)) from None
        except SettingsError as error:
            raise ConfigurationError(f"{PREFIX}*: {error}") from None
        for role in SCHEMES:
            settings.store_url(role)
        settings.check_retention()
        return settings

    def check_retention(self) -> None:
        """Raises ConfigurationError where no store would do what is asked."""
        if self.events.retention_s and not self.store_url("events").startswith("mongodb"):
            raise ConfigurationError(
                f"{PREFIX}EVENTS__RETENTION_S: only events in MongoDB have a retention"
            )

    def store_url(self, role: Role) -> str:
        """The URL that picks a role's adapter.

        Raises:
            ConfigurationError: a scheme that the role has no adapter for.
        """
        configured: StoreSettings = getattr(self, role)
        if not configured.url:
            return "memory://" if role == "cache" else f"sqlite:///{self.data_dir / role}.db"
        scheme = urlsplit(configured.url).scheme
        if scheme not in SCHEMES[role]:
            known = ", ".join(f"{name}://" for name in sorted(SCHEMES[role]))
            raise ConfigurationError(f"{PREFIX}{role.upper()}__URL: begin it with one of {known}")
        return configured.url

    def signing_secret(self) -> str:
        """The secret that signs tokens.

        On an embedded registry it is made once and kept in the data directory, mode 0600.

        Raises:
            ConfigurationError: none is set for a registry that replicas share.
        """
        if self.secret_key is not None:
            secret = self.secret_key.get_secret_value()
            if len(secret) < _MIN_SECRET:
                raise ConfigurationError(f"{PREFIX}SECRET_KEY: at least 32 characters")
            return secret
        if not self.store_url("registry").startswith("sqlite:"):
            raise ConfigurationError(
                f"{PREFIX}SECRET_KEY: set it (32 characters or more), the same on every replica"
            )
        return _kept_secret(self.data_dir / "secret_key")

    def token_secrets(self) -> list[str]:
        """The secret that signs tokens, and those that are still read: for a change of secrets.

        Raises:
            ConfigurationError: as `signing_secret`, or one is too short.
        """
        previous = [secret.get_secret_value() for secret in self.previous_secret_keys]
        if any(len(secret) < _MIN_SECRET for secret in previous):
            raise ConfigurationError(
                f"{PREFIX}PREVIOUS_SECRET_KEYS: at least {_MIN_SECRET} characters each"
            )
        return [self.signing_secret(), *previous]


def _kept_secret(path: Path) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigurationError(
            f"{PREFIX}DATA_DIR: cannot write to {path.parent} ({error.strerror})"
        ) from None
    return path.read_text()


def _refuse_unknown(settings: type[Settings], environ: Iterable[str]) -> None:
    known = {name.upper() for name in _variables(settings, PREFIX)} | CLIENT_VARIABLES
    known.add(f"{PREFIX}SECRETS_DIR")
    for name in environ:
        if name.startswith(f"{PREFIX}TEST_"):
            continue  # where the tests find their servers
        if name.startswith(PREFIX) and name.upper() not in known:
            raise ConfigurationError(f"{name}: there is no such setting{_near(name, known)}")


def _near(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _variables(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        variable = f"{prefix}{field.alias or name}"
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, StrictModel):
            yield from _variables(annotation, f"{variable}__")
        else:
            yield variable


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    name = PREFIX + "__".join(str(part) for part in first["loc"]).upper()
    return f"{name}: {first['msg'].removeprefix('Value error, ')}"
