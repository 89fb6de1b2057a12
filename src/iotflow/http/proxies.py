"""Whose address a request has that came through proxies."""

from collections.abc import Iterable, Iterator, Sequence
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
    been made up.
    """

    def __init__(self, app: ASGIApp, networks: Sequence[Network]) -> None:
        self._app = app
        self._networks = networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("client"):
            host, port = scope["client"]
            address = self._client(host, scope["headers"])
            if address != host:
                scope = dict(scope, client=(address, port))
        await self._app(scope, receive, send)

    def _client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        found = _address(peer)
        if found is None or not self._trusts(found):
            return peer
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
        elements = [_forwarded_for(each) for each in chain.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]]
    return reversed(elements) if chain else iter(())


def _joined(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    return ",".join(value.decode("latin-1") for name, value in headers if name == wanted)


def _forwarded_for(element: str) -> str:
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
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
