"""ETags: by them a caller changes only what it has read (RFC 9110, 13.1)."""

import hashlib
from typing import Annotated

from fastapi import Header

from iotflow.domain.devices import Device
from iotflow.errors import StaleVersionError

IfMatch = Annotated[
    str | None,
    Header(description="An `ETag` that was read before, or `*`; 412 where it is not current"),
]
IfNoneMatch = Annotated[
    str | None, Header(description="An `ETag` that was read before; 304 where it is current")
]
ETAG_HEADER = {"ETag": {"description": "The version", "schema": {"type": "string"}}}
NOT_MODIFIED = {304: {"description": "It is as the caller knows it"}}


def device_etag(device: Device) -> str:
    """Of what people change, keys included; not of when it was last heard of."""
    key = device.key
    version = (device.id, device.updated_at.isoformat(), key and (key.id, str(key.expires_at)))
    return f'"{hashlib.sha256(repr(version).encode()).hexdigest()[:24]}"'


def require_match(if_match: str | None, etag: str) -> None:
    """Let a change go on that was meant for this version.

    Raises:
        StaleVersionError: `if_match` names other versions.
    """
    if if_match is not None and not _names(if_match, etag):
        raise StaleVersionError("This is not the current version any more. Read it again.")


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether the caller has this version already."""
    # Here a weak tag is as good as a strong one: proxies make them of ours.
    return if_none_match is not None and _names(if_none_match.replace("W/", ""), etag)


def _names(header: str, etag: str) -> bool:
    return header.strip() == "*" or etag in (each.strip() for each in header.split(","))
