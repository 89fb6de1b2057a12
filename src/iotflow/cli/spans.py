"""Lengths of time as they are written on the command line."""

import re

from iotflow.errors import ConfigurationError

_SPAN = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def seconds_of(option: str, text: str) -> int:
    """Raises ConfigurationError, which names the option."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"{option}: write it as 90s, 15m, 1h, 7d or 2w.")
    return int(match[1]) * _SECONDS[match[2]]
