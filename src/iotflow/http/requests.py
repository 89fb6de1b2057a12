"""What every request carries: an id, an address, a runtime."""

import itertools
import re
import secrets
from typing import Any

from starlette.types import Scope

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_process = secrets.token_hex(5)
_numbers = itertools.count(1)


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of a lower-case name, as it came."""
    for key, value in scope["headers"]:
        if key == name:
            return value
    return None


def declared_length(scope: Scope) -> int:
    """The Content-Length, 0 where there is none."""
    declared = header(scope, b"content-length")
    return int(declared) if declared is not None and declared.isdigit() else 0


def request_id(scope: Scope) -> str:
    """The caller's X-Request-ID where it is sane, else a new one."""
    sent = header(scope, b"x-request-id")
    if sent is not None and _SANE_ID.fullmatch(sent):
        return sent.decode("ascii")
    return f"{_process}-{next(_numbers):x}"


def client_address(scope: Scope) -> str:
    """The address that the request came from, as the server saw it."""
    client: Any = scope.get("client")
    return client[0] if client else "unknown"
