"""Whose address a request has that came through proxies, and how it came to the first of them."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
# A chain that is longer is not followed to its end.
_MAX_HOPS = 32


class TrustProxies:
    """Takes the client's address from X-Forwarded-For, or else Forwarded (RFC 7239).

    Only what a trusted proxy has added is believed: from the last entry back to the first one
    that is no trusted proxy itself, which is the client. Whatever stands before it may have
    been made up. Whether the client used https is what the last proxy says
    (X-Forwarded-Proto, or Forwarded).
    """

    def __init__(self, app: ASGIApp, networks: Sequence[Network]) -> None:
        self._app = app
        self._networks = networks
        # Proxies are few, and each sends many requests.
        self._trusted_peer = lru_cache(maxsize=1024)(self._trust_peer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("client"):
            host, port = scope["client"]
            peer = self._trusted_peer(host)
            if peer is not None:
                headers = scope["headers"]
                scheme = _scheme(headers) or scope.get("scheme", "http")
                scope = dict(scope, client=(self._client(peer, headers), port), scheme=scheme)
        await self._app(scope, receive, send)

    def _trust_peer(self, host: str) -> Address | None:
        address = _address(host)
        return address if address is not None and self._trusts(address) else None

    def _client(self, peer: Address, headers: Iterable[tuple[bytes, bytes]]) -> str:
        found = peer
        for hop in _hops(headers):
            address = _address(hop)
            if address is None:
                break  # hidden or broken: the proxy that told of it is all that is known
            found = address
            if not self._trusts(address):
                break
        return str(found)

    def _trusts(self, address: Address) -> bool:
        return any(
            address.version == network.version and address in network for network in self._networks
        )


def _hops(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
    """The addresses of a chain, the last first."""
    chain = _joined(headers, b"x-forwarded-for")
    elements = chain.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]
    if not chain:
        chain = _joined(headers, b"forwarded")
        elements = [_forwarded(each, "for") for each in chain.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]]
    return reversed(elements) if chain else iter(())


def _joined(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    return ",".join(value.decode("latin-1") for name, value in headers if name == wanted)


def _scheme(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What the last proxy says."""
    last = _joined(headers, b"x-forwarded-proto").rpartition(",")[2]
    if not last:
        last = _forwarded(_joined(headers, b"forwarded").rpartition(",")[2], "proto")
    scheme = last.strip().lower()
    return scheme if scheme in ("http", "https") else None


def _forwarded(element: str, wanted: str) -> str:
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == wanted:
            return value.strip().strip('"')
    return ""


def _address(text: str) -> Address | None:
    """An address with or without a port; IPv4 in IPv6 is IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
