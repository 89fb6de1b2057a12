"""Whose address counts behind proxies."""

from ipaddress import ip_network
from typing import Any

import pytest

from iotflow.http.proxies import TrustProxies

PROXY = "10.0.0.1"


async def seen(peer: str, *headers: tuple[str, str]) -> str:
    """The address that an application sees behind proxies in 10/8 and fd00::/8."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    async def never(*_: Any) -> Any:
        raise AssertionError

    trusting = TrustProxies(app, [ip_network("10.0.0.0/8"), ip_network("fd00::/8")])
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "client": (peer, 1234), "headers": encoded}
    await trusting(scope, never, never)
    address: str = scopes[0]["client"][0]
    assert scope["client"] == (peer, 1234)
    return address


def for_(*chain: str) -> tuple[str, str]:
    return "x-forwarded-for", ", ".join(chain)


@pytest.mark.parametrize(
    ("peer", "headers", "address"),
    [
        (PROXY, [], PROXY),
        (PROXY, [for_("203.0.113.5")], "203.0.113.5"),
        (PROXY, [for_("203.0.113.5:4711")], "203.0.113.5"),
        (PROXY, [for_("203.0.113.5", "10.9.9.9")], "203.0.113.5"),
        # What stands before the first address that no proxy of ours has is the client's own word.
        (PROXY, [for_("1.1.1.1", "203.0.113.5", "10.9.9.9")], "203.0.113.5"),
        (PROXY, [for_("1.1.1.1"), for_("203.0.113.5")], "203.0.113.5"),
        ("203.0.113.5", [for_("1.1.1.1")], "203.0.113.5"),
        ("203.0.113.5", [("forwarded", "for=1.1.1.1")], "203.0.113.5"),
        (PROXY, [for_("10.1.1.1", "10.2.2.2")], "10.1.1.1"),
        (PROXY, [for_("203.0.113.5", "unknown")], PROXY),
        (PROXY, [for_("203.0.113.5", "", "10.3.3.3")], "10.3.3.3"),
        (PROXY, [for_(*["10.1.1.1"] * 5_000)], "10.1.1.1"),
        (PROXY, [("forwarded", "for=203.0.113.5;proto=https")], "203.0.113.5"),
        (PROXY, [("forwarded", "by=_x; For=\"[2001:db8::7]:4711\"")], "2001:db8::7"),
        (PROXY, [("forwarded", "for=1.1.1.1, for=_hidden")], PROXY),
        (PROXY, [for_("203.0.113.5"), ("forwarded", "for=1.1.1.1")], "203.0.113.5"),
        ("fd00::1", [for_("2001:db8::7")], "2001:db8::7"),
        ("::ffff:10.0.0.1", [for_("203.0.113.5")], "203.0.113.5"),
        ("a socket", [for_("203.0.113.5")], "a socket"),
    ],
)  # fmt: skip
async def test_whose_address_it_is(peer: str, headers: list[tuple[str, str]], address: str) -> None:
    assert await seen(peer, *headers) == address
