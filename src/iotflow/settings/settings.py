"""All settings together: where they are read from, and what only several of them tell."""

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from iotflow.errors import ConfigurationError
from iotflow.settings.sections import (
    AccountSettings,
    CacheTtlSettings,
    CorsSettings,
    EventSettings,
    IngestSettings,
    JobSettings,
    LogSettings,
    MetricsSettings,
    PipelineSettings,
    QuerySettings,
    QuotaSettings,
    RateLimitSettings,
    ServerSettings,
    StoreSettings,
    TlsSettings,
    TokenSettings,
)
from iotflow.settings.types import Networks, Secrets, StrictModel

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
_MIN_SECRET = 32


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
    server: ServerSettings = ServerSettings()
    tls: TlsSettings = TlsSettings()
    cors: CorsSettings = CorsSettings()

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
        settings.check_tls()
        return settings

    def check_tls(self) -> None:
        """Raises ConfigurationError where a certificate or its key stands alone."""
        if (self.tls.certificate is None) != (self.tls.key is None):
            missing = "KEY" if self.tls.key is None else "CERTIFICATE"
            raise ConfigurationError(f"{PREFIX}TLS__{missing}: TLS needs a certificate and a key")

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
        scheme = configured.url.partition(":")[0].lower()
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
