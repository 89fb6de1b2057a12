"""A device's configuration: what is desired of it, and what it reports to have applied."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ReportedConfig:
    """What a device says that it runs with; `config` is the text of a JSON object."""

    version: int
    config: str
    at: datetime


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """The desired configuration, the text of a JSON object. `version` is 0 where none was set."""

    version: int = 0
    config: str = "{}"
    reported: ReportedConfig | None = None
