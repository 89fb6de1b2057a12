"""Settings: environment variables that begin with IOTFLOW_, a .env file, or secret files.

A nested setting joins its parts with two underscores: IOTFLOW_TELEMETRY__URL.
"""

from iotflow.settings.sections import (
    AccountSettings,
    CacheTtlSettings,
    CorsSettings,
    DeviceLimits,
    EventSettings,
    IngestSettings,
    JobSettings,
    LogSettings,
    MetricsSettings,
    PipelineSettings,
    QuerySettings,
    QuotaSettings,
    RateLimitSettings,
    RegistrationMode,
    ServerSettings,
    StoreSettings,
    TlsSettings,
    TokenSettings,
)
from iotflow.settings.settings import CLIENT_VARIABLES, PREFIX, SCHEMES, Role, Settings
from iotflow.settings.types import StrictModel

__all__ = [
    "CLIENT_VARIABLES",
    "PREFIX",
    "SCHEMES",
    "AccountSettings",
    "CacheTtlSettings",
    "CorsSettings",
    "DeviceLimits",
    "EventSettings",
    "IngestSettings",
    "JobSettings",
    "LogSettings",
    "MetricsSettings",
    "PipelineSettings",
    "QuerySettings",
    "QuotaSettings",
    "RateLimitSettings",
    "RegistrationMode",
    "Role",
    "ServerSettings",
    "Settings",
    "StoreSettings",
    "StrictModel",
    "TlsSettings",
    "TokenSettings",
]
